# The system of the installer ISO. It has no network unless it needs one, nobody can log in to it,
# and it goes off when devbox-auto-install has ended, however it has.
{ config, lib, modulesPath, options, pkgs, ... }:
let
  cfg = config.devboxInstaller;
  inherit (lib) mkOption types;
  argument = type: mkOption { inherit type; internal = true; description = "From the machine's own configuration."; };
in
{
  imports = [ (modulesPath + "/installer/cd-dvd/iso-image.nix") ];

  options.devboxInstaller = {
    console = argument types.str;
    direct = argument types.bool;
    factsFile = argument types.package;
    package = argument types.package;
    contents = argument (types.listOf types.package);
    substituters = argument (types.listOf types.str);
    trustedPublicKeys = argument (types.listOf types.str);
  };

  config = lib.mkMerge [
    {
      isoImage = {
        volumeID = "DEVBOX-INSTALLER";
        makeEfiBootable = true;
        storeContents = cfg.contents;
        # Nobody looks at it: no download.
        efiSplashImage = pkgs.writeText "no-splash" "";
      }
      // lib.optionalAttrs (options.isoImage ? squashfsCompression) { squashfsCompression = "zstd -Xcompression-level 6"; }
      // lib.optionalAttrs (options.isoImage ? makeBiosBootable) { makeBiosBootable = false; };
      boot.loader.timeout = lib.mkForce 0;

      boot.initrd.availableKernelModules = [ "virtio_pci" "virtio_blk" "virtio_scsi" "virtio_mmio" "sr_mod" "sd_mod" "ahci" "usb_storage" "xhci_pci" ];
      boot.initrd.kernelModules = [ "virtio_console" "virtio_rng" ];
      # Where the ISO is not found, stage 1 asks a person what to do, unless it is to panic: devbox-cli
      # notices that. The last console is /dev/console, where the host reads.
      boot.kernelParams = lib.mkAfter [ "boot.panic_on_fail" "console=tty0" "console=${cfg.console}" ];

      networking.hostName = "devbox-installer";
      networking.useDHCP = lib.mkForce (!cfg.direct);
      networking.firewall.enable = cfg.direct;
      documentation.enable = false;

      # No login, which would write to the console too.
      systemd.services."serial-getty@${cfg.console}".enable = false;
      systemd.services."getty@tty1".enable = false;
      systemd.services."autovt@".enable = false;

      # What fails at boot must not wait for a person: the installer says then what is missing.
      systemd.enableEmergencyMode = false;

      systemd.services.devbox-auto-install = {
        description = "Installation of a devbox";
        wantedBy = [ "multi-user.target" ];
        after = [ "local-fs.target" ] ++ lib.optional (!cfg.direct) "network-online.target";
        wants = lib.optional (!cfg.direct) "network-online.target";
        # nixos-install and its like are in the system's own path.
        path = [ config.nix.package pkgs.util-linux pkgs.e2fsprogs pkgs.dosfstools "/run/current-system/sw" ];
        environment = { HOME = "/root"; } // lib.optionalAttrs (!cfg.direct) {
          NIX_PATH = "nixpkgs=/nix/var/nix/profiles/per-user/root/channels/nixos";
        };
        unitConfig = { SuccessAction = "poweroff"; FailureAction = "poweroff"; };
        serviceConfig = {
          Type = "oneshot";
          ExecStart = "${cfg.package}/bin/devbox-auto-install --config ${cfg.factsFile}";
          StandardOutput = "tty";
          StandardError = "tty";
          TTYPath = "/dev/console";
        };
      };
    }

    (if options.nix ? settings then {
      nix.settings = {
        experimental-features = [ "nix-command" "flakes" ];
        substituters = cfg.substituters;
        trusted-public-keys = cfg.trustedPublicKeys;
      };
    } else {
      nix = {
        binaryCaches = cfg.substituters;
        binaryCachePublicKeys = cfg.trustedPublicKeys;
      };
    })
  ];
}
