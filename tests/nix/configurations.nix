# Whole example hosts, as outputs of the flake: { nixosSystem, nixosModules }.
{ nixosSystem, nixosModules }:
let
  host = modules: nixosSystem { system = "x86_64-linux"; modules = [ nixosModules.default ] ++ modules; };

  # What a machine needs besides.
  machine = {
    boot.loader.grub.device = "/dev/vda";
    fileSystems."/" = { device = "/dev/vda"; fsType = "xfs"; };
    system.stateVersion = "26.05";
  };
in
{
  example-host = host [ ../../templates/host/configuration.nix ];
  example-options = host [ machine ./hosts/all.nix ];
  example-containers = host [ machine ./hosts/declared.nix ];
  example-flyingcircus = host [ machine nixosModules.flyingcircus ./hosts/flyingcircus.nix ];
  example-builder = host [
    machine
    nixosModules.test-builder
    { services.devhost.enable = true; devhost.testBuilder.enable = true; nix.nrBuildUsers = 32; }
  ];
}
