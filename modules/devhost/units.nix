# The units come with the package; NixOS adds what starts them, and how a switch treats them.
{ config, lib, ... }:
let
  cfg = config.services.devhost;
in
{
  config = lib.mkIf cfg.enable {
    systemd.packages = [ cfg.package ];

    systemd.services.devhost-boot = {
      wantedBy = [ "multi-user.target" ];
      # The units have one of their own.
      environment.PATH = lib.mkForce null;
      # Puts the network as a new devhost or other settings want it, and leaves containers alone.
      reloadIfChanged = true;
      restartTriggers = [ (builtins.hashString "sha256" (builtins.toJSON cfg.network)) ];
    };

    # A switch of the host restarts no container.
    systemd.services."devhost@" = {
      environment.PATH = lib.mkForce null;
      restartIfChanged = false;
      stopIfChanged = false;
    };

    # Evaluations run as that user.
    users.users.devhost-eval = {
      isSystemUser = true;
      group = "devhost-eval";
      description = "devhost evaluates Nix as this user";
    };
    users.groups.devhost-eval = { };
  };
}
