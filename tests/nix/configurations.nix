# Whole example hosts and machines, as outputs of the flake: { nixpkgs, nixosModules }.
{ nixpkgs, nixosModules }:
let
  inherit (nixpkgs.lib) nixosSystem;
  inherit (import ../../lib) mkDevbox;
  host = modules: nixosSystem { system = "x86_64-linux"; modules = [ nixosModules.devhost ] ++ modules; };

  # What a machine needs besides.
  machine = {
    boot.loader.grub.device = "/dev/vda";
    fileSystems."/" = { device = "/dev/vda"; fsType = "xfs"; };
    system.stateVersion = "26.05";
  };
in
{
  example-host = host [ ../../templates/host/configuration.nix ];
  example-devbox-tart = mkDevbox {
    inherit nixpkgs;
    system = "aarch64-linux";
    vm.nested = true;
    modules = [ ../../templates/devbox/configuration.nix ];
  };
  example-devbox-qemu = nixosSystem {
    system = "x86_64-linux";
    modules = [ nixosModules.default ./devboxes/all.nix { system.stateVersion = "26.05"; } ];
  };
  example-options = host [ machine ./hosts/all.nix ];
  example-containers = host [ machine ./hosts/declared.nix ];
  example-flyingcircus = host [ machine nixosModules.flyingcircus ./hosts/flyingcircus.nix ];
  example-builder = host [
    machine
    nixosModules.test-builder
    { services.devhost.enable = true; devhost.testBuilder.enable = true; nix.nrBuildUsers = 32; }
  ];
}
