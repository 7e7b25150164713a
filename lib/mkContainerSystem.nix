/**
  mkContainerSystem { nixpkgs, system, modules } evaluates the system of a development
  container from a nixpkgs (NixOS 21.05 or newer), with the guest module and modules of one's
  own. devhost starts such a system as it is (services.devhost.containers.<name>.config, or
  `system` in the file of devhost host apply): nothing is evaluated on the dev host.

      nixpkgs       a nixpkgs: a flake's input, or a path
      system        the kind of machine, such as "x86_64-linux"
      modules       NixOS modules, as a provision.nix is one
      specialArgs   further arguments of the modules

      (devhost.lib.mkContainerSystem {
        inherit nixpkgs;
        system = "x86_64-linux";
        modules = [ ./docs.nix ];
      }).system

  The result is that of nixpkgs' nixos/default.nix: { config, options, pkgs, system }, of
  which `system` is the derivation of the container's system.
*/
{ nixpkgs
, system ? builtins.currentSystem
, modules ? [ ]
, specialArgs ? { }
}:
if !builtins.pathExists (nixpkgs + "/nixos/default.nix") then throw "mkContainerSystem: nixpkgs must be a nixpkgs with NixOS, and ${toString nixpkgs} has no nixos/default.nix"
else import (nixpkgs + "/nixos") ({
  inherit system;
  configuration.imports = [ ../modules/container-guest ] ++ modules;
} // (if specialArgs == { } then { } else { inherit specialArgs; }))
