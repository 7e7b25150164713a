# How the definitions of one option become a value: conditions, priorities,
# order, and each type's own rule.
{ lib }:
let
  inherit (lib) mkAfter mkBefore mkDefault mkForce mkIf mkMerge mkOption mkOptionDefault mkOrder mkOverride types;

  # The value of an option `x` of a type, defined by each of `values` in a file
  # of its own: file1, file2, ...
  merge = type: values: (lib.evalModules {
    modules = [ { _file = "declaration"; options.x = mkOption { inherit type; }; } ]
      ++ lib.imap1 (i: x: { _file = "file${toString i}"; inherit x; }) values;
  }).config.x;

  ints = types.listOf types.int;
in
{
  bool.expr = [ (merge types.bool [ true ]) (merge types.bool [ false false ]) ];
  boolConflict = { error = merge types.bool [ true false ]; match = [ "The option `x' has conflicting definition values:" "In `file1': true" "In `file2': false" "mkForce" ]; };
  boolByOr.expr = [ (merge types.boolByOr [ false true ]) (merge types.boolByOr [ false false ]) ];
  boolOfString = { error = merge types.bool [ "true" ]; match = [ "A definition for option `x' is not of type `boolean'. Definition values:" "- In `file1': \"true\"" ]; };
  int.expr = merge types.int [ 3 3 ];
  intConflict = { error = merge types.int [ 3 4 ]; match = [ "The option `x' has conflicting definition values:" "- In `file2': 4" "- In `file1': 3" ]; };
  intOfString = { error = merge types.int [ 1 "x" ]; match = [ "A definition for option `x' is not of type `signed integer'." "- In `file2': \"x\"" ]; };
  float.expr = [ (merge types.float [ 1.5 ]) (merge types.number [ 1 ]) (merge types.number [ 1.5 ]) ];
  floatOfInt = { error = merge types.float [ 1 ]; match = [ "A definition for option `x' is not of type `floating point number'." ]; };
  str.expr = merge types.str [ "a" "a" ];
  strConflict = { error = merge types.str [ "a" "b" ]; match = [ "The option `x' has conflicting definition values:" "\"a\"" "\"b\"" ]; };
  strOfInt = { error = merge types.str [ 1 ]; match = [ "A definition for option `x' is not of type `string'." "- In `file1': 1" ]; };
  nonEmptyStr.expr = merge types.nonEmptyStr [ "a" ];
  nonEmptyStrBlank = { error = merge types.nonEmptyStr [ " \n" ]; match = [ "A definition for option `x' is not of type `non-empty string'." ]; };
  singleLine.expr = [ (merge types.singleLineStr [ "a\n" ]) (merge types.singleLineStr [ "a" ]) ];
  singleLineTwo = { error = merge types.singleLineStr [ "a\nb" ]; match = [ "is not of type `(optionally newline-terminated) single-line string'." ]; };
  strMatching.expr = merge (types.strMatching "[0-9]+") [ "12" ];
  strMatchingNot = { error = merge (types.strMatching "[0-9]+") [ "1x" ]; match = [ "A definition for option `x' is not of type `string matching the pattern [0-9]+'." ]; };
  lines.expr = [ (merge types.lines [ "a" "b\n" "c" ]) (merge types.lines [ (mkAfter "z") "a" ]) (merge types.lines [ (mkIf false "z") "a" ]) ];
  commas.expr = merge types.commas [ "a" "b" ];
  envVar.expr = merge types.envVar [ "/a" (mkBefore "/b") ];
  separated.expr = merge (types.separatedString " ") [ "a" "b" ];
  linesOfList = { error = merge types.lines [ [ "a" ] ]; match = [ "A definition for option `x' is not of type `strings concatenated with \"\\n\"'." ]; };
  passwdEntry.expr = merge (types.passwdEntry types.str) [ "Jane Doe" ];
  passwdEntryColon = { error = merge (types.passwdEntry types.str) [ "a:b" ]; match = [ "is not of type `string, not containing newlines or colons'." ]; };
  enum.expr = merge (types.enum [ "a" "b" ]) [ "a" "a" ];
  enumOther = { error = merge (types.enum [ "a" "b" ]) [ "c" ]; match = [ "A definition for option `x' is not of type `one of \"a\", \"b\"'." "- In `file1': \"c\"" ]; };
  enumConflict = { error = merge (types.enum [ "a" "b" ]) [ "a" "b" ]; match = [ "The option `x' has conflicting definition values:" ]; };

  intRanges.expr = [
    (merge types.ints.unsigned [ 0 ])
    (merge types.ints.positive [ 1 ])
    (merge (types.ints.between 2 4) [ 4 ])
    (merge types.ints.u8 [ 255 ])
    (merge types.ints.u16 [ 65535 ])
    (merge types.ints.u32 [ 4294967295 ])
    (merge types.ints.s8 [ (-128) ])
    (merge types.ints.s16 [ 32767 ])
    (merge types.ints.s32 [ (-2147483648) ])
    (merge types.port [ 8080 ])
    (merge types.numbers.positive [ 0.5 ])
    (merge types.numbers.nonnegative [ 0 ])
    (merge (types.numbers.between 0 1) [ 0.5 ])
  ];
  negative = { error = merge types.ints.unsigned [ (-1) ]; match = [ "A definition for option `x' is not of type `unsigned integer, meaning >=0'." "-1" ]; };
  zero = { error = merge types.ints.positive [ 0 ]; match = [ "A definition for option `x' is not of type `positive integer, meaning >0'." ]; };
  tooLarge = { error = merge (types.ints.between 2 4) [ 5 ]; match = [ "A definition for option `x' is not of type `integer between 2 and 4 (both inclusive)'." ]; };
  byte = { error = merge types.ints.u8 [ 256 ]; match = [ "is not of type `8 bit unsigned integer; between 0 and 255 (both inclusive)'." ]; };
  signedByte = { error = merge types.ints.s8 [ 128 ]; match = [ "is not of type `8 bit signed integer; between -128 and 127 (both inclusive)'." ]; };
  portTooLarge = { error = merge types.port [ 65536 ]; match = [ "A definition for option `x' is not of type `16 bit unsigned integer; between 0 and 65535 (both inclusive)'." ]; };
  badRange = { error = merge (types.ints.between 4 2) [ 3 ]; match = [ "ints.between: lowest must be smaller than highest" ]; };

  path.expr = [ (merge types.path [ "/a/b" ]) (merge types.path [ { outPath = "/store/x"; } ]).outPath (toString (merge types.path [ /a/b ])) ];
  pathRelative = { error = merge types.path [ "a/b" ]; match = [ "A definition for option `x' is not of type `" "path'." "- In `file1': \"a/b\"" ]; };
  pathInStore.expr = merge types.pathInStore [ "${builtins.storeDir}/0123456789abcdfghijklmnpqrsvwxyz-foo" ];
  pathNotInStore = { error = merge types.pathInStore [ "/etc" ]; match = [ "A definition for option `x' is not of type `path in the Nix store'." ]; };
  package.expr = (merge types.package [ { type = "derivation"; name = "p"; outPath = "/p"; } ]).name;
  packageOfString = { error = merge types.package [ "hello" ]; match = [ "A definition for option `x' is not of type `package'." "\"hello\"" ]; };
  packageTwice = {
    error = merge types.package [ { type = "derivation"; name = "p"; } { type = "derivation"; name = "q"; } ];
    match = [ "The option `x' is defined multiple times while it's expected to be unique." "- In `file1': <derivation p>" "- In `file2': <derivation q>" ];
  };
  shellPackage.expr = (merge types.shellPackage [ { type = "derivation"; name = "sh"; shellPath = "/bin/sh"; } ]).name;
  notShell = { error = merge types.shellPackage [ { type = "derivation"; name = "p"; } ]; match = [ "A definition for option `x' is not of type `package'." ]; };

  list.expr = merge ints [ [ 1 ] [ 2 3 ] [ ] [ 4 ] ];
  listNone.expr = merge ints [ [ ] ];
  listOrder.expr = merge ints [ (mkAfter [ 9 ]) [ 1 ] (mkBefore [ 0 ]) [ 2 ] (mkOrder 200 [ (-1) ]) (mkOrder 1000 [ 3 ]) ];
  listProperties.expr = merge ints [ [ (mkIf true 1) (mkIf false 2) (mkMerge [ 3 ]) (mkForce 4) ] ];
  listElement = { error = merge ints [ [ 1 ] [ 2 "x" ] ]; match = [ "A definition for option `x.\"[definition " "-entry 2]\"' is not of type `signed integer'." "- In `file2': \"x\"" ]; };
  listOfInt = { error = merge ints [ 1 ]; match = [ "A definition for option `x' is not of type `list of signed integer'." ]; };
  listLazy.expr = builtins.length (merge (types.listOf types.raw) [ [ { a = throw "never"; } ] [ 1 ] ]);
  nonEmptyList.expr = merge (types.nonEmptyListOf types.int) [ [ 1 ] ];
  emptyList = { error = merge (types.nonEmptyListOf types.int) [ [ ] ]; match = [ "A definition for option `x' is not of type `non-empty (list of signed integer)'." ]; };

  attrs.expr = merge types.attrs [ { a = 1; b = 1; } { b = 2; } ];
  attrsOf.expr = merge (types.attrsOf types.int) [ { a = 1; } { b = 2; } { b = 2; } ];
  attrsOfProperties.expr = merge (types.attrsOf types.int) [
    { a = mkDefault 1; b = mkIf false 2; c = mkForce 3; d = mkMerge [ (mkIf false 1) 4 ]; }
    { a = 2; c = 4; }
    (mkIf false { e = 5; })
    (mkMerge [ { f = 6; } (mkIf true { g = 7; }) ])
  ];
  attrsOfConflict = { error = merge (types.attrsOf types.int) [ { a = 1; } { a = 2; } ]; match = [ "The option `x.a' has conflicting definition values:" "file1" "file2" ]; };
  attrsOfElement = { error = merge (types.attrsOf types.int) [ { "a b" = "x"; } ]; match = [ "A definition for option `x.\"a b\"' is not of type `signed integer'." "- In `file1': \"x\"" ]; };
  attrsOfList = { error = merge (types.attrsOf types.int) [ [ 1 ] ]; match = [ "A definition for option `x' is not of type `attribute set of signed integer'." ]; };
  attrsOfLists.expr = merge (types.attrsOf (types.listOf types.str)) [ { a = [ "1" ]; } { a = mkBefore [ "0" ]; b = [ ]; } ];
  attrsOfAttrs.expr = merge (types.attrsOf (types.attrsOf types.str)) [ { a.b = "1"; } { a.c = "2"; } ];
  attrsOfForce.expr = merge (types.attrsOf types.int) [ { a = 1; } (mkForce { b = 2; }) ];
  lazyAttrs.expr =
    let x = merge (types.lazyAttrsOf types.int) [ { a = 1; b = mkIf (throw "never") 2; c = throw "never"; } ];
    in [ (builtins.attrNames x) x.a ];
  lazyAttrsEmpty.expr = (merge (types.lazyAttrsOf (types.nullOr types.int)) [ { a = mkIf false 1; } ]).a;
  lazyAttrsNone = { error = (merge (types.lazyAttrsOf types.int) [ { a = mkIf false 1; } ]).a; match = [ "The option `x.a' " ]; };

  nullOr.expr = [ (merge (types.nullOr types.int) [ null null ]) (merge (types.nullOr types.int) [ 1 1 ]) (merge (types.nullOr ints) [ [ 1 ] [ 2 ] ]) ];
  nullOrBoth = { error = merge (types.nullOr types.int) [ null 1 ]; match = [ "is defined both null and not null, in" "`file1'" "`file2'" ]; };
  nullOrOther = { error = merge (types.nullOr types.int) [ "x" ]; match = [ "A definition for option `x' is not of type `null or signed integer'." ]; };
  either.expr = [ (merge (types.either types.int types.str) [ 1 ]) (merge (types.either types.int types.str) [ "a" ]) (merge (types.either types.str ints) [ [ 1 ] [ 2 ] ]) (merge (types.oneOf [ types.int types.bool types.str ]) [ false ]) ];
  eitherOther = { error = merge (types.either types.int ints) [ "x" ]; match = [ "A definition for option `x' is not of type `signed integer or list of signed integer'." ]; };
  eitherMixed = { error = merge (types.either types.int types.str) [ 1 "a" ]; match = [ "The option `x' is defined multiple times while it's expected to be unique." "file1" "file2" ]; };
  oneOfOther = { error = merge (types.oneOf [ types.int types.bool types.str ]) [ null ]; match = [ "A definition for option `x' is not of type `signed integer or boolean or string'." ]; };

  coerced.expr = [
    (merge (types.coercedTo types.int toString types.str) [ 3 ])
    (merge (types.coercedTo types.int toString types.str) [ "3" 3 ])
    (merge (types.coercedTo types.str lib.singleton (types.listOf types.str)) [ "a" [ "b" ] ])
    (merge (types.attrsOf (types.coercedTo types.int (x: { v = x; }) types.attrs)) [ { a = 1; b = { v = 2; }; } ])
  ];
  coercedOther = { error = merge (types.coercedTo types.int toString types.str) [ true ]; match = [ "A definition for option `x' is not of type `string or signed integer convertible to it'." "- In `file1': true" ]; };
  coercedBad = { error = merge (types.coercedTo types.str lib.toInt types.int) [ "x" ]; match = [ "toInt: Could not convert \"x\" to int." ]; };
  uniq.expr = merge (types.uniq types.int) [ 1 ];
  uniqTwice = { error = merge (types.uniq types.int) [ 1 1 ]; match = [ "The option `x' is defined multiple times while it's expected to be unique." "file1" "file2" ]; };
  uniqueMessage = { error = merge (types.unique { message = "Only one module may say this."; } types.int) [ 1 2 ]; match = [ "The option `x' is defined multiple times while it's expected to be unique." "Only one module may say this." ]; };
  uniqueForced.expr = merge (types.uniq types.int) [ 1 (mkForce 2) ];

  anything.expr = [
    (merge types.anything [ { a.b = 1; c = [ 1 ]; } { a.d = mkDefault 2; } { a.d = 3; } ])
    (merge types.anything [ 1 1 ])
    (merge types.anything [ { a = mkIf false 1; b = 2; } ])
    (merge types.anything [ [ (mkIf false 1) 2 ] ])
    (merge types.anything [ null null ])
  ];
  anythingFunction.expr = merge types.anything [ (x: { a = x; }) (x: { b = x + 1; }) ] 1;
  anythingConflict = { error = merge types.anything [ { a = 1; } { a = 2; } ]; match = [ "The option `x.a' has conflicting" "`file1'" "`file2'" ]; };
  anythingMixed = { error = merge types.anything [ { a = 1; } { a = "x"; } ]; match = [ "The option `x.a' has conflicting" "`file1'" "`file2'" ]; };
  anythingLists = { error = merge types.anything [ [ 1 ] [ 2 ] ]; match = [ "The option `x' has conflicting definitions, in `file" ]; };
  raw.expr = merge types.raw [ { a = 1; } ];
  rawTwice = { error = merge types.raw [ 1 1 ]; match = [ "The option `x' is defined multiple times while it's expected to be unique." ]; };
  unspecified.expr = [
    (merge types.unspecified [ { a = 1; } { b = 2; } ])
    (merge types.unspecified [ [ 1 ] [ 2 ] ])
    (merge types.unspecified [ true false ])
    (merge types.unspecified [ "a" "b" ])
    (merge types.unspecified [ 1 1 ])
  ];
  unspecifiedConflict = { error = merge types.unspecified [ 1 "a" ]; match = [ "Cannot merge definitions of `x'." "file1" "file2" ]; };
  optionType.expr = (merge types.optionType [ types.int ]).name;
  optionTypeMerged.expr = (merge types.optionType [ (types.enum [ 1 ]) (types.enum [ 2 ]) ]).description;
  notOptionType = { error = merge types.optionType [ 1 ]; match = [ "A definition for option `x' is not of type `optionType'." ]; };

  functionTo.expr = [
    (merge (types.functionTo types.int) [ (x: x + 1) ] 1)
    (merge (types.functionTo ints) [ (x: [ x ]) (x: mkBefore [ 0 ]) (x: mkIf false [ 9 ]) ] 1)
    (merge (types.functionTo (types.attrsOf types.str)) [ ({ name }: { a = name; }) ({ other ? "o", ... }: { b = other; }) ] { name = "n"; })
  ];
  functionToBad = { error = merge (types.functionTo types.int) [ (x: "s") ] 1; match = [ "A definition for option `x.<function body>' is not of type `signed integer'." ]; };
  notFunction = { error = merge (types.functionTo types.int) [ 1 ]; match = [ "A definition for option `x' is not of type `function that evaluates to a(n) signed integer'." ]; };
  addCheck.expr = merge (types.addCheck types.int (x: x > 5)) [ 6 ];
  addCheckNot = { error = merge (types.addCheck types.int (x: x > 5)) [ 5 ]; match = [ "A definition for option `x' is not of type `signed integer'." "- In `file1': 5" ]; };
  ownType.expr = merge
    (types.mkOptionType or lib.mkOptionType {
      name = "sum";
      check = lib.isInt;
      merge = loc: defs: lib.foldl' (a: d: a + d.value) 0 defs;
    })
    [ 1 2 3 ];
  ownTypeLocation.expr = merge (lib.mkOptionType { name = "where"; merge = loc: defs: { inherit loc; files = lib.options.getFiles defs; values = lib.getValues defs; }; }) [ 1 2 ];

  priorities.expr = [
    (merge types.int [ 1 (mkDefault 2) ])
    (merge types.int [ 1 (mkForce 2) ])
    (merge types.int [ (mkDefault 1) (mkOptionDefault 2) ])
    (merge types.int [ (mkForce 1) (lib.mkVMOverride 2) ])
    (merge types.int [ (mkForce 1) (lib.mkImageMediaOverride 2) ])
    (merge types.int [ (lib.mkImageMediaOverride 1) 2 ])
    (merge types.int [ (mkOverride 99 1) 2 (mkOverride 101 3) ])
    (merge ints [ (mkForce [ 1 ]) [ 2 ] (mkForce [ 3 ]) ])
    (merge ints [ (mkDefault [ 1 ]) (mkDefault [ 2 ]) ])
    (merge ints [ (mkForce (mkBefore [ 1 ])) (mkForce [ 0 ]) [ 5 ] ])
  ];
  prioritySameConflict = { error = merge types.int [ (mkForce 1) (mkForce 2) ]; match = [ "The option `x' has conflicting definition values:" "- In `file1': 1" "- In `file2': 2" ]; };
  forceOverIf = { error = merge types.int [ (mkForce (mkIf true 3)) ]; match = [ "A definition for option `x' is not of type `signed integer'." "_type = \"if\"" ]; };
  orderOverForce = { error = merge ints [ (mkBefore (mkForce [ 3 ])) ]; match = [ "A definition for option `x' is not of type `list of signed integer'." "_type = \"override\"" ]; };

  conditions.expr = [
    (merge types.int [ (mkIf true 1) (mkIf false 2) ])
    (merge types.int [ (mkIf true (mkIf true 1)) (mkIf true (mkIf false 2)) ])
    (merge types.int [ (mkMerge [ (mkIf false 1) (mkMerge [ (mkDefault 2) (mkIf true 3) ]) ]) ])
    (merge types.int [ (mkIf true (mkForce 1)) (mkIf false (mkForce 2)) 3 ])
    (merge ints [ (mkIf true (mkAfter [ 2 ])) (mkMerge [ [ 1 ] [ 0 ] ]) ])
    (merge ints [ (mkMerge [ ]) [ 1 ] ])
  ];
  conditionLazy.expr = merge types.int [ (mkIf false (throw "never")) 1 ];
  unusedBroken.expr = merge types.int [ (mkForce 1) 1 (mkDefault (throw "never")) ];
  conditionNotBool = { error = merge types.int [ (mkIf "yes" 1) ]; match = [ "called with a non-Boolean condition" ]; };
  assertion.expr = merge types.int [ (lib.mkAssert true "x" 1) ];
  assertionFailed = { error = merge types.int [ (lib.mkAssert false "do not" 1) ]; match = [ "Failed assertion: do not" ]; };
  undefined = { error = merge types.int [ ]; match = [ "The option `x' " ]; };
  undefinedIf = { error = merge types.int [ (mkIf false 1) ]; match = [ "The option `x' " ]; };
  undefinedSubmodule = { error = merge (types.submodule { }) [ ]; match = [ "The option `x' " ]; };

  deferred.expr =
    let
      module = merge types.deferredModule [ { a = 1; } ({ config, ... }: { b = config.a + 1; }) ];
      result = lib.evalModules { modules = [ module { options.a = mkOption { type = types.int; }; options.b = mkOption { type = types.int; }; } ]; };
    in
    { inherit (result.config) a b; };
  deferredStatic.expr =
    let
      module = merge (types.deferredModuleWith { staticModules = [ { options.a = mkOption { default = 5; }; } ]; }) [ { options.b = mkOption { default = 6; }; } ];
    in
    { inherit (lib.evalModules { modules = [ module ]; }) config; };
  deferredError =
    {
      error = (lib.evalModules { modules = [ (merge types.deferredModule [ { a = 1; } ]) { options.a = mkOption { type = types.str; }; } ]; }).config.a;
      match = [ "A definition for option `a' is not of type `string'." "- In `file1, via option x': 1" ];
    };
}
