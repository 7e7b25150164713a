{ config, lib, ... }:
let
  cfg = config.services.devhost;

  # Certificates of NixOS' own that the ingress shows.
  acme = lib.filterAttrs
    (_: cert: lib.any (files: dirOf files.certificate == toString cert.directory) cfg.ingress.certificates)
    config.security.acme.certs;
  acmeUnits = lib.optionals (cfg.ingress.tls == "files") (map (name: "acme-${name}.service") (lib.attrNames acme));
in
{
  config = lib.mkIf (cfg.enable && cfg.ingress.enable) {
    systemd.services.devhost-ingress = {
      wantedBy = [ "multi-user.target" ];
      wants = acmeUnits;
      after = acmeUnits;
      serviceConfig = lib.mkIf (acmeUnits != [ ]) {
        # It is root without root's power to read everything.
        SupplementaryGroups = lib.unique (lib.catAttrs "group" (lib.attrValues acme));
      };
      environment.PATH = lib.mkForce null;
      # Connections of people outlive a change of anything else.
      restartTriggers = [
        (builtins.hashString "sha256" (builtins.toJSON { inherit (cfg) publicAddress domains ingress; }))
      ];
    };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.ingress.httpPort cfg.ingress.httpsPort ];
  };
}
