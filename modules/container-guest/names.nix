# The container's own name, and /etc/hosts of a static part (the provision's) and a part that
# the host changes while the container runs.
{ config, lib, options, pkgs, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder;
in
{
  config = {
    # The name arrives with the start, so that containers can share a system.
    networking.hostName = guestDefault "";

    # Not a link into the store: devhost-hosts.service writes the file.
    environment.etc.hosts.enable = lib.mkForce false;

    systemd.services.devhost-hosts = {
      description = "Names that the container knows";
      wantedBy = [ "sysinit.target" ];
      before = [ "sysinit.target" "network.target" "shutdown.target" ];
      after = [ "local-fs.target" ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      path = [ pkgs.coreutils ];
      script = ''
        temporary=$(mktemp /etc/hosts.XXXXXX)
        trap 'rm -f "$temporary"' EXIT
        cat ${lib.escapeShellArgs config.networking.hostFiles} > "$temporary"
        if [ -r ${hostFolder}/hosts ]; then
          cat ${hostFolder}/hosts >> "$temporary"
        fi
        chmod 0644 "$temporary"
        mv -f "$temporary" /etc/hosts
      '';
      serviceConfig.Type = "oneshot";
    };

    systemd.paths.devhost-hosts = {
      description = "Names that the host changes";
      wantedBy = [ "multi-user.target" ];
      # The service starts after its path; both belong before sysinit.target.
      before = [ "shutdown.target" ];
      after = [ "local-fs.target" ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      pathConfig.PathChanged = "${hostFolder}/hosts";
    };
  };
}
