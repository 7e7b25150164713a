# Calling functions with arguments found by name, and changing them later.
{ lib }:
let
  inherit (builtins) attrNames filter intersectAttrs isAttrs mapAttrs;

  suggest = names: name:
    let near = filter (n: lib.toLower n == lib.toLower name) names;
    in lib.optionalString (near != [ ]) ", did you mean ${lib.concatMapStringsSep " or " (n: "\"${n}\"") near}?";
in
rec {
  # The result of `f args` with an attribute `override` that calls `f` again with
  # some arguments changed.
  makeOverridable = f:
    lib.mirrorFunctionArgs f (args:
      let
        result = f args;
        change = changes: args // (if lib.isFunction changes then changes args else changes);
        again = lib.mirrorFunctionArgs f (changes: makeOverridable f (change changes));
      in
      if isAttrs result then
        result // { override = again; }
        // lib.optionalAttrs (result ? overrideAttrs) {
          overrideAttrs = changes: makeOverridable (args': (f args').overrideAttrs changes) args;
        }
      else if lib.isFunction result then
        lib.setFunctionArgs result (lib.functionArgs result) // { override = again; }
      else
        result);

  # Calls a function, or the function in a file, with the arguments that it names
  # taken from `scope`, and `args` before them.
  callPackageWith = scope: function: args:
    let
      f = if lib.isFunction function then function else import function;
      wanted = lib.functionArgs f;
      found = intersectAttrs wanted scope // args;
      missing = filter (name: !wanted.${name} && !(found ? ${name})) (attrNames wanted);
      where = lib.optionalString (!lib.isFunction function) " at ${toString function}";
    in
    if missing == [ ] then
      makeOverridable f found
    else
      throw ''lib.customisation.callPackageWith: Function called without required argument "${builtins.head missing}"${where}${suggest (attrNames scope) (builtins.head missing)}'';

  callPackagesWith = scope: function: args:
    let
      f = if lib.isFunction function then function else import function;
      found = intersectAttrs (lib.functionArgs f) scope // args;
    in
    mapAttrs (name: _: makeOverridable (arguments: (f arguments).${name}) found)
      (removeAttrs (f found) [ "recurseForDerivations" ])
    // lib.optionalAttrs (f found ? recurseForDerivations) { inherit (f found) recurseForDerivations; };
}
