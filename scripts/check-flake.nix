# Evaluates the outputs of the flake with a nixpkgs tree that need not be the pinned one: { tree }
# -> by a name each, the derivation paths and the like of a part of the outputs. A tree whose
# packages are too old for devhost's gets stand-ins: then the package's own attributes are
# evaluated, and nothing of it is built. `users` are other flakes that take this one as their
# input `devhost`, and have hosts of their own.
{ tree, users ? { } }:
let
  flake = import ../flake.nix;
  nixpkgs = import ../tests/nix/nixpkgs.nix { inherit tree; };
  inherit (nixpkgs) lib;

  isOld = pkgs: lib.versionOlder (pkgs.go.version or "0") "1.26";
  withStandIns = pkgs:
    let
      extended = pkgs // {
        buildGoModule = arguments:
          let package = pkgs.stdenv.mkDerivation (removeAttrs arguments [ "env" "vendorHash" "subPackages" "ldflags" ]);
          in package // { inherit (arguments) meta vendorHash; goModules = package; };
        installShellFiles = pkgs.installShellFiles or pkgs.hello;
        qemu = pkgs.qemu or pkgs.hello;
        callPackage = lib.callPackageWith extended;
      };
    in
    if isOld pkgs then extended else pkgs;
  standIns = { options, pkgs, ... }: {
    config = lib.optionalAttrs (options.services ? devhost) {
      services.devhost.package = lib.mkIf (isOld pkgs) (lib.mkDefault outputs.packages.x86_64-linux.devhost);
    } // lib.optionalAttrs (options ? devhost.testBuilder) {
      nix.package = lib.mkIf (isOld pkgs) (lib.mkForce (pkgs.nix // { version = "2.31.0"; }));
    };
  };

  inputs = {
    nixpkgs = nixpkgs // {
      legacyPackages = lib.mapAttrs (_: withStandIns) nixpkgs.legacyPackages;
      lib = lib // {
        nixosSystem = arguments: lib.nixosSystem (arguments // { modules = arguments.modules ++ [ standIns ]; });
      };
    };
  };
  outputs = flake.outputs (inputs // { self = outputs; });

  derivations = lib.mapAttrs (_: lib.mapAttrs (_: value: value.drvPath));
  namesOf = lib.mapAttrs (_: lib.attrNames);
  system = host: host.config.system.build.toplevel.drvPath;
  systemsOf = path: lib.mapAttrs (_: system) ((import path).outputs (inputs // { devhost = outputs; self = { }; })).nixosConfigurations;
in
assert lib.subtractLists
  [ "apps" "checks" "devShells" "formatter" "legacyPackages" "lib" "nixosConfigurations" "nixosModules" "overlays" "packages" "templates" ]
  (lib.attrNames outputs) == [ ];
{
  # All that there is, on the kinds of machines that every tree knows.
  names = lib.mapAttrs (_: names: removeAttrs names [ "aarch64-darwin" ])
    {
      inherit (lib.mapAttrs (_: namesOf) { inherit (outputs) packages apps devShells; }) packages apps devShells;
      checks = lib.mapAttrs (_: lib.filter (name: ! lib.hasPrefix "evaluation-" name)) (namesOf outputs.checks);
    } // namesOf { inherit (outputs) formatter lib nixosConfigurations nixosModules overlays templates; };
  packages = derivations outputs.packages;
  devShells = derivations outputs.devShells;
  apps = lib.mapAttrs (_: lib.mapAttrs (_: app: assert app.type == "app"; app.program)) outputs.apps;
  formatter = lib.mapAttrs (_: formatter: formatter.drvPath) outputs.formatter;
  lib = lib.mapAttrs (_: builtins.isFunction) outputs.lib;
  modules = lib.mapAttrs (_: module: map (path: assert builtins.pathExists path; toString path) module.imports) outputs.nixosModules;
  overlays = lib.mapAttrs
    (_: overlay:
      let
        base = withStandIns nixpkgs.legacyPackages.x86_64-linux;
        added = overlay final base;
        final = base // added // { callPackage = lib.callPackageWith final; };
      in
      lib.mapAttrs (_: package: package.drvPath) added)
    outputs.overlays;
  templates = lib.mapAttrs (_: template: assert builtins.pathExists template.path; template.description) outputs.templates;
  # scripts/check-nix has evaluated what is in the others.
  checks = lib.mapAttrs (_: checks: derivations { checks = lib.filterAttrs (name: _: ! lib.hasPrefix "evaluation-" name || name == "evaluation-host-minimal") checks; }) outputs.checks;
  nixosTests = lib.mapAttrs (_: packages: lib.attrNames packages.nixosTests) outputs.legacyPackages;
}
// lib.mapAttrs (_: system) outputs.nixosConfigurations
// lib.mapAttrs (_: systemsOf) ({
  "the template of a host" = ../templates/host/flake.nix;
  "the template of a devbox" = ../templates/devbox/flake.nix;
} // users)
