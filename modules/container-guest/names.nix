# The container's own name, and /etc/hosts of a static part (the provision's) and a part that
# the host changes while the container runs.
{ config, lib, options, pkgs, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder;

  writeHosts = pkgs.writeShellScript "devhost-write-hosts" ''
    set -e
    temporary=$(mktemp /etc/hosts.XXXXXX)
    trap 'rm -f "$temporary"' EXIT
    cat ${lib.escapeShellArgs config.networking.hostFiles} > "$temporary"
    if [ -r ${hostFolder}/hosts ]; then
      cat ${hostFolder}/hosts >> "$temporary"
    fi
    chmod 0644 "$temporary"
    mv -f "$temporary" /etc/hosts
  '';
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
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${writeHosts}";
      };
    };

    # Many containers can come at once: no change may be the last that is followed. A path unit
    # forgets what changes while its service runs, so that looks again before it ends.
    systemd.services.devhost-hosts-changed = {
      description = "Names that the host has changed";
      unitConfig.StartLimitIntervalSec = 0;
      path = [ pkgs.coreutils ];
      script = ''
        seen=
        now=$(cksum < ${hostFolder}/hosts)
        while [ "$seen" != "$now" ]; do
          seen=$now
          ${writeHosts}
          sleep 0.2
          now=$(cksum < ${hostFolder}/hosts)
        done
      '';
      serviceConfig.Type = "oneshot";
    };

    systemd.paths.devhost-hosts = {
      description = "Names that the host changes";
      wantedBy = [ "multi-user.target" ];
      # What changes after the service has read is noticed.
      before = [ "devhost-hosts.service" "shutdown.target" ];
      after = [ "local-fs.target" ];
      conflicts = [ "shutdown.target" ];
      unitConfig.DefaultDependencies = false;
      unitConfig.StartLimitIntervalSec = 0;
      pathConfig.PathChanged = "${hostFolder}/hosts";
      pathConfig.Unit = "devhost-hosts-changed.service";
    };
  };
}
