# Container engines inside the container: podman (virtualisation.podman.enable) as it works in
# a user namespace, and a plain word where docker (virtualisation.docker.enable) would not.
{ config, lib, options, pkgs, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder;

  podman = config.virtualisation.podman.package or pkgs.podman;
  helpers = "${podman}/libexec/podman";

  # Until 5.2, podman takes root of a user namespace for an ordinary user whose own systemd shall
  # run the name service of networks. Root has none, and names would not resolve.
  netavark = pkgs.writeShellScriptBin "netavark" ''
    arguments=()
    for argument; do
      [ "$argument" != --rootless=true ] || argument=--rootless=false
      arguments+=("$argument")
    done
    exec ${helpers}/netavark "''${arguments[@]}"
  '';
in
{
  config = lib.mkMerge [
    (lib.optionalAttrs (options.virtualisation ? podman) {
      virtualisation.containers = lib.mkIf config.virtualisation.podman.enable ({
        containersConf.settings = {
          containers = {
            # A container has no controllers to hand on where the host has cgroups v1. Its
            # own limits, from outside, hold for all that runs inside.
            cgroups = guestDefault "disabled";
            # The system call for keyrings is refused without nesting.
            keyring = guestDefault false;
            # The one default is net.ipv4.ping_group_range, whose groups are not all mapped.
            default_sysctls = guestDefault [ ];
          };
          engine = {
            runtime = guestDefault "crun";
            cgroup_manager = guestDefault "cgroupfs";
          } // lib.optionalAttrs (lib.versionAtLeast (podman.version or "4") "4") {
            helper_binaries_dir = guestDefault [ "${netavark}/bin" helpers ];
          };
        };
      } // lib.optionalAttrs (options.virtualisation.containers ? storage) {
        # overlay needs a kernel that can put it on idmapped mounts (5.19).
        storage.settings.storage.driver = guestDefault "vfs";
      });

      # Their processes belong to whoever started them, such as a login, which at power off
      # would be waited for in vain: as the first of its kind, a process ignores most signals.
      systemd.services.devhost-podman = lib.mkIf config.virtualisation.podman.enable {
        description = "Containers of podman, which end in order at power off";
        wantedBy = [ "multi-user.target" ];
        after = [ "network.target" ];
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${pkgs.coreutils}/bin/true";
          ExecStop = "${podman}/bin/podman stop --all --time 5";
        };
      };
    })

    (lib.optionalAttrs (options.virtualisation ? docker) {
      systemd.services.docker = lib.mkIf config.virtualisation.docker.enable {
        path = [ pkgs.coreutils pkgs.gnugrep ];
        preStart = lib.mkBefore ''
          # nspawn hands it to the first process.
          if ! tr '\0' '\n' < /proc/1/environ | grep -qx 'DEVHOST_NESTING=1'; then
            name=$(cat ${hostFolder}/name)
            echo "docker needs nesting; run on the host: devhost ensure $name --nesting && devhost restart $name" >&2
            exit 1
          fi
        '';
      };
    })
  ];
}
