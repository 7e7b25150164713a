{
  description = "A devbox";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.devhost.url = "github:example/devhost";
  inputs.devhost.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, devhost, ... }: {
    nixosConfigurations.dev = devhost.lib.mkDevbox {
      inherit nixpkgs;
      # With hypervisor = "qemu" also "x86_64-linux".
      system = "aarch64-linux";
      hypervisor = "tart";
      vm = { memoryMB = 8192; cpus = 4; diskGB = 100; };
      modules = [ ./configuration.nix ];
    };
  };
}
