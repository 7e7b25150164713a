# What a NixOS system needs to run in systemd-nspawn with user namespaces.
{ config, lib, options, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault;
in
{
  config = lib.mkMerge [
    {
      boot.isContainer = true;

      # Activation would remount /dev, /dev/pts, /dev/shm and /run, whose flags nspawn has locked.
      boot.specialFileSystems = lib.mkForce {
        "/run/keys" = { fsType = "ramfs"; options = [ "nosuid" "nodev" "mode=750" ]; };
      };

      # That group has no number in the user namespace, and a sysctl that fails degrades the system.
      boot.kernel.sysctl."net.ipv4.ping_group_range" = lib.mkForce null;

      # On cgroup v1 systemd is not told when a user's last process ends, so that the stop of a
      # user's manager waits for this time-out.
      systemd.services."user@".serviceConfig.TimeoutStopSec = guestDefault 2;

      documentation.enable = guestDefault false;
      system.stateVersion = lib.mkDefault config.system.nixos.release;
    }
    (lib.optionalAttrs (options.boot ? isNspawnContainer) {
      boot.isNspawnContainer = lib.mkDefault true;
    })
  ];
}
