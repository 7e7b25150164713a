# A NixOS host in a box (tests/box): devhost is a folder with the program, the modules and the
# units; services.devhost is set to services, or not at all where that is null; extra is one more
# module. No account gets one of the ids that are taken.
{ devhost, services, extra ? { }, taken ? [ ] }:
{ lib, pkgs, ... }:
let
  # What pkgs/devhost.nix makes, of a program that is built already.
  package = pkgs.runCommand "devhost" { meta.mainProgram = "devhost"; } ''
    mkdir -p $out/bin $out/lib/systemd/system
    cp ${devhost + "/devhost"} $out/bin/devhost
    for unit in ${devhost + "/packaging/systemd"}/*; do
      substitute $unit $out/lib/systemd/system/$(basename $unit) --subst-var-by devhost $out/bin/devhost
    done
  '';
in
{
  imports = [ (devhost + "/modules/devhost") extra ];

  # nspawn is its machine.
  boot.isContainer = true;
  networking.hostName = "box";
  # Its kernel is the machine's, which nftables cannot be tried against in a build.
  networking.nftables.checkRuleset = false;
  networking.useDHCP = false;
  networking.useNetworkd = true;
  networking.useHostResolvConf = lib.mkForce false;
  services.resolved.enable = false;
  systemd.network.wait-online.enable = false;
  systemd.network.networks."10-eth0" = {
    matchConfig.Name = "eth0";
    address = [ "198.51.100.1/24" "2001:db8:b0::1/64" ];
    gateway = [ "198.51.100.2" "2001:db8:b0::2" ];
    networkConfig = { IPv6AcceptRA = false; LinkLocalAddressing = "ipv6"; };
  };

  # As modules/devhost has it where nobody can write /etc: tests make it so for a while.
  environment.etc.devhost.source = "/run/devhost-published";
  systemd.tmpfiles.rules = [ "d /run/devhost-published 0755 root root -" ];

  services.openssh = {
    enable = true;
    startWhenNeeded = false;
    settings.MaxStartups = "200";
    hostKeys = [{ type = "ed25519"; path = "/etc/ssh/ssh_host_ed25519_key"; }];
  };
  users.allowNoPasswordLogin = true;
  users.groups.devhost = { };
  users.groups.alice.gid = 1001;
  users.groups.mallory.gid = 1003;
  users.users = {
    alice = { isNormalUser = true; uid = 1001; group = "alice"; extraGroups = [ "devhost" ]; hashedPassword = "*"; };
    mallory = { isNormalUser = true; uid = 1003; group = "mallory"; hashedPassword = "*"; };
  } // lib.listToAttrs (map (id: lib.nameValuePair "taken-${toString id}" { isSystemUser = true; uid = id; group = "nogroup"; }) taken);

  # Builders see /usr, as on the Debian host: packages are links to it. The whole list, see
  # internal/nix/build.go.
  nix.settings.sandbox = true;
  nix.settings.sandbox-paths = [ "/usr" "/bin=/usr/bin" "/lib=/usr/lib" "/lib64=/usr/lib64" "/sbin=/usr/sbin" ];
  nix.settings.substituters = lib.mkForce [ ];
  nix.checkConfig = false;

  system.stateVersion = lib.trivial.release;

  services.devhost = lib.optionalAttrs (services != null) ({ inherit package; } // services);
}
