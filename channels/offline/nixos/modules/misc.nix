# Options without much behind them: identity of the system, assertions, and settings of
# NixOS that mean nothing in a container made of the host's programs.
{ config, lib, ... }:
let
  # An option that is accepted and does nothing, because what it governs is not there.
  ignored = type: default: why: lib.mkOption {
    inherit type default;
    description = "Accepted without effect: ${why}.";
  };
  bool = lib.types.bool;

  # Locales that every host has.
  universal = [ "C.UTF-8" "C" "POSIX" ];

  localeVariables = {
    LANG = if lib.elem config.i18n.defaultLocale universal then config.i18n.defaultLocale else "C.UTF-8";
  } // config.i18n.extraLocaleSettings;
in
{
  options = {
    assertions = lib.mkOption {
      type = lib.types.listOf lib.types.unspecified;
      default = [ ];
      internal = true;
      description = "What must hold, as attribute sets of `assertion` and `message`.";
    };
    warnings = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = "Messages shown while the system is evaluated.";
    };
    meta = lib.mkOption {
      type = lib.types.attrsOf lib.types.unspecified;
      default = { };
      internal = true;
      description = "Facts about modules (maintainers, documentation).";
    };

    system = {
      stateVersion = lib.mkOption {
        type = lib.types.str;
        default = config.system.nixos.release;
        description = "Release whose defaults apply to data that services keep.";
      };
      nixos = {
        release = lib.mkOption {
          type = lib.types.str;
          readOnly = true;
          default = "26.05";
          description = "NixOS release whose options this channel follows.";
        };
        version = lib.mkOption {
          type = lib.types.str;
          internal = true;
          default = "${config.system.nixos.release}.offline";
          description = "Full version.";
        };
        label = lib.mkOption {
          type = lib.types.str;
          default = config.system.nixos.version;
          description = "Label of the system.";
        };
        codeName = lib.mkOption {
          type = lib.types.str;
          readOnly = true;
          internal = true;
          default = "Offline";
          description = "Name of the release.";
        };
        tags = ignored (lib.types.listOf lib.types.str) [ ] "nothing here shows tags";
      };
    };

    nixpkgs = {
      hostPlatform = lib.mkOption {
        type = lib.types.either lib.types.str (lib.types.attrsOf lib.types.unspecified);
        apply = value: if lib.isString value then { system = value; } else value;
        description = "Platform that the system runs on.";
      };
      system = lib.mkOption {
        type = lib.types.str;
        default = config.nixpkgs.hostPlatform.system;
        description = "Older name of `nixpkgs.hostPlatform`.";
      };
      config = ignored (lib.types.attrsOf lib.types.unspecified) { } "no package here is unfree, insecure or configurable";
      overlays = lib.mkOption {
        type = lib.types.listOf (lib.mkOptionType {
          name = "nixpkgs-overlay";
          description = "nixpkgs overlay";
          check = lib.isFunction;
          merge = lib.mergeOneOption;
        });
        default = [ ];
        description = "Functions `final: prev: { ... }` that change the package set.";
      };
      pkgs = lib.mkOption {
        type = lib.types.unspecified;
        readOnly = true;
        internal = true;
        default = import ../../pkgs {
          inherit lib;
          inherit (config.nixpkgs.hostPlatform) system;
          inherit (config.nixpkgs) overlays;
        };
        description = "The package set.";
      };
    };

    documentation = {
      enable = ignored bool true "no documentation is built";
      dev.enable = ignored bool false "no documentation is built";
      doc.enable = ignored bool true "no documentation is built";
      info.enable = ignored bool true "no documentation is built";
      man.enable = ignored bool true "no documentation is built";
      nixos.enable = ignored bool true "no documentation is built";
    };

    boot = {
      isContainer = ignored bool true "every system of this channel is a container";
      specialFileSystems = ignored (lib.types.attrsOf lib.types.unspecified) { } "activation mounts nothing";
      tmp.cleanOnBoot = lib.mkOption {
        type = bool;
        default = false;
        description = "Whether /tmp is emptied at boot.";
      };
      kernel.sysctl = lib.mkOption {
        type = lib.types.attrsOf (lib.types.nullOr (lib.types.oneOf [ bool lib.types.str lib.types.int ]));
        default = { };
        description = "Kernel settings that boot writes; `null` leaves one out. In a user namespace most are the host's business.";
      };
    };

    time.timeZone = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "Europe/Berlin";
      description = "Time zone; `null` is UTC. Its data is the host's.";
    };

    i18n = {
      defaultLocale = lib.mkOption {
        type = lib.types.str;
        default = "C.UTF-8";
        description = "Locale of all programs. The host's locales are not known here: any other value becomes C.UTF-8, with a warning.";
      };
      supportedLocales = ignored (lib.types.listOf lib.types.str) [ "all" ] "locales are the host's";
      extraLocaleSettings = lib.mkOption {
        type = lib.types.attrsOf lib.types.str;
        default = { };
        description = "Further locale variables, such as LC_TIME.";
      };
    };

    console = {
      keyMap = ignored lib.types.str "us" "a container has no keyboard";
      enable = ignored bool false "a container has no keyboard";
    };

    programs.nix-ld.enable = ignored bool false "the host's own loader is in its place";
    powerManagement.enable = ignored bool false "a container has no power of its own";
    fonts.fontconfig.enable = ignored bool false "there are no fonts";
    xdg = {
      autostart.enable = ignored bool false "there is no desktop";
      icons.enable = ignored bool false "there is no desktop";
      menus.enable = ignored bool false "there is no desktop";
      mime.enable = ignored bool false "there is no desktop";
      sounds.enable = ignored bool false "there is no desktop";
    };
  };

  config = {
    _module.args.pkgs = config.nixpkgs.pkgs;

    warnings = lib.optional (!(lib.elem config.i18n.defaultLocale universal))
      "channels/offline uses the locale C.UTF-8 in place of ${config.i18n.defaultLocale}";

    environment.sessionVariables = localeVariables;

    environment.etc = {
      "locale.conf".text = lib.generators.toKeyValue { } localeVariables;
      localtime = lib.mkIf (config.time.timeZone != null) {
        source = "/usr/share/zoneinfo/${config.time.timeZone}";
        mode = "direct-symlink";
      };
      "os-release".text = ''
        NAME="devhost offline channel"
        ID=devhost-offline
        VERSION="${config.system.nixos.version}"
        VERSION_ID="${config.system.nixos.release}"
        PRETTY_NAME="devhost offline channel ${config.system.nixos.version}"
      '';
    };

    systemd.tmpfiles.rules = lib.optionals config.boot.tmp.cleanOnBoot [ "D! /tmp 1777 root root" ];
  };
}
