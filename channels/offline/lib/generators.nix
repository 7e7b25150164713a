# Texts of configuration formats made from values.
{ lib }:
let
  inherit (builtins) concatStringsSep elem isAttrs isBool isFloat isInt isList isPath isString mapAttrs typeOf;
  inherit (lib) concatMapStrings concatMapStringsSep mapAttrsToList;

  refuse = value: throw "generators.mkValueStringDefault: ${
    if lib.isFunction value then "functions are" else "this value is"
  } not supported: ${toPretty { } value}";

  toPretty = { allowPrettyValues ? false, multiline ? true, indent ? "" }:
    let
      show = margin: value:
        let
          inner = margin + "  ";
          open = if multiline then "\n${inner}" else " ";
          close = if multiline then "\n${margin}" else " ";
          attribute = name: item: "${lib.strings.escapeNixIdentifier name} = ${show inner item};";
        in
        if isInt value then toString value
        else if isFloat value then builtins.toJSON value
        else if isBool value then lib.boolToString value
        else if value == null then "null"
        else if isPath value then toString value
        else if isString value then showString margin value
        else if isList value then
          if value == [ ] then "[ ]" else "[${open}${concatMapStringsSep open (show inner) value}${close}]"
        else if lib.isFunction value then showFunction (lib.functionArgs value)
        else if isAttrs value then
          if allowPrettyValues && value ? __pretty && value ? val then value.__pretty value.val
          else if value == { } then "{ }"
          else if lib.isDerivation value then "<derivation ${value.name or "???"}>"
          else "{${open}${concatStringsSep open (mapAttrsToList attribute value)}${close}}"
        else "<${typeOf value}>";

      # Several lines become an indented string where there is room for them.
      showString = margin: text:
        let
          inner = margin + "  ";
          lines = lib.splitString "\n" text;
          escaped = map (lib.replaceStrings [ "''" "\${" ] [ "'''" "''\${" ]) lines;
        in
        if multiline && builtins.length lines > 1 then
          "''\n${inner}${concatStringsSep "\n${inner}" (lib.init escaped)}"
          + (if lib.last escaped == "" then "\n${margin}" else "\n${inner}${lib.last escaped}")
          + "''"
        else
          "\"${lib.replaceStrings [ "\"" "\\" "\${" "\n" ] [ "\\\"" "\\\\" "\\\${" "\\n" ] text}\"";

      showFunction = arguments:
        let shown = mapAttrsToList (name: optional: if optional then name + "?" else name) arguments;
        in if arguments == { } then "<function>" else "<function, args: {${concatStringsSep ", " shown}}>";
    in
    show indent;
in
rec {
  inherit toPretty;

  # The value of a setting as most programs read it.
  mkValueStringDefault = { }: value:
    if isInt value then toString value
    else if isString value then value
    else if isBool value then lib.boolToString value
    else if value == null then "null"
    else if isFloat value then lib.strings.floatToString value
    else if lib.isDerivation value || isPath value then toString value
    else refuse value;

  # `key<separator>value`, with the separator escaped in the key.
  mkKeyValueDefault = { mkValueString ? mkValueStringDefault { } }: separator: key: value:
    "${lib.escape [ separator ] key}${separator}${mkValueString value}";

  toKeyValue = { mkKeyValue ? mkKeyValueDefault { } "=", listsAsDuplicateKeys ? false, indent ? "" }:
    let
      line = key: value: "${indent}${mkKeyValue key value}\n";
      linesOf = key: value:
        if listsAsDuplicateKeys then concatMapStrings (line key) (lib.toList value) else line key value;
    in
    set: lib.concatStrings (mapAttrsToList linesOf set);

  # `{ section.key = value; }` as an INI file.
  toINI = { mkSectionName ? lib.escape [ "[" "]" ], mkKeyValue ? mkKeyValueDefault { } "=", listsAsDuplicateKeys ? false }:
    sections:
    let
      section = name: settings:
        "[${mkSectionName name}]\n${toKeyValue { inherit mkKeyValue listsAsDuplicateKeys; } settings}";
    in
    concatStringsSep "\n" (mapAttrsToList section sections);

  toINIWithGlobalSection = { mkSectionName ? lib.escape [ "[" "]" ], mkKeyValue ? mkKeyValueDefault { } "=", listsAsDuplicateKeys ? false }@settings:
    { globalSection, sections ? { } }:
    lib.optionalString (globalSection != { })
      (toKeyValue { inherit mkKeyValue listsAsDuplicateKeys; } globalSection + "\n")
    + toINI settings sections;

  toJSON = { }: builtins.toJSON;
  # JSON is YAML too.
  toYAML = toJSON;

  # Cuts a value off below a depth, so that it can be shown though it contains
  # itself.
  withRecursion = { depthLimit, throwOnDepthLimit ? true }:
    let
      walk = depth: value:
        if depth > depthLimit then
          if throwOnDepthLimit then
            throw "Exceeded maximum eval-depth limit of ${toString depthLimit} while trying to evaluate with `generators.withRecursion'!"
          else
            "<unevaluated>"
        else if isAttrs value then
          mapAttrs (name: item: if elem name kept then item else walk (depth + 1) item) value
        else if isList value then map (walk (depth + 1)) value
        else value;
      # What makes a set callable, a string or a derivation.
      kept = [ "__functor" "__functionArgs" "__toString" "__pretty" ];
    in
    walk 0;
}
