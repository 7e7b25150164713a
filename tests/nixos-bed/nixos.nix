# The entry point of the channel that tests make of a NixOS tree (channel.go): nixos/default.nix.
# Its modules are the tree's own, its packages are links to the programs of the machine.
{ configuration, system ? builtins.currentSystem, specialArgs ? { } }:
let
  eval = import ./lib/eval-config.nix {
    inherit specialArgs;
    lib = import ../lib;
    system = null;
    modules = [
      configuration
      ../bed/module.nix
      ({ lib, ... }: { nixpkgs.hostPlatform = lib.mkDefault system; })
    ];
  };
in
{
  inherit (eval) pkgs config options;
  system = eval.config.system.build.toplevel;
}
