{ config, lib, ... }:
let
  cfg = config.services.devhost;
in
{
  config = lib.mkIf (cfg.enable && cfg.expiry.enable) {
    systemd.timers.devhost-expire.wantedBy = [ "timers.target" ];
  };
}
