# The drivers of nixos-tests, with a tree of nixpkgs that may be older than the test driver that
# they follow, and whose packages may be stand-ins: { tree } -> by name, the path of the driver's
# derivation, and the script. Where the driver knows no machines that are containers, they are
# evaluated as if they were virtual ones.
{ tree }:
let
  real = import tree { system = "x86_64-linux"; };
  inherit (real) lib;
  current = lib.versionAtLeast (real.go.version or "0") "1.26";
  pkgs = if current then real else standIns;

  # What a tree without real packages lacks.
  firmware = pkgs.hello // { systemManagementModeRequired = false; firmware = "firmware"; variables = "variables"; };
  standIns = real // {
    __splicedPackages = standIns;
    callPackage = lib.callPackageWith standIns;
    ruff = real.hello;
    OVMF = (real.OVMF or real.hello) // firmware;
  };
  older = { config, options, ... }: {
    options = {
      containers = lib.mkOption { type = lib.types.lazyAttrsOf lib.types.raw; default = { }; apply = containers: lib.getAttrs (lib.attrNames containers) config.nodes; };
      requiredFeatures = lib.mkOption { type = lib.types.attrsOf lib.types.bool; default = { }; };
    };
    config = lib.optionalAttrs (options ? devboxModules) {
      devboxModules = [{ devbox.install.package = pkgs.writeTextDir "bin/devbox-auto-install" ""; }];
    } // {
      nodes = lib.mkMerge options.containers.definitions;
      defaults = { config, options, ... }: {
        options.security = {
          enableWrappers = lib.mkOption { type = lib.types.bool; };
        };
        config = {
          system.build = lib.mkIf config.boot.isContainer { initialRamdisk = pkgs.hello; kernel = pkgs.hello; };
          virtualisation.efi.OVMF = lib.mkForce firmware;
          services = lib.optionalAttrs (options.services ? devhost) {
            devhost.package = pkgs.writeTextDir "bin/devhost" "";
          };
        };
      };
    };
  };
  # NixOS has a default for it.
  timed = { lib, options, ... }: {
    options.saysTimeout = lib.mkOption { type = lib.types.bool; readOnly = true; default = lib.any (meta: meta ? timeout) options.meta.definitions; };
  };
in
lib.mapAttrs
  (name: test:
    assert lib.assertMsg test.config.saysTimeout "${name} sets no meta.timeout";
    assert lib.assertMsg (lib.attrNames test.config.containers == [ ] || test.config.requiredFeatures.uid-range or false) "${name} has containers, and does not require uid-range";
    { driver = test.driver.drvPath; script = test.config.testScriptString; })
  (import ../../nixos-tests {
    inherit pkgs;
    modules = [ timed ] ++ lib.optional (!current) older;
  })
