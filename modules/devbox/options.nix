{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  hypervisors = import ./hypervisors.nix;
in
{
  options.devbox = {
    hypervisor = mkOption {
      type = types.enum (lib.attrNames hypervisors);
      default = "tart";
      example = "qemu";
      description = "What runs the machine. ${lib.concatStringsSep "; " (lib.mapAttrsToList (name: hypervisor: "`${name}`: ${hypervisor.summary}") hypervisors)}.";
    };

    user.login = mkOption {
      type = types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "devbox";
      example = "alice";
      description = ''
        Who works on the machine. The account is made, without a password, and may use sudo. What
        `users.users` says of it counts more.
      '';
    };

    vm = {
      nested = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether machines can run in this one: its modules are loaded, and `user.login` may use /dev/kvm.";
      };
      memoryMB = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        example = 8192;
        description = "Memory in MiB; null for what the hypervisor gives.";
      };
      diskGB = mkOption {
        type = types.ints.positive;
        default = 50;
        example = 150;
        description = "Size of the disk in GiB.";
      };
      cpus = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        example = 4;
        description = "Processors; null for what the hypervisor gives.";
      };
    };

    nix = {
      substituters = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "https://cache.example.org" ];
        description = "Binary caches, besides those that the machine has anyway.";
      };
      trustedPublicKeys = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "cache.example.org-1:0000000000000000000000000000000000000000000=" ];
        description = "Public keys of those caches.";
      };
    };

    install = {
      mode = mkOption {
        type = types.enum [ "direct" "bootstrap" ];
        default = "direct";
        example = "bootstrap";
        description = ''
          How the ISO installs the machine. `direct`: it holds the system prebuilt, and copies it;
          the machine needs no network and evaluates nothing. `bootstrap`: it installs a minimal
          system, which the machine gets from binary caches by `nixos-install`, and which the first
          `devbox-cli update` replaces; the ISO is smaller, and needs no build of the system.
        '';
      };
      disk = mkOption {
        type = types.strMatching "/dev/[^[:space:]]+";
        default = "/dev/vda";
        example = "/dev/disk/by-id/virtio-devbox-disk";
        description = "The disk to install to. One that holds data is refused.";
      };
      package = mkOption {
        type = types.package;
        default = pkgs.callPackage ../../pkgs/devbox-auto-install.nix { devhost = pkgs.callPackage ../../pkgs/devhost.nix { }; };
        defaultText = "devbox-auto-install, built with the machine's own packages";
        description = "What installs, in the ISO.";
      };
    };
  };
}
