# Evaluates a module that a page of the documentation shows, as people would use it: { tree, kind,
# path } -> the path of the system's derivation.
{ tree, kind, path }:
let
  host = modules: ((import ./lib.nix { inherit tree; }).evaluate { imports = modules ++ [ path ]; }).system.drvPath;
in
{
  provision = (import (tree + "/nixos") {
    system = "x86_64-linux";
    configuration.imports = [ ../../modules/container-guest path ];
  }).system.drvPath;
  host = host [ ];
  flyingcircus = host [ ../../modules/flyingcircus.nix ];
}.${kind}
