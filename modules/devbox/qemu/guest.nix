{ config, lib, ... }:
{
  config = lib.mkIf (config.devbox.hypervisor == "qemu") {
    # Disks of machines that were not made for virtio, and folders of the host.
    boot.initrd.availableKernelModules = [ "ahci" "sd_mod" "sr_mod" "virtio_mmio" "9p" "9pnet_virtio" ];
  };
}
