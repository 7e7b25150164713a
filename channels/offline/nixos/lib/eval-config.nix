# Evaluates NixOS modules on top of this channel's own modules.
#
# Arguments: `modules` (list of modules), `system` (platform of the packages),
# `specialArgs` (further arguments that modules may use in `imports`),
# `lib` (the library; this channel's own unless given).
# Result: `config`, `options`, `pkgs`, `lib`.
{ modules
, system ? builtins.currentSystem
, specialArgs ? { }
, lib ? import ../../lib
}:
let
  eval = lib.evalModules {
    specialArgs = { modulesPath = toString ../modules; } // specialArgs;
    modules = import ../modules/module-list.nix ++ [
      {
        _file = "channels/offline/nixos/lib/eval-config.nix";
        config.nixpkgs.hostPlatform = lib.mkOptionDefault system;
      }
    ] ++ modules;
    undeclaredHint = "channels/offline does not implement this NixOS option; channels/offline/README.md lists what it implements.";
  };
in
{
  inherit (eval) config options;
  inherit (eval._module.args) pkgs;
  inherit lib;
}
