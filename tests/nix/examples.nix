# Every example as a container, with a nixpkgs or channels/offline: { tree } -> by name, the path
# of the system's derivation.
{ tree }:
let
  lib = import (tree + "/lib");
  folders = lib.filterAttrs (name: type: type == "directory" && builtins.pathExists (../../examples + "/${name}/provision.nix"))
    (builtins.readDir ../../examples);
in
lib.mapAttrs
  (name: _: (import (tree + "/nixos") {
    system = "x86_64-linux";
    configuration.imports = [ ../../modules/container-guest (../../examples + "/${name}/provision.nix") ];
  }).system.drvPath)
  folders
