# What machines of all hypervisors have alike: virtio devices, a serial console, and an agent
# by which the hypervisor asks and stops the guest.
{ config, lib, pkgs, ... }:
let
  cfg = config.devbox;
  inherit (pkgs.stdenv.hostPlatform) system;

  # Where a hypervisor does not run such a guest, assertions.nix says so.
  console = (import ./hypervisors.nix).${cfg.hypervisor}.console.${system} or "hvc0";
in
{
  config = {
    boot.initrd.availableKernelModules = [ "virtio_pci" "virtio_blk" "virtio_scsi" "virtio_net" ];
    boot.initrd.kernelModules = [ "virtio_console" "virtio_rng" "virtio_balloon" ];
    # The last one is /dev/console.
    boot.kernelParams = lib.mkOrder 600 [ "console=tty0" "console=${console}" ];
    services.qemuGuest.enable = lib.mkDefault true;

    # Elsewhere they are built into the kernel.
    boot.kernelModules = lib.mkIf (cfg.vm.nested && pkgs.stdenv.hostPlatform.isx86_64) [ "kvm-intel" "kvm-amd" ];
  };
}
