# The cases that hold this channel's library against nixpkgs' `lib`.
#
# A file in cases/ is a function `{ lib }:` to a set of named cases:
#   NAME.expr           a value; cases/FILE.json holds what it must be
#   NAME.error, .match  an expression that must fail, and what its message must hold
#   NAME.offlineOnly    true where nixpkgs has no such thing
# Names here are "FILE.NAME".
#
# internal/offlinechannel runs them.
{ lib ? import ../lib
  # Whether `lib` is nixpkgs' own: leaves out what only this channel has.
, reference ? false
}:
let
  inherit (builtins) attrNames concatMap filter listToAttrs mapAttrs match readDir;

  files = filter (file: file != null) (map (name: match "(.*)\\.nix" name) (attrNames (readDir ./cases)));

  cases = listToAttrs (concatMap
    (parts:
      let
        file = builtins.head parts;
        inFile = import (./cases + "/${file}.nix") { inherit lib; };
      in
      map (name: { name = "${file}.${name}"; value = inFile.${name}; }) (attrNames inFile))
    files);

  select = wanted: listToAttrs (map (name: { inherit name; value = cases.${name}; })
    (filter (name: wanted cases.${name} && !(reference && cases.${name}.offlineOnly or false)) (attrNames cases)));
in
{
  values = mapAttrs (_: case: case.expr) (select (case: case ? expr));
  errors = mapAttrs (_: case: case.error) (select (case: case ? error));
  matches = mapAttrs (_: case: case.match) (select (case: case ? error));
}
