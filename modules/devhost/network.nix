# devhost makes the bridge (dh-ID), the containers' cables (vd-...), addresses and rules
# itself. The host's own network managers keep their hands off, and its firewall lets pass
# what devhost's own filter has decided about.
{ config, lib, options, ... }:
let
  cfg = config.services.devhost;
  interfaces = [ "dh-*" "vd-*" ];

  # Weaker than what the host's configuration says, and than NixOS' own choice.
  unlessSaid = lib.mkOverride 1200;
in
{
  config = lib.mkIf cfg.enable (lib.mkMerge [
    {
      networking.dhcpcd.denyInterfaces = interfaces;
      networking.networkmanager.unmanaged =
        lib.mkIf config.networking.networkmanager.enable (map (name: "interface-name:${name}") interfaces);
      systemd.network.networks."05-devhost" = lib.mkIf config.systemd.network.enable {
        matchConfig.Name = lib.concatStringsSep " " interfaces;
        linkConfig.Unmanaged = true;
      };

      boot.kernel.sysctl = {
        "net.ipv4.ip_forward" = lib.mkIf cfg.sysctls.ipForward (unlessSaid true);
        "fs.inotify.max_user_instances" = unlessSaid cfg.sysctls.inotifyInstances;
        "fs.inotify.max_user_watches" = lib.mkIf (cfg.sysctls.inotifyWatches != null) (unlessSaid cfg.sysctls.inotifyWatches);
      };

      # Otherwise the kernel loads them when they are needed.
      boot.kernelModules = lib.mkIf config.security.lockKernelModules [
        "bridge"
        "fuse"
        "nf_tables"
        "nft_ct"
        "nft_fib_inet"
        "nft_masq"
        "nft_nat"
        "nft_reject_inet"
        "tun"
        "veth"
      ];
    }
    (lib.optionalAttrs (options.networking.firewall ? extraForwardRules) {
      networking.firewall.extraForwardRules = lib.mkIf (cfg.openFirewall && config.networking.firewall.filterForward) ''
        iifname "dh-*" accept
        oifname "dh-*" accept
      '';
    })
  ]);
}
