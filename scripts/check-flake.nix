# Evaluates every output of the flake with a nixpkgs tree that need not be the
# pinned one: { tree } -> the derivation paths of all outputs. A tree whose
# packages are too old to know buildGoModule's vendorHash gets a stand-in for
# it: then the package's own attributes are evaluated, and nothing of it is built.
{ tree }:
let
  flake = import ../flake.nix;
  nixpkgs = (import (tree + "/flake.nix")).outputs { self = nixpkgs; };
  inherit (nixpkgs) lib;
  adapted = pkgs:
    let
      extended = pkgs // {
        buildGoModule = arguments: pkgs.stdenv.mkDerivation (removeAttrs arguments [ "env" "vendorHash" "subPackages" "ldflags" ]
          // { inherit (arguments) vendorHash; });
        installShellFiles = pkgs.installShellFiles or pkgs.hello;
        callPackage = lib.callPackageWith extended;
      };
    in
    extended;
  outputs = flake.outputs {
    nixpkgs = nixpkgs // { legacyPackages = lib.mapAttrs (_: adapted) nixpkgs.legacyPackages; };
    self = outputs;
  };
  derivations = set: lib.mapAttrs (_: lib.mapAttrs (_: value: value.drvPath)) set;
in
{
  packages = derivations outputs.packages;
  checks = derivations outputs.checks;
  devShells = derivations outputs.devShells;
  apps = lib.mapAttrs (_: lib.mapAttrs (_: app: assert app.type == "app"; app.program)) outputs.apps;
  formatter = lib.mapAttrs (_: formatter: formatter.drvPath) outputs.formatter;
  modules = lib.mapAttrs (_: toString) outputs.nixosModules;
}
