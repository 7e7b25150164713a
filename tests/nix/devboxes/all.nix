# Every option at a value that is not its default.
{
  devbox = {
    hypervisor = "qemu";
    user.login = "alice";
    vm = { nested = true; memoryMB = 8192; diskGB = 150; cpus = 4; };
    nix.substituters = [ "https://cache.example.org" ];
    install = { mode = "bootstrap"; disk = "/dev/disk/by-id/virtio-devbox-disk"; };
    nix.trustedPublicKeys = [ "cache.example.org-1:0000000000000000000000000000000000000000000=" ];
  };
}
