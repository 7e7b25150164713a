# Declaring options, and saying in messages which option and which file is meant.
{ lib }:
let
  inherit (builtins) any concatStringsSep elem filter foldl' head isAttrs isBool isFunction isInt isList isString length tail;

  quoted = text: "`${text}'";

  # A value for a message: at most five lines. Empty where it cannot be computed:
  # the message must not fail in its place.
  shownValue = value:
    let
      text = builtins.tryEval (lib.generators.toPretty { } (lib.generators.withRecursion
        { depthLimit = 10; throwOnDepthLimit = false; }
        value));
      lines = lib.splitString "\n" text.value;
      indented = concatStringsSep "\n    " (lib.take 5 lines ++ lib.optional (length lines > 5) "...");
    in
    if !text.success then ""
    else if length lines > 1 then ":\n    ${indented}"
    else ": ${indented}";

  forceHint = loc:
    "Use `lib.mkForce value` or `lib.mkDefault value` to change the priority on any of these definitions.";
in
rec {
  isOption = lib.types.isType "option";

  # Attributes: type, default, defaultText, example, description, apply, readOnly,
  # internal, visible, relatedPackages.
  mkOption = attributes: attributes // { _type = "option"; };

  mkEnableOption = name: mkOption {
    default = false;
    example = true;
    description = "Whether to enable ${name}.";
    type = lib.types.bool;
  };

  # An option for a package of `pkgs`, found by a name or a path of names.
  mkPackageOption = pkgs: name:
    { nullable ? false, default ? name, example ? null, extraDescription ? "", pkgsText ? "pkgs" }:
    let
      title = if isList name then lib.last name else name;
      path = lib.toList default;
      text = concatStringsSep "." ([ pkgsText ] ++ path);
      found = lib.attrByPath path (throw "${text} cannot be found in ${pkgsText}") pkgs;
    in
    mkOption {
      type = (if nullable then lib.types.nullOr else lib.id) lib.types.package;
      description = "The ${title} package to use.${lib.optionalString (extraDescription != "") " ${extraDescription}"}";
    }
    // lib.optionalAttrs (default != null) {
      default = found;
      defaultText = literalExpression text;
    }
    // lib.optionalAttrs (nullable && default == null) { inherit default; }
    // lib.optionalAttrs (example != null) {
      example = literalExpression
        (if isList example then concatStringsSep "." ([ pkgsText ] ++ example) else example);
    };
  mkPackageOptionMD = mkPackageOption;

  # An option that takes anything and shows nothing: for `_module.check = false`.
  mkSinkUndeclaredOptions = attributes: mkOption ({
    internal = true;
    visible = false;
    default = false;
    description = "Takes definitions that nobody reads.";
    type = lib.mkOptionType {
      name = "sink";
      check = _: true;
      merge = _: _: false;
    };
    apply = _: throw "Option value is not readable because the option is not declared.";
  } // attributes);

  # Texts for documentation.
  literalExpression = text:
    if isString text then { _type = "literalExpression"; inherit text; } else throw "literalExpression expects a string.";
  literalExample = literalExpression;
  literalMD = text:
    if isString text then { _type = "literalMD"; inherit text; } else throw "literalMD expects a string.";
  mdDoc = text: text;

  # Ways to merge definitions: functions of the option's path and its definitions
  # `[ { file; value; } ]`, of which there is at least one.
  mergeDefaultOption = loc: defs:
    let
      values = getValues defs;
      first = head values;
    in
    if length values == 1 then first
    else if lib.all lib.isFunction values then x: mergeDefaultOption loc (map (def: def // { value = def.value x; }) defs)
    else if lib.all isList values then builtins.concatLists values
    else if lib.all isAttrs values then lib.mergeAttrsList values
    else if lib.all isBool values then any lib.id values
    else if lib.all isString values then lib.concatStrings values
    else if lib.all isInt values && lib.all (x: x == first) values then first
    else throw "Cannot merge definitions of ${quoted (showOption loc)}. Definition values:${showDefs defs}";

  mergeOneOption = mergeUniqueOption { message = ""; };

  mergeUniqueOption = { message, merge ? null }: loc: defs:
    if length defs == 1 then
      if merge == null then (head defs).value else merge loc defs
    else
      throw (concatStringsSep "\n" (
        [ "The option ${quoted (showOption loc)} is defined multiple times while it's expected to be unique." ]
        ++ lib.optional (message != "") message
        ++ [ "Definition values:${showDefs defs}" (forceHint loc) ]));

  mergeEqualOption = loc: defs:
    if defs == [ ] then abort "mergeEqualOption: no definition of ${quoted (showOption loc)}"
    else
      (foldl'
        (first: def:
          if def.value == first.value then first
          else throw "The option ${quoted (showOption loc)} has conflicting definition values:${showDefs [ first def ]}\n${forceHint loc}")
        (head defs)
        (tail defs)).value;

  getValues = map (def: def.value);
  getFiles = map (def: def.file);

  # `a.b."c d"`; names that stand for any name stay as they are.
  showOption = path:
    concatStringsSep "." (map
      (name: if elem name [ "<name>" "*" "<function body>" ] then name else lib.strings.escapeNixIdentifier name)
      path);
  showFiles = files: lib.concatMapStringsSep " and " quoted files;
  showDefs = lib.concatMapStrings (def: "\n- In ${quoted def.file}${shownValue def.value}");

  unknownModule = "<unknown-file>";
}
