# A machine of the test driver as a development container: what devhost hands over to one at
# its start.
{ pkgs, ... }:
{
  imports = [ ../modules/container-guest ];

  networking.hostName = "guest";
  # devhost gives addresses; here there is nobody else.
  virtualisation.vlans = [ ];

  # The sandbox of Nix forbids setuid files.
  security.enableWrappers = false;

  systemd.services.handover = {
    description = "What devhost hands over";
    wantedBy = [ "sysinit.target" ];
    before = [ "sysinit.target" "devhost-hosts.service" "devhost-hosts.path" ];
    after = [ "local-fs.target" ];
    unitConfig.DefaultDependencies = false;
    path = [ pkgs.coreutils pkgs.openssh ];
    script = ''
      mkdir -p /root /run/devhost/network /run/devhost/authorized_keys /run/devhost/ssh
      echo guest > /run/devhost/name
      echo "192.0.2.7 guest guest.dev.example.org" > /run/devhost/hosts
      echo "nameserver 192.0.2.1" > /run/devhost/resolv.conf
      echo "This container will be stopped tomorrow." > /run/devhost/notice
      ssh-keygen -q -t ed25519 -N "" -f /run/devhost/ssh/ssh_host_ed25519_key
      ssh-keygen -q -t ed25519 -N "" -f /root/person
      cp /root/person.pub /run/devhost/authorized_keys/developer
    '';
    serviceConfig.Type = "oneshot";
  };
}
