{ lib }:
let
  inherit (lib) generators;
  sections = {
    "a [b]" = { x = 1; y = true; "k=v" = "w"; };
    none = { };
    other = { float = 1.5; path = "/x y"; nothing = null; };
  };
in
{
  values.expr = map (generators.mkValueStringDefault { }) [ 1 "x" true false null 1.5 ];
  valueList = { error = generators.mkValueStringDefault { } [ 1 ]; match = [ "generators.mkValueStringDefault: " " not supported: [" ]; };
  valueSet = { error = generators.mkValueStringDefault { } { a = 1; }; match = [ "generators.mkValueStringDefault: " " not supported: {" ]; };
  valueFunction = { error = generators.mkValueStringDefault { } (x: x); match = [ "generators.mkValueStringDefault: functions" " not supported: <function>" ]; };

  keyValue.expr = {
    default = generators.mkKeyValueDefault { } "=" "a=b" "c=d";
    other = generators.mkKeyValueDefault { mkValueString = v: "<${toString v}>"; } ": " "a" 1;
    file = generators.toKeyValue { } { b = 1; a = "x"; };
    none = generators.toKeyValue { } { };
    lists = generators.toKeyValue { listsAsDuplicateKeys = true; } { a = [ 1 2 ]; b = 3; };
    indent = generators.toKeyValue { indent = "  "; } { a = 1; };
    spaced = generators.toKeyValue { mkKeyValue = generators.mkKeyValueDefault { } " "; } { "host all" = "trust"; };
  };

  ini.expr = {
    plain = generators.toINI { } sections;
    lists = generators.toINI { listsAsDuplicateKeys = true; } { s.k = [ "a" "b" ]; };
    none = generators.toINI { } { };
    names = generators.toINI { mkSectionName = lib.toUpper; } { s.k = 1; };
    global = generators.toINIWithGlobalSection { } { globalSection.g = 1; sections.s.k = 2; };
    onlyGlobal = generators.toINIWithGlobalSection { } { globalSection.g = 1; };
    noGlobal = generators.toINIWithGlobalSection { } { globalSection = { }; sections.s.k = 2; };
  };

  data.expr = {
    json = generators.toJSON { } { a = [ 1 null ]; b = "x"; };
    yaml = generators.toYAML { } { a = 1; };
  };

  pretty.expr = generators.toPretty { } {
    list = [ 1 (-2) 2.5 null true "x" [ ] { } ];
    "quoted name" = "\"q\" \\ \${x} \t";
    lines = "a\n  b\n''c\${d}\n";
    open = "a\nb";
    newline = "\n";
    empty = "";
    functions = [ (x: x) ({ a, b ? 1, ... }: a) { __functor = _: x: x; } ];
    package = { type = "derivation"; name = "p-1"; };
    nested.deep = [ { a = 1; } ];
  };
  prettyLine.expr = generators.toPretty { multiline = false; } { a = [ 1 "x\ny" ]; b.c = { }; };
  prettyIndent.expr = generators.toPretty { indent = "    "; } { a = [ 1 ]; };
  prettyOwn.expr = generators.toPretty { allowPrettyValues = true; } { a = { __pretty = v: "<<${v}>>"; val = "x"; }; };
  recursion.expr = generators.toPretty { } (generators.withRecursion { depthLimit = 1; throwOnDepthLimit = false; } { a.b.c.d = 1; l = [ [ [ 1 ] ] ]; });
  recursionLimit = {
    error = generators.withRecursion { depthLimit = 1; } { a.b.c = 1; };
    match = [ "Exceeded maximum eval-depth limit of 1 while trying to evaluate with `generators.withRecursion'!" ];
  };
}
