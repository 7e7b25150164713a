{
  description = "A dev host";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.devhost.url = "github:example/devhost";
  inputs.devhost.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, devhost, ... }: {
    nixosConfigurations.dev = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ devhost.nixosModules.devhost ./configuration.nix ];
    };
  };
}
