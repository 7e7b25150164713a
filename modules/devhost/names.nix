# Every program, also one that asks no resolver, looks names up in /etc/hosts. NixOS makes it
# a link into the store; here it becomes one to a file that devhost can write, so that names
# come and go without a switch. It holds NixOS' own names, and behind them devhost's.
{ config, lib, options, pkgs, ... }:
let
  cfg = config.services.devhost;
  folder = "/run/devhost-names";

  # An /etc that nobody can write, see system.etc.overlay.
  immutable = options.system ? etc && options.system.etc ? overlay
    && config.system.etc.overlay.enable && !config.system.etc.overlay.mutable;
  published = "/run/devhost-published";
in
{
  config = lib.mkIf cfg.enable (lib.mkMerge [
    {
      environment.etc.hosts.source = lib.mkForce "${folder}/hosts";

      systemd.services.devhost-names = {
        description = "Names of the host, and of the containers of devhost";
        wantedBy = [ "sysinit.target" ];
        before = [ "sysinit.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig.DefaultDependencies = false;
        # The old file stays in use until the new one is there.
        stopIfChanged = false;
        path = [ pkgs.coreutils pkgs.gnugrep pkgs.util-linux ];
        # devhost locks the folder and replaces the file, as this does.
        script = ''
          mkdir -p -m 0755 ${folder}
          exec 9< ${folder}
          flock 9
          {
            cat ${lib.escapeShellArgs config.networking.hostFiles}
            # What devhost has added; the whole block is marked.
            grep -sE '(^| )# devhost [0-9a-f]+( begin| end)?$' ${folder}/hosts || true
          } > ${folder}/hosts.new
          chmod 0644 ${folder}/hosts.new
          mv -f ${folder}/hosts.new ${folder}/hosts
        '';
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
        };
      };
    }
    (lib.mkIf immutable {
      # What other programs read of the containers.
      environment.etc.devhost.source = published;
      systemd.tmpfiles.rules = [ "d ${published} 0755 root root -" ];
    })
  ]);
}
