# What the machine is for, as a NixOS module.
{ pkgs, ... }:
{
  devbox.user.login = "alice";
  users.users.alice.openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];

  environment.systemPackages = [ pkgs.git ];
  networking.hostName = "dev";
  system.stateVersion = "26.05";
}
