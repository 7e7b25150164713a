# Programs that were made for other distributions ask for a loader that NixOS does not have at
# its usual place; NixOS' nix-ld puts one there. It costs a package, so it is asked for.
{ config, lib, options, ... }:
let
  cfg = config.devhost.guest.nixLd;
  known = options.programs ? nix-ld;
in
{
  config = lib.mkMerge [
    (lib.optionalAttrs known {
      programs.nix-ld.enable = lib.mkIf cfg.enable true;
    })
    {
      assertions = [
        {
          assertion = known || !cfg.enable;
          message = ''
            devhost.guest.nixLd: NixOS ${config.system.nixos.release} has no programs.nix-ld, which came with 22.05; take
            a newer channel, or leave devhost.guest.nixLd.enable away'';
        }
      ];
    }
  ];
}
