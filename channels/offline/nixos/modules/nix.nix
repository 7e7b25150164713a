# nix.*: the Nix programs inside. The daemon is the host's.
{ config, lib, pkgs, ... }:
let
  cfg = config.nix;

  # As nix.conf(5) writes a value.
  text = value:
    if lib.isBool value then lib.boolToString value
    else if lib.isList value then lib.concatMapStringsSep " " toString value
    else toString value;

  atom = lib.types.oneOf [ lib.types.bool lib.types.int lib.types.str ];
in
{
  options.nix = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the system has the Nix programs.";
    };
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.nix;
      defaultText = "pkgs.nix";
      description = "The Nix programs.";
    };
    settings = lib.mkOption {
      type = lib.types.attrsOf (lib.types.either atom (lib.types.listOf atom));
      default = { };
      description = "Settings of nix.conf(5).";
    };
    extraOptions = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Further lines of nix.conf(5).";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."nix/nix.conf".text =
      lib.concatStrings (lib.mapAttrsToList (name: value: "${name} = ${text value}\n") cfg.settings) + cfg.extraOptions;
  };
}
