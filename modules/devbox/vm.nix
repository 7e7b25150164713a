# The machine as `nixos-rebuild build-vm` makes it, to try it on Linux: of the size that it
# shall have, and with its user on the console.
{ config, lib, options, ... }:
let
  cfg = config.devbox;
in
{
  # NixOS 21.11 and newer.
  config = lib.optionalAttrs (options.virtualisation ? vmVariant) {
    virtualisation.vmVariant = {
      virtualisation = {
        memorySize = lib.mkIf (cfg.vm.memoryMB != null) (lib.mkDefault cfg.vm.memoryMB);
        diskSize = lib.mkDefault (cfg.vm.diskGB * 1024);
        cores = lib.mkIf (cfg.vm.cpus != null) (lib.mkDefault cfg.vm.cpus);
      };
      services.getty.autologinUser = lib.mkDefault cfg.user.login;
    };
  };
}
