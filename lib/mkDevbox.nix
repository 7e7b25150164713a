/**
  mkDevbox { nixpkgs, system, ... } is nixpkgs' nixosSystem with modules/devbox before it: a NixOS
  system as a virtual machine of one person.

      nixpkgs       a flake's input
      system        the kind of machine, such as "aarch64-linux"
      hypervisor    what runs it: "tart" (default) or "qemu"
      vm            the options below devbox.vm: nested, memoryMB, diskGB, cpus
      modules       NixOS modules: what the machine is for
      specialArgs   further arguments of the modules

      nixosConfigurations.dev = devhost.lib.mkDevbox {
        inherit nixpkgs;
        system = "aarch64-linux";
        vm = { memoryMB = 8192; diskGB = 150; };
        modules = [ ./dev.nix ];
      };

  The result is that of nixosSystem: { config, options, pkgs, ... }.
*/
{ nixpkgs
, system
, hypervisor ? "tart"
, vm ? { }
, modules ? [ ]
, specialArgs ? { }
}:
if !(builtins.isAttrs nixpkgs && nixpkgs ? lib.nixosSystem) then throw "mkDevbox: nixpkgs must be a flake's input that has lib.nixosSystem, as github:NixOS/nixpkgs has"
else
  nixpkgs.lib.nixosSystem {
    inherit system specialArgs;
    modules = [
      ../modules/devbox
      { _file = "mkDevbox"; config.devbox = { inherit hypervisor vm; }; }
    ] ++ modules;
  }
