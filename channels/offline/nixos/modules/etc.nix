# environment.etc: one store folder with everything, linked from /etc by activation.
{ config, lib, pkgs, ... }:
let
  # The priority of a source that was made of `text`: weaker than anything a module
  # sets itself, stronger than a default.
  derivedPriority = 1250;

  entryType = lib.types.submodule ({ name, config, options, ... }: {
    options = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether this file is made.";
      };
      target = lib.mkOption {
        type = lib.types.str;
        default = name;
        description = "Name of the file, relative to /etc.";
      };
      text = lib.mkOption {
        type = lib.types.nullOr lib.types.lines;
        default = null;
        description = "Text of the file.";
      };
      source = lib.mkOption {
        type = lib.types.path;
        description = "File or folder that the entry links to, or is copied from.";
      };
      mode = lib.mkOption {
        type = lib.types.str;
        default = "symlink";
        example = "0640";
        description = "Access mode; with anything but `symlink` the file is copied.";
      };
      uid = lib.mkOption {
        type = lib.types.int;
        default = 0;
        description = "Owner of a copied file.";
      };
      gid = lib.mkOption {
        type = lib.types.int;
        default = 0;
        description = "Group of a copied file.";
      };
      user = lib.mkOption {
        type = lib.types.str;
        default = "+${toString config.uid}";
        description = "Owner of a copied file: a name, or `+` and a number.";
      };
      group = lib.mkOption {
        type = lib.types.str;
        default = "+${toString config.gid}";
        description = "Group of a copied file: a name, or `+` and a number.";
      };
      embedded = lib.mkOption {
        type = lib.types.bool;
        internal = true;
        readOnly = true;
        description = "Whether the source is made of `text`, which then needs no derivation of its own.";
      };
    };
    config = {
      source = lib.mkIf (config.text != null) (lib.mkOverride derivedPriority
        (pkgs.writeText "etc-${lib.replaceStrings [ "/" ] [ "-" ] name}" config.text));
      embedded = config.text != null && options.source.highestPrio == derivedPriority;
    };
  });

  entries = lib.filter (entry: entry.enable) (lib.attrValues config.environment.etc);

  manifest = map
    (entry: {
      inherit (entry) target mode user group;
    } // (if entry.embedded then { inherit (entry) text; } else { source = "${entry.source}"; }))
    entries;
in
{
  options.environment.etc = lib.mkOption {
    type = lib.types.attrsOf entryType;
    default = { };
    description = "Files in /etc.";
  };

  config = {
    system.build.etc = pkgs.runCommand "etc"
      { manifest = builtins.toJSON manifest; passAsFile = [ "manifest" ]; }
      ''exec python3 -I -S ${../system/make-etc.py} "$manifestPath"'';

    system.activationScripts.etc = {
      deps = [ "users" "groups" ];
      text = ''
        ${pkgs.python3}/bin/python3 -I -S ${../system/activate-etc.py} ${config.system.build.etc}/etc
      '';
    };
  };
}
