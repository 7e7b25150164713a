# The platform's own role declares the same options.
{ config, lib, ... }:
{
  options.flyingcircus.roles.devhost = {
    enable = lib.mkEnableOption "containers of the platform";
    publicAddress = lib.mkOption { type = lib.types.str; default = "example.com"; };
    cleanupContainers = lib.mkOption { type = lib.types.bool; default = true; };
  };
  config.environment.etc."role-of-the-platform".text = lib.mkIf config.flyingcircus.roles.devhost.enable "on";
}
