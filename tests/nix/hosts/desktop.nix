# NetworkManager, and sysctls that the host's configuration sets.
{ lib, ... }:
{
  services.devhost = {
    enable = true;
    sysctls.inotifyInstances = 100000;
  };
  networking.networkmanager = { enable = true; plugins = lib.mkForce [ ]; };
  boot.kernel.sysctl."fs.inotify.max_user_instances" = 524288;
  boot.kernel.sysctl."net.ipv4.ip_forward" = true;
}
