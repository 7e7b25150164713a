# What the container of this project runs, as a NixOS module.
{ config, pkgs, ... }:
let
  inherit (config.devhost.guest) serviceUser selfSignedCertificate;
in
{
  # The application runs as this user, and reaches its database over the local socket.
  services.postgresql = {
    enable = true;
    ensureDatabases = [ serviceUser ];
    ensureUsers = [{ name = serviceUser; ensureDBOwnership = true; }];
  };

  # https://ALIAS.CONTAINER.DOMAIN leads to port 443 of the container, and here on to the
  # application's own port.
  devhost.guest.selfSignedCertificate.enable = true;
  services.nginx = {
    enable = true;
    virtualHosts.application = {
      default = true;
      onlySSL = true;
      sslCertificate = selfSignedCertificate.certificate;
      sslCertificateKey = selfSignedCertificate.key;
      locations."/".proxyPass = "http://127.0.0.1:8080";
    };
  };

  environment.systemPackages = [ pkgs.git ];
}
