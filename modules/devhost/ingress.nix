{ config, lib, ... }:
let
  cfg = config.services.devhost;
in
{
  config = lib.mkIf (cfg.enable && cfg.ingress.enable) {
    systemd.services.devhost-ingress = {
      wantedBy = [ "multi-user.target" ];
      environment.PATH = lib.mkForce null;
      # Connections of people outlive a change of anything else.
      restartTriggers = [
        (builtins.hashString "sha256" (builtins.toJSON { inherit (cfg) publicAddress domains ingress; }))
      ];
    };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.ingress.httpPort cfg.ingress.httpsPort ];
  };
}
