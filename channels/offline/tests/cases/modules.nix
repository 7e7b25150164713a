# Loading modules, matching definitions with declarations, and what a module can
# ask for.
{ lib }:
let
  inherit (lib) mkDefault mkForce mkIf mkMerge mkOption types;

  eval = modules: lib.evalModules { inherit modules; };
  config = modules: (eval modules).config;
  int = mkOption { type = types.int; };
  ints = mkOption { type = types.listOf types.int; default = [ ]; };
  base = { _file = "base"; options.x = ints; };
in
{
  # Order of definitions: later modules first, and imports before their importers.
  order.expr = [
    (config [ base { x = [ 1 ]; } { x = [ 2 ]; } ]).x
    (config [ base { x = [ 1 ]; imports = [ { x = [ 11 ]; } { x = [ 12 ]; imports = [ { x = [ 121 ]; } ]; } ]; } { x = [ 2 ]; imports = [ { x = [ 21 ]; } ]; } ]).x
    (config [ { options.x = ints // { default = [ 0 ]; }; } { x = lib.mkOptionDefault [ 1 ]; } ]).x
    (config [ base { config = mkMerge [ { x = [ 1 ]; } (mkIf true { x = [ 2 ]; }) { x = [ 3 ]; } ]; } ]).x
  ];

  shorthand.expr = [
    (config [ base { x = [ 1 ]; } ]).x
    (config [ base { config.x = [ 1 ]; } ]).x
    (config [ base { config = mkIf true { x = [ 1 ]; }; } ]).x
    (config [ base (mkIf true { x = [ 1 ]; }) ]).x
    (config [ base (mkForce { x = [ 1 ]; }) { x = [ 2 ]; } ]).x
    (config [ base (mkIf false { x = [ 1 ]; }) ]).x
    (config [ base ({ ... }: { x = [ 1 ]; }) ]).x
    (config [ base { require = [ { x = [ 1 ]; } ]; } ]).x
  ];
  meta.expr = (config [ { options.meta.owner = mkOption { }; } base { meta.owner = "me"; config.x = [ 1 ]; } ]).meta.owner;
  mixedShorthand = {
    error = (config [ base { _file = "mine"; options.y = int; x = [ 1 ]; } ]).x;
    match = [ "has an unsupported attribute `x'. This is caused by introducing a top-level `config' or `options' attribute." ];
  };

  functors.expr = (config [ base { __functor = _: { lib, ... }: { x = [ 1 ]; }; __functionArgs = { lib = false; }; } ]).x;

  # Modules in files.
  files.expr = (config [ ../modules/options.nix ../modules/one.nix ../modules/folder ]).numbers;
  filesAsStrings.expr = (config [ (toString ../modules/options.nix) (toString ../modules/one.nix) ]).numbers;
  filesOnce.expr = (config [
    ../modules/options.nix
    ../modules/options.nix
    ../modules/one.nix
    { imports = [ ../modules/one.nix ../modules/folder ../modules/folder/../one.nix ]; }
  ]).numbers;
  keysOnce.expr = (config [ base { key = "k"; x = [ 1 ]; } { imports = [ { key = "k"; x = [ 1 ]; } ]; } ]).x;
  sameTwice.expr = let m = { x = [ 1 ]; }; in (config [ base m m ]).x;
  disabled.expr = [
    (config [ ../modules/options.nix ../modules/one.nix ../modules/folder { disabledModules = [ ../modules/one.nix ]; } ]).numbers
    (config [ ../modules/options.nix ../modules/one.nix { disabledModules = [ (toString ../modules/one.nix) ]; } ]).numbers
    (config [ ../modules/options.nix ../modules/folder { disabledModules = [ ../modules/folder ]; } ]).numbers
    (config [ ../modules/options.nix { imports = [ { imports = [ ../modules/one.nix ]; } ]; } { disabledModules = [ ../modules/one.nix ]; } ]).numbers
    (config [ base { key = "k"; x = [ 1 ]; } { disabledModules = [ { key = "k"; } ]; } { x = [ 2 ]; } ]).x
    (lib.evalModules { modules = [ ../modules/options.nix ../modules/one.nix { disabledModules = [ "one.nix" ]; } ]; specialArgs.modulesPath = toString ../modules; }).config.numbers
  ];
  disabledReplaced.expr = (config [ ../modules/options.nix ../modules/one.nix { disabledModules = [ ../modules/options.nix ]; options.numbers = mkOption { type = types.listOf types.int; apply = map (n: n * 100); }; } ]).numbers;
  disabledUnknown = { error = config [ base { _file = "mine"; disabledModules = [ { } ]; } ]; match = [ "mine" "disabledModules item" "does not have a `key" ]; };
  fileInErrors = { error = (config [ ../modules/options.nix ../modules/wrong.nix ]).numbers; match = [ "A definition for option `numbers' is not of type `list of signed integer'." "modules/wrong.nix': \"not a list\"" ]; };
  ownFileInErrors = { error = (config [ ../modules/options.nix { _file = "provision.nix"; numbers = 1; } ]).numbers; match = [ "- In `provision.nix': 1" ]; };
  inheritedFileInErrors = { error = (config [ ../modules/options.nix { _file = "provision.nix"; imports = [ { numbers = 1; } ]; } ]).numbers; match = [ "- In `provision.nix': 1" ]; };
  defaultLocation = { error = (config [ ../modules/options.nix (lib.setDefaultModuleLocation "somewhere" { numbers = 1; }) ]).numbers; match = [ "- In `somewhere': 1" ]; };
  functionFile = { error = (config [ ../modules/options.nix ({ lib, ... }: { _file = "in-function"; numbers = lib.id 1; }) ]).numbers; match = [ "- In `in-function': 1" ]; };

  # Arguments.
  arguments.expr =
    (lib.evalModules {
      specialArgs.special = [ 1 ];
      modules = [
        base
        { _module.args.fromArgs = [ 2 ]; }
        ({ special, ... }: { x = special; })
        ({ fromArgs, ... }: { x = fromArgs; })
        ({ config, options, lib, ... }: { x = lib.optional (config.y && options ? x) 3; })
        { options.y = mkOption { default = true; }; }
        ({ specialArgs, ... }: { x = map (n: n + 10) specialArgs.special; })
        ({ special, ... }: { imports = lib.optional (special == [ 1 ]) { x = [ 5 ]; }; })
        (args: { x = lib.optional (args ? config) 6; })
        (args@{ fromArgs, ... }: { x = map (n: n * 7) args.fromArgs; })
      ];
    }).config.x;
  argumentUnused.expr = (config [ base ({ nowhere, ... }: { x = [ 1 ]; }) ]).x;
  argumentMissing = { error = (config [ base ({ nowhere, ... }: { x = nowhere; }) ]).x; match = [ "attribute 'nowhere' missing" ]; };
  argumentFromConfig.expr = (config [ base { options.y = mkOption { default = 4; }; } ({ config, ... }: { _module.args.z = config.y; }) ({ z, ... }: { x = [ z ]; }) ]).x;
  argumentTwice = { error = (config [ base { _module.args.z = 1; } { _module.args.z = 2; } ({ z, ... }: { x = [ z ]; }) ]).x; match = [ "The option `_module.args.z' is defined multiple times while it's expected to be unique." ]; };

  # Laziness: conditions on the configuration, broken values that nobody asks for.
  conditionOnConfig.expr = (config [
    { options.a.enable = mkOption { default = false; }; options.b = int; options.c = int; }
    ({ config, ... }: { config = mkIf config.a.enable { b = 1; c = mkIf (config.b == 1) 2; }; })
    ({ config, ... }: mkIf (config.b == 3) { c = 4; })
    { b = mkDefault 3; }
  ]).c;
  conditionTwoLevels.expr = (config [
    { options.a.b.c = mkOption { default = true; }; options.a.b.d = int; options.a.e = int; }
    ({ config, ... }: { a = mkIf config.a.b.c { b = mkIf (config.a.e == 2) { d = 1; }; }; })
    ({ config, ... }: { config = mkMerge [ (mkIf config.a.b.c { a.e = 2; }) (mkIf (!config.a.b.c) { a.e = 3; }) ]; })
  ]).a;
  brokenElsewhere.expr = (config [ base { options.y = int; config.y = throw "never"; config.x = [ 1 ]; } { options.z = mkOption { default = throw "never"; }; } ]).x;
  brokenDefault.expr = (config [ { options.y = mkOption { default = throw "never"; }; } { y = 1; } ]).y;
  brokenType.expr = (config [ base { options.y = mkOption { type = throw "never"; }; } ]).x;
  forceWholeSet.expr = (config [ { options.a.b = int; options.a.c = int; } { a = mkForce { b = 1; c = 2; }; } { a.b = 3; } { a = mkDefault { c = 9; }; } ]).a;

  # What no module declares.
  undeclared = { error = (config [ base { _file = "mine"; y = 1; } ]).x; match = [ "The option `y' does not exist. Definition values:" "- In `mine': 1" ]; };
  undeclaredNested = { error = (config [ { options.a.b.c = int; } { _file = "mine"; a.b.d = [ 1 ]; } ]).a; match = [ "The option `a.b.d' does not exist. Definition values:" "- In `mine':" ]; };
  undeclaredQuoted = { error = (config [ base { _file = "mine"; "a b".c = 1; } ]).x; match = [ "The option `\"a b\"' does not exist." ]; };
  undeclaredIf = { error = (config [ base { _file = "mine"; y = mkIf false 1; } ]).x; match = [ "The option `y' does not exist." "mine" ]; };
  undeclaredBroken = { error = (config [ base { _file = "mine"; y = throw "inner"; } ]).x; match = [ "The option `y' does not exist. Definition values:" "- In `mine'" ]; };
  undeclaredNoOptions = { error = (config [ { _file = "mine"; y = 1; } ]).x; match = [ "The option `y' does not exist." "It seems as if you're trying to declare an option by placing it into `config' rather than `options'!" ]; };
  undeclaredPrefix = { error = (lib.evalModules { prefix = [ "over" "there" ]; modules = [ base { y = 1; } ]; }).config.x; match = [ "The option `over.there.y' does not exist." ]; };
  undeclaredOptions = { error = (eval [ base { y = 1; } ]).options.x.value; match = [ "The option `y' does not exist." ]; };
  unchecked.expr = (config [ base { _module.check = false; y = 1; x = [ 2 ]; } ]).x;
  setBelowOption = { error = (config [ { options.a = int; } { _file = "mine"; a.b = 1; } ]).a; match = [ "A definition for option `a' is not of type `signed integer'." "- In `mine':" ]; };
  valueForGroup = { error = (config [ { options.a.b = int; } { _file = "mine"; a = 1; } ]).a; match = [ "In module `mine', you're trying to define a value of type `int' rather than an attribute set for the option `a'!" ]; };
  configNoSet = { error = (config [ base { _file = "mine"; config = [ ]; } ]).x; match = [ "In module `mine', you're trying to define a value of type `list'" ]; };

  # Freeform.
  freeform.expr = [
    (config [ { freeformType = types.attrsOf types.int; options.a = int; } { a = 1; b = 2; } ])
    (config [ { _module.freeformType = types.attrsOf types.int; } { b = mkForce 2; } { b = 3; } ])
    (config [ { freeformType = types.attrsOf (types.attrsOf types.int); options.a.b = int; } { a.b = 1; a.c = 2; d.e = mkIf true 3; d.f = mkIf false 3; } ])
    (config [ { freeformType = types.lazyAttrsOf types.raw; options.a = mkOption { default = 1; }; } ({ config, ... }: { b = config.a + 1; }) ])
  ];
  freeformType = { error = (config [ { freeformType = types.attrsOf types.int; } { _file = "mine"; b = "x"; } ]).b; match = [ "A definition for option `b' is not of type `signed integer'." "- In `mine': \"x\"" ]; };

  # Things that are no modules.
  importsNested = { error = config [ [ base ] ]; match = [ "Module imports can't be nested lists. Perhaps you meant to remove one level of lists?" ]; };
  importOfTagged = { error = config [ { _type = "flake"; } ]; match = [ "Could not load a value as a module, because it is of type \"flake\"" ]; };
  functionOfNumber = { error = config [ ({ ... }: 1) ]; match = [ "does not look like a module." ]; };

  # Declarations.
  declaredTwice = {
    error = (config [ { _file = "one"; options.a = mkOption { default = 1; }; } { _file = "two"; options.a = mkOption { default = 2; }; } ]).a;
    match = [ "The option `a' in `" "is already declared in `" ];
  };
  declaredTypes = {
    error = (config [ { options.a = mkOption { type = types.int; }; } { options.a = mkOption { type = types.str; }; } { a = 1; } ]).a;
    match = [ "The option `a' in `" "is already declared in `" ];
  };
  declaredParts.expr = (config [ { options.a = mkOption { type = types.int; }; } { options.a = mkOption { default = 2; }; } { options.a = mkOption { description = "x"; }; } ]).a;
  declaredEnum.expr = (config [ { options.a = mkOption { type = types.enum [ "x" ]; }; } { options.a = mkOption { type = types.enum [ "y" ]; }; } { a = "y"; } ]).a;
  declaredCollections.expr = config [
    { options.a = mkOption { type = types.listOf (types.enum [ 1 ]); }; options.b = mkOption { type = types.nullOr (types.enum [ 1 ]); }; options.c = mkOption { type = types.attrsOf (types.either types.str (types.enum [ 1 ])); }; }
    { options.a = mkOption { type = types.listOf (types.enum [ 2 ]); }; options.b = mkOption { type = types.nullOr (types.enum [ 2 ]); }; options.c = mkOption { type = types.attrsOf (types.either types.str (types.enum [ 2 ])); }; }
    { a = [ 1 2 ]; b = 2; c.x = 2; }
  ];
  declaredSeparators = { error = (config [ { options.a = mkOption { type = types.lines; }; } { options.a = mkOption { type = types.commas; }; } { a = "x"; } ]).a; match = [ "is already declared in `" ]; };
  parentOfOption = {
    error = (config [ { _file = "one"; options.a = mkOption { type = types.str; }; } { _file = "two"; options.a.b = int; } ]).a;
    match = [ "The option `a' in module `one' would be a parent of the following options, but its type `string' does not support nested options." "option(s) with prefix `a.b' in module `two'" ];
  };
  typeInsteadOfOption = { error = (config [ { _file = "mine"; options.a = types.int; } ]).a; match = [ "In module mine: expected an option declaration at option path `a` but got an attribute set with type option-type" "a = lib.mkOption {" ]; };
  textInsteadOfOption = { error = (config [ { options.a = "x"; } ]).a; match = [ "An option declaration for `a' has type `string' rather than an attribute set." ]; };

  # Options' attributes.
  apply.expr = (config [ { options.a = mkOption { type = types.int; apply = x: x * 2; default = 2; }; options.b = mkOption { type = types.listOf types.int; apply = builtins.length; }; } { b = [ 1 ]; } { b = [ 2 ]; } ]);
  applyDiffers.expr = let r = eval [ { options.a = mkOption { apply = x: "<${x}>"; }; } { a = "x"; } ]; in [ r.config.a r.options.a.value r.options.a.definitions ];
  readOnly.expr = (config [ { options.a = mkOption { readOnly = true; default = 1; }; options.b = mkOption { readOnly = true; }; } { b = 2; } ]);
  readOnlyDefault = {
    error = (config [ { _file = "one"; options.a = mkOption { readOnly = true; default = 1; }; } { _file = "two"; a = 2; } ]).a;
    match = [ "The option `a' is read-only, but it's set multiple times. Definition values:" "- In `one': 1" "- In `two': 2" ];
  };
  readOnlyTwice = { error = (config [ { options.a = mkOption { readOnly = true; type = types.listOf types.int; }; } { a = [ 1 ]; } { a = [ 2 ]; } ]).a; match = [ "The option `a' is read-only, but it's set multiple times." ]; };
  wrongDefault = { error = (config [ { _file = "mine"; options.a = mkOption { type = types.int; default = "x"; }; } ]).a; match = [ "A definition for option `a' is not of type `signed integer'." "- In `mine': \"x\"" ]; };
  missing = { error = (config [ { options.a = int; } ]).a; match = [ "The option `a' " ]; };

  # What evalModules tells.
  options.expr =
    let
      o = (eval [ { _file = "one"; options.a.b = mkOption { type = types.int; default = 1; description = "text"; }; } { _file = "two"; a.b = mkForce 2; } { _file = "three"; a.b = 3; } ]).options.a.b;
    in
    {
      inherit (o) value isDefined definitions files highestPrio loc declarations description definitionsWithLocations default;
      text = toString o;
      type = o.type.name;
      isOption = lib.isOption o;
    };
  optionsUndefined.expr =
    let o = (eval [ { options.a = mkOption { type = types.int; }; } { a = mkIf false 1; } ]).options.a;
    in { inherit (o) isDefined definitions files; };
  optionsPriority.expr = map (modules: (eval ([ { options.a = mkOption { type = types.int; default = 1; }; } ] ++ modules)).options.a.highestPrio) [ [ ] [ { a = 1; } ] [ { a = mkDefault 1; } ] [ { a = mkForce 1; } ] ];
  groups.expr = let r = eval [ { options.a.b = int; options.c = int; } ]; in [ (builtins.attrNames (removeAttrs r.options [ "_module" ])) (builtins.attrNames r.options.a) (builtins.attrNames r.config) ];
  extend.expr =
    let r = eval [ base { x = [ 1 ]; } ];
    in [ (r.extendModules { modules = [ { x = [ 2 ]; } ]; }).config.x r.config.x (r.extendModules { specialArgs.q = [ 3 ]; modules = [ ({ q, ... }: { x = q; }) ]; }).config.x ];
  asType.expr = (config [ { options.sub = mkOption { inherit (eval [ base { x = [ 1 ]; } ]) type; }; } { sub.x = [ 2 ]; } ]).sub;
  extendInside.expr = (config [ base { options.y = mkOption { }; options.z = mkOption { default = 0; }; } ({ extendModules, config, ... }: { x = [ 1 ]; y = if config.z == 1 then 0 else (extendModules { modules = [ { z = mkForce 1; x = [ 5 ]; } ]; }).config.x; }) ]).y;
  mergedSpecialArgs.expr = (lib.evalModules { specialArgs = { lib = lib // { ours = 5; }; }; modules = [ base ({ lib, ... }: { x = [ lib.ours ]; }) ]; }).config.x;
  checkModule.expr = (eval [ base ])._module.check;

  # Definitions taken over by another option.
  alias.expr = config [
    { options.a = ints; options.b = ints; options.c = ints; options.d = mkOption { }; }
    ({ options, ... }: { b = lib.mkAliasDefinitions options.a; c = lib.modules.mkAliasIfDef options.a [ 7 ]; d = lib.modules.mkDerivedConfig options.a (map (n: n + 1)); })
    { a = [ 1 ]; }
    { a = lib.mkBefore [ 0 ]; }
  ];
  aliasUnset.expr = (config [ { options.a = ints; options.b = int; } ({ options, ... }: { a = mkMerge [ (lib.mkAliasDefinitions options.b) [ 1 ] ]; }) ]).a;
  aliasWrapped.expr = (config [ { options.a = ints; options.s.b = ints; } ({ options, ... }: lib.mkAliasAndWrapDefinitions (lib.setAttrByPath [ "s" "b" ]) options.a) { a = [ 1 ]; } ]).s.b;
  sink.expr = builtins.attrNames (config [ { options.a = lib.mkSinkUndeclaredOptions { }; options.b = int; } { a.x.y = 1; b = 2; } ]);
  sinkRead = { error = (config [ { options.a = lib.mkSinkUndeclaredOptions { }; } { a.x.y = 1; } ]).a; match = [ "Option value is not readable because the option is not declared." ]; };
  importJSON.expr = (config [ { options.a = mkOption { }; options.b.c = mkOption { }; } (lib.modules.importJSON ../modules/data.json) ]);
}
