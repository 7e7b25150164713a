# services.nginx: the host's nginx. The account `nginx` starts it with the one capability
# that it needs, as NixOS does.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.nginx;

  on = value: if value then "on" else "off";
  directive = name: value: lib.optionalString (value != null) "${name} ${toString value};\n";

  mimeTypes = pkgs.writeText "mime.types" ''
    types {
      text/html html htm shtml;
      text/css css;
      text/plain txt log md;
      text/csv csv;
      text/xml xml;
      text/javascript js mjs;
      application/json json map;
      application/ld+json jsonld;
      application/manifest+json webmanifest;
      application/atom+xml atom;
      application/rss+xml rss;
      application/wasm wasm;
      application/pdf pdf;
      application/zip zip;
      application/gzip gz tgz;
      application/x-tar tar;
      application/x-xz xz;
      application/octet-stream bin exe iso img deb rpm;
      font/ttf ttf;
      font/otf otf;
      font/woff woff;
      font/woff2 woff2;
      image/avif avif;
      image/gif gif;
      image/jpeg jpeg jpg;
      image/png png;
      image/svg+xml svg svgz;
      image/tiff tif tiff;
      image/webp webp;
      image/x-icon ico;
      audio/mpeg mp3;
      audio/ogg ogg;
      audio/wav wav;
      video/mp4 mp4;
      video/mpeg mpeg mpg;
      video/ogg ogv;
      video/webm webm;
    }
    default_type application/octet-stream;
  '';

  proxyHeaders = pkgs.writeText "nginx-proxy-headers.conf" ''
    proxy_set_header Host $host;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $host;
    proxy_set_header X-Forwarded-Server $host;
  '';

  authText = place: auth:
    let
      file =
        if auth.basicAuthFile != null then auth.basicAuthFile
        else pkgs.writeText "htpasswd" (lib.concatStrings (lib.mapAttrsToList
          (account: password: "${account}:{PLAIN}${password}\n")
          auth.basicAuth));
    in
    lib.optionalString (auth.basicAuthFile != null || auth.basicAuth != { }) ''
      auth_basic "${place}";
      auth_basic_user_file ${file};
    '';

  locationText = path: location: ''
    location ${path} {
    ${lib.concatStrings [
      (directive "proxy_pass" location.proxyPass)
      (lib.optionalString location.proxyWebsockets ''
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
      '')
      (lib.concatStrings (lib.mapAttrsToList
        (name: value: "fastcgi_param ${name} \"${toString value}\";\n")
        location.fastcgiParams))
      (directive "index" location.index)
      (directive "try_files" location.tryFiles)
      (directive "root" location.root)
      (directive "alias" location.alias)
      (directive "return" location.return)
      location.extraConfig
      (lib.optionalString (location.proxyPass != null && location.recommendedProxySettings) "include ${proxyHeaders};\n")
      (authText "protected" location)
    ]}
    }
  '';

  locationsText = locations: lib.concatStrings (map
    (entry: locationText entry.path entry.value)
    (lib.sort (a: b: a.value.priority < b.value.priority)
      (lib.mapAttrsToList (path: value: { inherit path value; }) locations)));

  listenText = host: listen:
    "listen ${listen.addr}${lib.optionalString (listen.port != null) ":${toString listen.port}"}"
    + lib.optionalString host.default " default_server"
    + lib.optionalString listen.ssl " ssl"
    + lib.optionalString (listen.ssl && host.http2) " http2"
    + lib.concatMapStrings (parameter: " ${parameter}") listen.extraParameters
    + ";\n";

  # The server blocks of a virtual host.
  serversText = name: host:
    let
      serverName = if host.serverName != null then host.serverName else name;
      hasTLS = host.addSSL || host.onlySSL || host.forceSSL;
      addresses = if host.listenAddresses != [ ] then host.listenAddresses else cfg.defaultListenAddresses;
      at = port: ssl: map (addr: { inherit addr port ssl; extraParameters = [ ]; }) addresses;
      all =
        if host.listen != [ ] then host.listen
        else
          lib.optionals (!host.onlySSL) (at cfg.defaultHTTPListenPort false)
          ++ lib.optionals (hasTLS || host.rejectSSL) (at cfg.defaultSSLListenPort true);
      plain = lib.filter (listen: !listen.ssl) all;
      served = if host.forceSSL then lib.filter (listen: listen.ssl) all else all;
      names = "server_name ${lib.concatStringsSep " " ([ serverName ] ++ host.serverAliases)};\n";
    in
    lib.optionalString host.forceSSL ''
      server {
      ${lib.concatMapStrings (listenText host) plain}
      ${names}
      location / {
        return ${toString host.redirectCode} https://$host$request_uri;
      }
      }
    '' + ''
      server {
      ${lib.concatMapStrings (listenText host) served}
      ${names}
      ${lib.optionalString hasTLS ''
        ssl_certificate ${host.sslCertificate};
        ssl_certificate_key ${host.sslCertificateKey};
        ${directive "ssl_trusted_certificate" host.sslTrustedCertificate}
      ''}
      ${lib.optionalString host.rejectSSL "ssl_reject_handshake on;"}
      ${directive "root" host.root}
      ${lib.optionalString (host.globalRedirect != null) ''
        location / {
          return ${toString host.redirectCode} $scheme://${host.globalRedirect}$request_uri;
        }
      ''}
      ${authText serverName host}
      ${locationsText host.locations}
      ${host.extraConfig}
      }
    '';

  upstreamText = name: upstream: ''
    upstream ${name} {
    ${lib.concatStrings (lib.mapAttrsToList
      (address: server: "server ${address}${lib.optionalString server.backup " backup"};\n")
      upstream.servers)}
    ${upstream.extraConfig}
    }
  '';

  httpText = ''
    include ${mimeTypes};
    client_body_temp_path /var/cache/nginx/client_body;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    access_log /var/log/nginx/access.log;
    client_max_body_size ${cfg.clientMaxBodySize};
    server_tokens ${on cfg.serverTokens};
    ssl_protocols ${cfg.sslProtocols};
    ${directive "ssl_ciphers" cfg.sslCiphers}
    ${directive "map_hash_bucket_size" cfg.mapHashBucketSize}
    ${directive "map_hash_max_size" cfg.mapHashMaxSize}
    ${directive "server_names_hash_bucket_size" cfg.serverNamesHashBucketSize}
    ${directive "server_names_hash_max_size" cfg.serverNamesHashMaxSize}
    ${lib.optionalString (cfg.resolver.addresses != [ ])
      "resolver ${toString cfg.resolver.addresses}${lib.optionalString (cfg.resolver.valid != "") " valid=${cfg.resolver.valid}"}${lib.optionalString (!cfg.resolver.ipv6) " ipv6=off"};"}
    map $http_upgrade $connection_upgrade {
      default upgrade;
      "" close;
    }
    ${cfg.commonHttpConfig}
    ${lib.optionalString cfg.recommendedOptimisation ''
      sendfile on;
      tcp_nopush on;
      tcp_nodelay on;
      keepalive_timeout 65;
    ''}
    ${lib.optionalString cfg.recommendedTlsSettings ''
      ssl_session_timeout 1d;
      ssl_session_cache shared:SSL:10m;
      ssl_session_tickets off;
      ssl_prefer_server_ciphers off;
    ''}
    ${lib.optionalString cfg.recommendedGzipSettings ''
      gzip on;
      gzip_proxied any;
      gzip_vary on;
      gzip_min_length 256;
      gzip_types application/json application/javascript application/manifest+json application/wasm application/xml
        application/rss+xml application/atom+xml font/otf font/ttf image/svg+xml text/css text/javascript text/plain text/xml;
    ''}
    ${lib.optionalString cfg.recommendedProxySettings ''
      proxy_redirect off;
      proxy_connect_timeout ${cfg.proxyTimeout};
      proxy_send_timeout ${cfg.proxyTimeout};
      proxy_read_timeout ${cfg.proxyTimeout};
      proxy_http_version 1.1;
      include ${proxyHeaders};
    ''}
    ${lib.concatStrings (lib.mapAttrsToList upstreamText cfg.upstreams)}
    ${lib.concatStrings (lib.mapAttrsToList serversText cfg.virtualHosts)}
    ${lib.optionalString cfg.statusPage ''
      server {
        listen 127.0.0.1:80;
        server_name localhost;
        location /nginx_status {
          stub_status on;
          access_log off;
          allow 127.0.0.1;
          deny all;
        }
      }
    ''}
    ${cfg.appendHttpConfig}
  '';

  configFile = pkgs.writeText "nginx.conf" ''
    pid /run/nginx/nginx.pid;
    error_log ${cfg.logError};
    daemon off;
    ${if cfg.config != "" then cfg.config else ''
      events {
      ${cfg.eventsConfig}
      }
      http {
      ${if cfg.httpConfig != "" then cfg.httpConfig else httpText}
      }
    ''}
    ${cfg.appendConfig}
  '';

  nginx = "${cfg.package}/bin/nginx -e stderr -c ${if cfg.enableReload then "/etc/nginx/nginx.conf" else configFile}";
in
{
  imports = [ ./nginx-options.nix ];

  config = lib.mkMerge [
    { services.nginx.package = lib.mkDefault pkgs.nginx; }
    (lib.mkIf cfg.enable {
      assertions = lib.mapAttrsToList
        (name: host: {
          assertion = !host.enableACME && host.useACMEHost == null;
          message = "channels/offline does not implement services.nginx.virtualHosts.\"${name}\".enableACME and useACMEHost: there is no network to get certificates over. Set devhost.guest.selfSignedCertificate.enable and sslCertificate instead.";
        })
        cfg.virtualHosts
      ++ lib.mapAttrsToList
        (name: host: {
          assertion = lib.length (lib.filter lib.id [ host.addSSL host.onlySSL host.forceSSL host.rejectSSL ]) <= 1;
          message = "services.nginx.virtualHosts.\"${name}\": only one of addSSL, onlySSL, forceSSL and rejectSSL can be set.";
        })
        cfg.virtualHosts;

      users.users.nginx = lib.mkIf (cfg.user == "nginx") {
        uid = 60;
        isSystemUser = true;
        group = cfg.group;
        description = "nginx";
      };
      users.groups.nginx = lib.mkIf (cfg.group == "nginx") { gid = 60; };

      environment.etc."nginx/nginx.conf" = lib.mkIf cfg.enableReload { source = configFile; };

      systemd.services.nginx = {
        description = "Web server nginx";
        wantedBy = [ "multi-user.target" ];
        after = [ "network.target" ];
        stopIfChanged = false;
        reloadTriggers = lib.optional cfg.enableReload configFile;
        preStart = ''
          ${cfg.preStart}
          ${nginx} -t
        '';
        serviceConfig = {
          ExecStart = nginx;
          ExecReload = [ "${nginx} -t" "/bin/sh -c 'kill -HUP $MAINPID'" ];
          User = cfg.user;
          Group = cfg.group;
          RuntimeDirectory = "nginx";
          RuntimeDirectoryMode = "0750";
          CacheDirectory = "nginx";
          CacheDirectoryMode = "0750";
          LogsDirectory = "nginx";
          LogsDirectoryMode = "0750";
          AmbientCapabilities = "CAP_NET_BIND_SERVICE";
          CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";
          NoNewPrivileges = true;
          PrivateTmp = true;
          ProtectHome = lib.mkDefault true;
          Restart = "always";
          RestartSec = "10s";
        };
      };
    })
  ];
}
