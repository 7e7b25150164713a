{
  description = "devhost: NixOS development containers on a shared host";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      lib = nixpkgs.lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forAllSystems = function: lib.genAttrs systems (system: function nixpkgs.legacyPackages.${system});
    in
    {
      packages = forAllSystems (pkgs: rec {
        devhost = pkgs.callPackage ./pkgs/devhost.nix { };
        default = devhost;
      });

      apps = forAllSystems (pkgs: rec {
        devhost = {
          type = "app";
          program = lib.getExe self.packages.${pkgs.stdenv.hostPlatform.system}.devhost;
        };
        default = devhost;
      });

      nixosModules = {
        container-guest = ./modules/container-guest;
        devhost = ./modules/devhost;
        flyingcircus = ./modules/flyingcircus.nix;
        test-builder = ./modules/test-builder;
      };

      devShells = forAllSystems (pkgs: {
        default = pkgs.callPackage ./pkgs/dev-shell.nix { };
      });

      formatter = forAllSystems (pkgs: pkgs.nixpkgs-fmt);

      checks = forAllSystems (pkgs: {
        package-devhost = self.packages.${pkgs.stdenv.hostPlatform.system}.devhost;
        shell-default = self.devShells.${pkgs.stdenv.hostPlatform.system}.default;
      });
    };
}
