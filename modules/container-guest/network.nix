# The host decides about addresses, routes, resolvers and who may connect.
{ lib, options, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder;
in
{
  config = lib.mkMerge [
    {
      networking = {
        useNetworkd = lib.mkForce true;
        useDHCP = lib.mkForce false;
        useHostResolvConf = lib.mkForce false;
        resolvconf.enable = guestDefault false;
        firewall.enable = guestDefault false;
      };
      services.resolved.enable = guestDefault false;
      systemd.network.enable = lib.mkForce true;

      # In the host's network networkd has nothing to do, and keeps off by itself; this would
      # wait for it in vain.
      systemd.services.systemd-networkd-wait-online.unitConfig.ConditionCapability = "CAP_NET_ADMIN";

      environment.etc."systemd/network".source = "${hostFolder}/network";
      environment.etc."resolv.conf".source = guestDefault "${hostFolder}/resolv.conf";
    }
    (lib.optionalAttrs (options.systemd.network ? wait-online) {
      systemd.network.wait-online = {
        anyInterface = guestDefault true;
        timeout = guestDefault 10;
      };
    })
  ];
}
