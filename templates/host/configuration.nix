{
  services.devhost = {
    enable = true;
    # Containers are at https://ALIAS.CONTAINER.dev.example.org: *.dev.example.org is this host.
    publicAddress = "dev.example.org";
    # What a container gets that asks for nothing, and what none may go beyond.
    defaults = { memory = "4G"; cpus = 2; };
    maximum = { memory = "16G"; cpus = 8; };
  };

  # Members of this group may use devhost, by sudo.
  users.users.alice = {
    isNormalUser = true;
    extraGroups = [ "devhost" ];
    openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
  };
  services.openssh.enable = true;

  # The machine itself: put your own here, as nixos-generate-config wrote it.
  networking.hostName = "dev";
  boot.loader.grub.device = "/dev/vda";
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "xfs"; };
  system.stateVersion = "26.05";
}
