{
  description = "devhost: NixOS development environments, as containers on a shared host and as machines of one's own";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forAllSystems = function: lib.genAttrs systems (system: function nixpkgs.legacyPackages.${system});
      # What people have on their desks. Not every nixpkgs knows all of them.
      desks = lib.filter (system: nixpkgs.legacyPackages ? ${system}) [ "x86_64-darwin" "aarch64-darwin" ];
      forDesks = function: lib.genAttrs desks (system: function nixpkgs.legacyPackages.${system});
      client = pkgs: pkgs.callPackage ./pkgs/devhost-deploy.nix { devhost = pkgs.callPackage ./pkgs/devhost.nix { }; };
      deploy' = pkgs: { type = "app"; program = "${client pkgs}/bin/devhost-deploy"; meta = { inherit ((client pkgs).meta) description; }; };
      devbox = pkgs: pkgs.callPackage ./pkgs/devbox-cli.nix { devhost = pkgs.callPackage ./pkgs/devhost.nix { }; };
      devboxApps = pkgs: import ./pkgs/devbox-apps.nix { inherit (pkgs) lib writeShellScript; devbox-cli = devbox pkgs; };
      own = outputs: pkgs: outputs.${pkgs.stdenv.hostPlatform.system};
    in
    {
      packages = forAllSystems (pkgs: rec {
        devhost = pkgs.callPackage ./pkgs/devhost.nix { };
        devhost-deploy = client pkgs;
        devbox-cli = devbox pkgs;
        devbox-auto-install = pkgs.callPackage ./pkgs/devbox-auto-install.nix { inherit devhost; };
        default = devhost;
      }) // forDesks (pkgs: rec { devhost-deploy = client pkgs; devbox-cli = devbox pkgs; default = devhost-deploy; });
      overlays.default = final: prev: {
        devhost = final.callPackage ./pkgs/devhost.nix { };
        devhost-deploy = final.callPackage ./pkgs/devhost-deploy.nix { };
        devbox-cli = final.callPackage ./pkgs/devbox-cli.nix { };
        devbox-auto-install = final.callPackage ./pkgs/devbox-auto-install.nix { };
      };

      apps = forAllSystems (pkgs: import ./pkgs/apps.nix {
        inherit (pkgs) lib writeShellScript;
        inherit (own self.packages pkgs) devhost;
      } // { deploy = deploy' pkgs; } // devboxApps pkgs) // forDesks (pkgs: { deploy = deploy' pkgs; } // devboxApps pkgs);

      lib = import ./lib;

      # Nix 2.8 wants sets.
      nixosModules = lib.mapAttrs (_: module: { imports = [ module ]; }) {
        container-guest = ./modules/container-guest;
        default = ./modules/devbox;
        devbox = ./modules/devbox;
        devhost = ./modules/devhost;
        flyingcircus = ./modules/flyingcircus.nix;
        test-builder = ./modules/test-builder;
      };

      nixosConfigurations = import ./tests/nix/configurations.nix {
        inherit nixpkgs;
        inherit (self) nixosModules;
      };

      templates = import ./templates;

      devShells = forAllSystems (pkgs: { default = pkgs.callPackage ./pkgs/dev-shell.nix { }; });

      formatter = forAllSystems (pkgs: pkgs.nixpkgs-fmt);

      checks = forAllSystems (pkgs: import ./tests/nix/checks.nix { inherit pkgs; tree = nixpkgs; } // {
        package-devhost = (own self.packages pkgs).devhost;
        package-devhost-deploy = (own self.packages pkgs).devhost-deploy;
        package-devbox-cli = (own self.packages pkgs).devbox-cli;
        package-devbox-auto-install = (own self.packages pkgs).devbox-auto-install;
        shell-default = (own self.devShells pkgs).default;
      });

      # They need builders with KVM, or with uid-range: nix build .#nixosTests.devhost
      legacyPackages = forAllSystems (pkgs: {
        nixosTests = import ./nixos-tests { inherit pkgs; };
      });
    };
}
