# `pkgs.formats`: the option type of a settings attribute set, and the file that it makes.
{ lib, writeText, build }:
let
  inherit (lib) types;

  atom = types.nullOr (types.oneOf [ types.bool types.int types.float types.str types.path ]);

  nested = types.nullOr (types.oneOf [
    types.bool
    types.int
    types.float
    types.str
    types.path
    (types.attrsOf nested)
    (types.listOf nested)
  ]) // { description = "JSON value"; };

  json = _: {
    type = nested;
    generate = name: value: build {
      inherit name;
      files.value = builtins.toJSON value;
      script = ''/usr/bin/python3 -c 'import json, sys; json.dump(json.load(sys.stdin), sys.stdout, indent=2, sort_keys=True); print()' < "$valuePath" > "$out"'';
    };
  };

  # TOML has no null.
  value = types.oneOf [
    types.bool
    types.int
    types.float
    types.str
    types.path
    (types.attrsOf value)
    (types.listOf value)
  ] // { description = "TOML value"; };

  listToSeparate = listsAsDuplicateKeys: value: listsAsDuplicateKeys || !(lib.isList value);
in
{
  inherit json;

  # JSON is YAML.
  yaml = json;

  toml = _: {
    type = value;
    generate = name: settings: build {
      inherit name;
      files.value = builtins.toJSON settings;
      script = ''/usr/bin/python3 ${./to-toml.py} < "$valuePath" > "$out"'';
    };
  };

  keyValue = { listsAsDuplicateKeys ? false, ... }@args: {
    type = types.attrsOf (if listsAsDuplicateKeys then types.either atom (types.listOf atom) else atom);
    generate = name: value:
      assert lib.all (listToSeparate listsAsDuplicateKeys) (lib.attrValues value);
      writeText name (lib.generators.toKeyValue args value);
  };

  ini = { listsAsDuplicateKeys ? false, ... }@args: {
    type = types.attrsOf (types.attrsOf
      (if listsAsDuplicateKeys then types.either atom (types.listOf atom) else atom));
    generate = name: value: writeText name (lib.generators.toINI args value);
  };
}
