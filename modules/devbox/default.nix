# A NixOS system as a virtual machine of one person: what it needs on its hypervisor, and
# settings to start from. Each of those gives way to what the machine's own configuration says.
{
  imports = [
    ./options.nix
    ./assertions.nix
    ./base.nix
    ./user.nix
    ./virtio.nix
    ./vm.nix
    ./installer
    ./qemu/guest.nix
    ./tart/guest.nix
  ];
}
