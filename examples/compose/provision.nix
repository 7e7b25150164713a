# podman with a compose file of two services, behind the container's nginx. Make it with
# --nesting, then bring the services up: podman-compose -f /etc/compose/compose.yaml up -d
{ config, lib, pkgs, ... }:
let
  certificate = config.devhost.guest.selfSignedCertificate;

  # Copies: podman-compose follows links, and would look for the rest beside their targets.
  files = lib.genAttrs
    [ "compose.yaml" "greeter/Containerfile" "greeter/greeting.txt" "page/Containerfile" "page/index.cgi" ]
    (file: { source = ./. + "/${file}"; mode = "0644"; });
in
{
  virtualisation.podman = {
    enable = true;
    # Services find each other by name.
    defaultNetwork.settings.dns_enabled = true;
  };
  environment.systemPackages = [ pkgs.podman-compose ];

  environment.etc = lib.mapAttrs' (file: lib.nameValuePair "compose/${file}") files;

  # Containers with `restart: always` come back with the next boot.
  systemd.services.podman-restart.wantedBy = [ "multi-user.target" ];

  # https://ALIAS.NAME.DOMAIN, by the host's ingress, shows the port that compose publishes.
  devhost.guest.selfSignedCertificate.enable = true;
  services.nginx = {
    enable = true;
    virtualHosts.page = {
      default = true;
      onlySSL = true;
      sslCertificate = certificate.certificate;
      sslCertificateKey = certificate.key;
      locations."/".proxyPass = "http://127.0.0.1:8080";
    };
  };
}
