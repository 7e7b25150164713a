# Settings of every devbox, whatever runs it.
{ config, lib, options, ... }:
let
  cfg = config.devbox;

  # Build tools and watchers of files have many open at once.
  openFiles = "65536:1048576";
in
{
  config = lib.mkMerge [
    {
      boot.loader.systemd-boot.enable = lib.mkDefault true;
      # Kernels and initial RAM disks of more would not fit on its small partition.
      boot.loader.systemd-boot.configurationLimit = lib.mkDefault 8;
      boot.loader.timeout = lib.mkDefault 1;

      fileSystems."/" = {
        device = lib.mkDefault "/dev/disk/by-label/nixos";
        fsType = lib.mkDefault "ext4";
        autoResize = lib.mkDefault true;
      };
      fileSystems."/boot" = {
        device = lib.mkDefault "/dev/disk/by-label/boot";
        fsType = lib.mkDefault "vfat";
      };
      # The disk may be made larger later.
      boot.growPartition = lib.mkDefault true;
      zramSwap.enable = lib.mkDefault true;

      services.openssh.enable = lib.mkDefault true;

      security.pam.loginLimits = lib.mkDefault [
        { domain = "*"; type = "soft"; item = "nofile"; value = lib.head (lib.splitString ":" openFiles); }
        { domain = "*"; type = "hard"; item = "nofile"; value = lib.last (lib.splitString ":" openFiles); }
      ];

      documentation = {
        nixos.enable = lib.mkDefault false;
        doc.enable = lib.mkDefault false;
        info.enable = lib.mkDefault false;
      };
    }

    (if options.systemd ? settings then {
      systemd.settings.Manager.DefaultLimitNOFILE = lib.mkDefault openFiles;
    } else {
      systemd.extraConfig = lib.mkDefault "DefaultLimitNOFILE=${openFiles}";
    })

    (if options.services.openssh ? settings then {
      services.openssh.settings.PasswordAuthentication = lib.mkDefault false;
    } else {
      services.openssh.passwordAuthentication = lib.mkDefault false;
    })

    # Lists: added to what the machine has, which a default would not be.
    (if options.nix ? settings then {
      nix.settings = {
        experimental-features = [ "nix-command" "flakes" ];
        substituters = cfg.nix.substituters;
        trusted-public-keys = cfg.nix.trustedPublicKeys;
      };
    } else {
      nix = {
        extraOptions = "extra-experimental-features = nix-command flakes";
        binaryCaches = cfg.nix.substituters;
        binaryCachePublicKeys = cfg.nix.trustedPublicKeys;
      };
    })
  ];
}
