{
  description = "devhost: NixOS development containers on a shared host";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forAllSystems = function: lib.genAttrs systems (system: function nixpkgs.legacyPackages.${system});
      own = outputs: pkgs: outputs.${pkgs.stdenv.hostPlatform.system};
    in
    {
      packages = forAllSystems (pkgs: rec {
        devhost = pkgs.callPackage ./pkgs/devhost.nix { };
        default = devhost;
      });
      overlays.default = final: prev: { devhost = final.callPackage ./pkgs/devhost.nix { }; };

      apps = forAllSystems (pkgs: import ./pkgs/apps.nix {
        inherit (pkgs) lib writeShellScript;
        inherit (own self.packages pkgs) devhost;
      });

      lib = import ./lib;

      # Nix 2.8 wants sets.
      nixosModules = lib.mapAttrs (_: module: { imports = [ module ]; }) {
        container-guest = ./modules/container-guest;
        default = ./modules/devhost;
        devhost = ./modules/devhost;
        flyingcircus = ./modules/flyingcircus.nix;
        test-builder = ./modules/test-builder;
      };

      nixosConfigurations = import ./tests/nix/configurations.nix {
        inherit (lib) nixosSystem;
        inherit (self) nixosModules;
      };

      templates = import ./templates;

      devShells = forAllSystems (pkgs: { default = pkgs.callPackage ./pkgs/dev-shell.nix { }; });

      formatter = forAllSystems (pkgs: pkgs.nixpkgs-fmt);

      checks = forAllSystems (pkgs: import ./tests/nix/checks.nix { inherit pkgs; tree = nixpkgs; } // {
        package-devhost = (own self.packages pkgs).devhost;
        shell-default = (own self.devShells pkgs).default;
      });

      # They need builders with KVM, or with uid-range: nix build .#nixosTests.devhost
      legacyPackages = forAllSystems (pkgs: {
        nixosTests = import ./nixos-tests { inherit pkgs; };
      });
    };
}
