{ lib, ... }:
{
  options.devhost.testBuilder = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether this host builds NixOS tests that run in containers: Nix allocates user ids by
        itself, and builds that need the system feature `uid-range` get a range of them.
      '';
    };

    network.enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether builds also get `/dev/net`, and the host the system feature `devnet`, for tests
        that make network interfaces of their own. This weakens the sandbox of every build on
        this host, not of tests alone: whoever can build here reaches the kernel's code for tun
        and tap devices, so a bug in it is a way from any build to root. Leave it off where
        people build what nobody has read.
      '';
    };
  };
}
