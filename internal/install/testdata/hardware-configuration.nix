# As nixos-generate-config writes one for the disk that the installer has made.
{ modulesPath, ... }:
{
  imports = [ (modulesPath + "/profiles/qemu-guest.nix") ];

  boot.initrd.availableKernelModules = [ "ahci" "virtio_pci" "sr_mod" "virtio_blk" ];
  fileSystems."/" = { device = "/dev/disk/by-uuid/6b0e5b8c-bd0c-0c44-ae0d-2b7b8e8b7f2b"; fsType = "ext4"; };
  fileSystems."/boot" = { device = "/dev/disk/by-uuid/3928-9E6A"; fsType = "vfat"; };
}
