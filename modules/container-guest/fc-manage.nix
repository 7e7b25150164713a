# fc-manage, by which a container builds its own system, and what Nix needs for that. Daemon
# and store are the host's; profiles are the container's own.
{ config, lib, options, pkgs, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder;
  inherit (config.devhost.guest) serviceUser;

  # devhost itself, which the host hands over, answering by name.
  fcManage = pkgs.writeShellScriptBin "fc-manage" ''
    program=${hostFolder}/bin/devhost
    if [ ! -x "$program" ]; then
      echo "fc-manage: the host has not handed over $program; on the host, run: devhost restart $(cat ${hostFolder}/name)" >&2
      exit 1
    fi
    exec -a fc-manage "$program" "$@"
  '';
in
{
  config = {
    # Before that of Flying Circus' platform, which handles channels in its own way: here the
    # host decides which one a container has.
    environment.systemPackages = lib.mkBefore [ (lib.hiPrio fcManage) ];

    # Root could write the container's own /nix/var, which is no store.
    environment.sessionVariables.NIX_REMOTE = guestDefault "daemon";

    # One of the container's own could write no store.
    systemd.sockets.nix-daemon.enable = guestDefault false;
    systemd.services.nix-daemon.enable = guestDefault false;

    # A daemon would make them for its own users.
    systemd.tmpfiles.rules = [
      "d /nix/var/nix/profiles/per-user 0755 root root -"
      "d /nix/var/nix/profiles/per-user/root 0755 root root -"
      "d /nix/var/nix/profiles/per-user/developer 0755 developer users -"
      "d /nix/var/nix/profiles/per-user/${serviceUser} 0755 ${serviceUser} service -"
    ];
  };
}
