# Command lines.
{ lib }:
rec {
  # `{ name = value; }` as a list of arguments: true is the flag alone, false and
  # null are nothing, a list repeats the flag.
  toGNUCommandLine =
    { mkOptionName ? name: if builtins.stringLength name == 1 then "-${name}" else "--${name}"
    , mkBool ? name: value: lib.optional value (mkOptionName name)
    , mkList ? name: value: lib.concatMap (mkOption name) value
    , mkOption ? name: value:
        if value == null then [ ]
        else if optionValueSeparator == null then [ (mkOptionName name) (lib.generators.mkValueStringDefault { } value) ]
        else [ "${mkOptionName name}${optionValueSeparator}${lib.generators.mkValueStringDefault { } value}" ]
    , optionValueSeparator ? null
    }:
    options:
    let
      render = name: value:
        if builtins.isBool value then mkBool name value
        else if builtins.isList value then mkList name value
        else mkOption name value;
    in
    lib.concatLists (lib.mapAttrsToList render options);

  toGNUCommandLineShell = settings: options: lib.escapeShellArgs (toGNUCommandLine settings options);
}
