# The account of who works on the machine. Nobody has a password: keys open the door, and sudo
# asks for none.
{ config, lib, options, ... }:
let
  cfg = config.devbox;
in
{
  config = lib.mkMerge [
    {
      users.users.${cfg.user.login} = {
        isNormalUser = lib.mkDefault true;
        description = lib.mkDefault "Devbox";
        extraGroups = [ "wheel" ] ++ lib.optional cfg.vm.nested "kvm";
      };
      security.sudo.wheelNeedsPassword = lib.mkDefault false;
    }
    # NixOS asks for a way in where nothing else may set a password.
    (lib.optionalAttrs (options.users ? allowNoPasswordLogin) {
      users.allowNoPasswordLogin = lib.mkDefault true;
    })
  ];
}
