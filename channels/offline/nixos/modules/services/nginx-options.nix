# The options of services.nginx; nginx.nix makes the configuration file.
{ config, lib, ... }:
let
  inherit (lib) types;

  option = type: default: description: lib.mkOption { inherit type default description; };
  bool = option types.bool;
  lines = option types.lines "";
  nullOr = type: option (types.nullOr type) null;

  listenType = types.submodule {
    options = {
      addr = lib.mkOption { type = types.str; description = "Address to listen on."; };
      port = nullOr types.port "Port to listen on.";
      ssl = bool false "Whether connections use TLS.";
      extraParameters = option (types.listOf types.str) [ ] "Further parameters.";
    };
  };

  authOptions = {
    basicAuth = option (types.attrsOf types.str) { } "Accounts and passwords; everybody can read them in the store.";
    basicAuthFile = nullOr types.path "File of accounts and hashed passwords.";
  };

  locationType = types.submodule {
    options = authOptions // {
      proxyPass = nullOr types.str "URL that requests are passed to.";
      proxyWebsockets = bool false "Whether WebSocket connections are passed on.";
      recommendedProxySettings = lib.mkOption {
        type = types.bool;
        default = config.services.nginx.recommendedProxySettings;
        defaultText = lib.literalExpression "config.services.nginx.recommendedProxySettings";
        description = "Whether the usual headers about the client are passed on.";
      };
      index = nullOr types.str "Files that stand for a folder.";
      tryFiles = nullOr types.str "Files to try in turn.";
      root = nullOr types.path "Folder of the files.";
      alias = nullOr types.path "Folder in the place of the location.";
      return = nullOr (types.oneOf [ types.str types.int ]) "Answer: a status, and a text or URL.";
      fastcgiParams = option (types.attrsOf (types.either types.str types.path)) { } "FastCGI parameters.";
      extraConfig = lines "Further directives.";
      priority = option types.int 1000 "Place among the locations; smaller is earlier.";
    };
  };

  virtualHostType = types.submodule ({ name, ... }: {
    options = authOptions // {
      serverName = nullOr types.str "Name; the attribute's name unless given.";
      serverAliases = option (types.listOf types.str) [ ] "Further names.";
      listen = option (types.listOf listenType) [ ] "Addresses and ports; ports 80 and 443 of all addresses unless given.";
      listenAddresses = option (types.listOf types.str) [ ] "Addresses; all unless given.";
      enableACME = bool false "Refused when set: there is no network to get certificates over.";
      useACMEHost = nullOr types.str "Refused when set: see `enableACME`.";
      addSSL = bool false "Whether TLS is served besides plain HTTP.";
      onlySSL = bool false "Whether nothing but TLS is served.";
      forceSSL = bool false "Whether plain HTTP is redirected to TLS.";
      rejectSSL = bool false "Whether TLS connections are refused.";
      sslCertificate = lib.mkOption { type = types.path; description = "File of the certificate."; };
      sslCertificateKey = lib.mkOption { type = types.path; description = "File of the private key."; };
      sslTrustedCertificate = nullOr types.path "File of certificates that are trusted.";
      http2 = bool true "Whether HTTP/2 is served with TLS.";
      kTLS = bool false "Accepted without effect.";
      root = nullOr types.path "Folder of the files.";
      default = bool false "Whether this host answers for unknown names.";
      extraConfig = lines "Further directives.";
      globalRedirect = nullOr types.str "Name that all requests are redirected to.";
      redirectCode = option (types.ints.between 300 399) 301 "Status of redirects.";
      locations = option (types.attrsOf locationType) { } "Locations.";
    };
  });
in
{
  options.services.nginx = {
    enable = lib.mkEnableOption "nginx";
    virtualHosts = option (types.attrsOf virtualHostType) { } "Virtual hosts.";

    recommendedTlsSettings = bool false "Whether sessions are kept and old protocols are refused.";
    recommendedOptimisation = bool false "Whether files are sent without copying.";
    recommendedGzipSettings = bool false "Whether text is compressed.";
    recommendedProxySettings = bool false "Whether the usual headers about the client are passed to proxied services.";
    recommendedBrotliSettings = bool false "Accepted without effect: the host's nginx has no brotli.";
    recommendedZstdSettings = bool false "Accepted without effect: the host's nginx has no zstd.";
    proxyTimeout = option types.str "60s" "How long proxied services may take.";
    statusPage = bool false "Whether /nginx_status answers on the container itself.";

    defaultListenAddresses = option (types.listOf types.str) [ "0.0.0.0" "[::0]" ] "Addresses of virtual hosts that name none.";
    defaultHTTPListenPort = option types.port 80 "Port of plain HTTP.";
    defaultSSLListenPort = option types.port 443 "Port of TLS.";

    logError = option types.str "stderr" "Where errors are logged, and from which level on.";
    config = lines "The whole configuration, in place of everything else.";
    appendConfig = lines "Directives outside of the section http.";
    commonHttpConfig = lines "Directives at the start of the section http.";
    httpConfig = lines "The section http, in place of the virtual hosts.";
    appendHttpConfig = lines "Directives at the end of the section http.";
    eventsConfig = lines "Directives of the section events.";
    upstreams = lib.mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          servers = lib.mkOption {
            type = types.attrsOf (types.submodule {
              options.backup = bool false "Whether the server is asked only when the others do not answer.";
            });
            default = { };
            description = "Servers, by address.";
          };
          extraConfig = lines "Further directives.";
        };
      });
      default = { };
      description = "Groups of servers to pass requests to.";
    };

    package = lib.mkOption {
      type = types.package;
      description = "Programs of nginx.";
    };
    user = option types.str "nginx" "Account of the server.";
    group = option types.str "nginx" "Group of the server.";
    serverTokens = bool false "Whether answers name the version.";
    clientMaxBodySize = option types.str "10m" "Largest body of a request.";
    sslCiphers = nullOr types.str "Ciphers of TLS.";
    sslProtocols = option types.str "TLSv1.2 TLSv1.3" "Protocols of TLS.";
    mapHashBucketSize = nullOr (types.enum [ 32 64 128 ]) "Bucket size of maps.";
    mapHashMaxSize = nullOr types.ints.positive "Size of maps.";
    serverNamesHashBucketSize = nullOr types.ints.positive "Bucket size of the table of names.";
    serverNamesHashMaxSize = nullOr types.ints.positive "Size of the table of names.";
    enableReload = bool false "Whether a changed configuration is reloaded instead of restarted.";
    preStart = lines "Commands before the server starts.";
    resolver = {
      addresses = option (types.listOf types.str) [ ] "Resolvers for names in proxied URLs.";
      valid = option types.str "" "How long answers are kept.";
      ipv6 = bool true "Whether IPv6 addresses are looked up.";
    };
  };
}
