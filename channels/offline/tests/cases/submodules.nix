{ lib }:
let
  inherit (lib) mkDefault mkForce mkIf mkMerge mkOption types;

  eval = modules: lib.evalModules { inherit modules; };
  config = modules: (eval modules).config;

  site = { name, config, ... }: {
    options = {
      root = mkOption { type = types.path; default = "/srv/${name}"; };
      aliases = mkOption { type = types.listOf types.str; default = [ ]; };
      tls = mkOption { type = types.bool; default = false; };
      port = mkOption { type = types.port; };
      url = mkOption { type = types.str; };
    };
    config = {
      port = mkDefault (if config.tls then 443 else 80);
      url = "${if config.tls then "https" else "http"}://${name}:${toString config.port}";
    };
  };
  sites = { _file = "sites.nix"; options.sites = mkOption { type = types.attrsOf (types.submodule site); default = { }; }; };

  one = type: values: (config ([ { _file = "declaration"; options.x = mkOption { inherit type; }; } ] ++ lib.imap1 (i: x: { _file = "file${toString i}"; inherit x; }) values)).x;
  int = mkOption { type = types.int; };
in
{
  byName.expr = (config [ sites { sites.a = { }; sites."b.c" = { tls = true; aliases = [ "x" ]; }; } { sites.a.port = 8080; sites."b.c".aliases = [ "y" ]; } ]).sites;
  none.expr = (config [ sites ]).sites;
  priorities.expr = (config [
    sites
    { sites.a.tls = mkDefault true; sites.a.aliases = mkForce [ "only" ]; sites.b = mkIf false { tls = true; }; sites.c = mkMerge [ { tls = true; } { port = 1; } ]; }
    { sites.a.aliases = [ "other" ]; sites.c = mkIf true { port = mkForce 2; }; }
    { sites.d = mkForce { port = 3; }; }
    { sites.d = { port = 4; tls = true; }; }
  ]).sites;

  functionValue.expr = (config [ sites { sites.a = { name, lib, ... }: { aliases = [ (lib.toUpper name) ]; }; } { sites.a = { config, ... }: { imports = [ { tls = true; } ]; aliases = mkIf config.tls [ "tls" ]; }; } ]).sites.a;
  fileValue.expr = (one (types.submodule { options.numbers = mkOption { type = types.listOf types.int; }; }) [ ../modules/one.nix ../modules/folder { numbers = [ 3 ]; } ]).numbers;

  undeclared = { error = (config [ sites { _file = "mine"; sites.a.rot = "/x"; } ]).sites.a.root; match = [ "The option `sites.a.rot' does not exist. Definition values:" "- In `mine': \"/x\"" ]; };
  wrongType = { error = (config [ sites { _file = "mine"; sites.a.root = "x"; } ]).sites.a.root; match = [ "A definition for option `sites.a.root' is not of type" "- In `mine': \"x\"" ]; };
  notSet = { error = (one (types.submodule { options.a = int; }) [ { } ]).a; match = [ "The option `x.a' " ]; };
  conflict = { error = (config [ sites { _file = "one"; sites."a b".port = 1; } { _file = "two"; sites."a b".port = 2; } ]).sites."a b".port; match = [ "The option `sites.\"a b\".port' has conflicting definition values:" "- In `one': 1" "- In `two': 2" ]; };
  notModule = { error = one (types.submodule { }) [ 1 ]; match = [ "A definition for option `x' is not of type `submodule'." "- In `file1': 1" ]; };
  configUnderShorthand = { error = one (types.submodule { options.a = int; }) [ { config.a = 1; } ]; match = [ "The option `x.config' does not exist." "- In `file1':" ]; };
  noOptions = { error = one (types.submodule { }) [ { a = 1; } ]; match = [ "The option `x.a' does not exist." "However there are no options defined in `x'." ]; };

  inList.expr = one (types.listOf (types.submodule ({ name, ... }: { options.a = mkOption { default = 0; }; options.n = mkOption { default = name; }; }))) [ [ { a = 1; } { } ] [ { a = mkIf false 3; } ] ];
  inListError = { error = lib.head (one (types.listOf (types.submodule { options.a = int; })) [ [ { a = "x"; } ] ]); match = [ "A definition for option `x.\"[definition 1-entry 1]\".a' is not of type `signed integer'." ]; };
  inNullOr.expr = [ (one (types.nullOr (types.submodule { options.a = int; })) [ null ]) (one (types.nullOr (types.submodule { options.a = int; })) [ { a = 1; } { } ]) ];
  inEither.expr = map (v: one (types.either types.str (types.submodule { options.a = int; })) [ v ]) [ "x" { a = 1; } ];
  inCoerced.expr = map (v: one (types.coercedTo types.int (a: { inherit a; }) (types.submodule { options.a = int; options.b = mkOption { default = 2; }; })) [ v ]) [ 1 { a = 3; } ];
  inFunction.expr = (one (types.functionTo (types.submodule { options.a = int; options.b = mkOption { default = 2; }; })) [ (n: { a = n; }) (n: { b = n + 1; }) ]) 5;
  inLazy.expr = (one (types.lazyAttrsOf (types.submodule { options.a = mkOption { default = 1; }; })) [ { x = { }; y = mkIf false { }; } ]);
  inAnything.expr = one (types.attrsOf types.anything) [ { a.b = mkDefault 1; } { a.c = 2; } ];
  nested.expr = one (types.attrsOf (types.submodule ({ name, ... }: {
    options.inner = mkOption {
      default = { };
      type = types.attrsOf (types.submodule ({ name, ... }@inner: {
        options.path = mkOption { default = name; };
      }));
    };
    options.outer = mkOption { default = name; };
  }))) [ { a.inner.b = { }; } { a.inner.c.path = "own"; } { d = { }; } ];

  freeform.expr = [
    (one (types.submodule { freeformType = types.attrsOf types.str; options.port = mkOption { type = types.port; default = 1; }; }) [ { a = "x"; } { port = 2; b = mkForce "y"; } ])
    (one (types.submodule { freeformType = (types.attrsOf (types.oneOf [ types.str types.int (types.listOf types.str) ])); }) [ { a = "x"; b = [ "1" ]; } { b = [ "2" ]; c = 3; } ])
    (one (types.attrsOf (types.submodule ({ name, ... }: { freeformType = types.lazyAttrsOf types.raw; options.n = mkOption { default = name; }; }))) [ { q.z = 1; } ])
  ];
  freeformNested.expr = one (types.submodule { freeformType = types.attrsOf (types.attrsOf types.int); options.a.b = mkOption { type = types.int; default = 1; }; }) [ { a.c = 2; d.e = 3; } ];
  freeformWrong = { error = (one (types.submodule { freeformType = types.attrsOf types.int; }) [ { a = "x"; } ]).a; match = [ "A definition for option `x.a' is not of type `signed integer'." "- In `file1': \"x\"" ]; };
  freeformTypeMerged.expr = (config [
    { options.x = mkOption { type = types.submodule { freeformType = types.attrsOf (types.enum [ 1 ]); }; }; }
    { options.x = mkOption { type = types.submodule { freeformType = types.attrsOf (types.enum [ 2 ]); }; }; }
    { x.a = 1; x.b = 2; }
  ]).x;

  # Options of one submodule from several modules.
  extended.expr = (config [
    sites
    { options.sites = mkOption { type = types.attrsOf (types.submodule ({ config, ... }: { options.logs = mkOption { default = "${config.root}/logs"; }; })); }; }
    { sites.a.logs = mkIf false "x"; sites.b.root = "/b"; }
  ]).sites;
  extendedBelow.expr = (config [
    { options.s = mkOption { type = types.submodule { options.a = mkOption { default = 1; }; }; default = { }; }; }
    { options.s.b = mkOption { default = 2; }; }
    { options.s.c.d = mkOption { default = 3; }; }
    { s.c.d = 4; }
  ]).s;
  extendedTwice = {
    error = (config [
      { _file = "one"; options.s = mkOption { type = types.submodule { options.a = mkOption { default = 1; }; }; }; }
      { _file = "two"; options.s = mkOption { type = types.submodule { options.a = mkOption { default = 2; }; }; }; }
      { s = { }; }
    ]).s.a;
    match = [ "The option `s.a' in `" "is already declared in `" "one" "two" ];
  };
  wholeDefault.expr = map (v: (config ([ { options.s = mkOption { default = { a = 5; }; type = types.submodule { options.a = mkOption { default = 1; }; options.b = mkOption { default = 2; }; }; }; } ] ++ v)).s) [ [ ] [ { s.b = 3; } ] [ { s = { }; } ] ];
  optionDefaultOfPart.expr = (config [ { options.s = mkOption { type = types.submodule { options.a = mkOption { default = 1; }; config.a = lib.mkOptionDefault 1; }; default = { }; }; } ]).s;
  applyInside.expr = (config [ { options.s = mkOption { type = types.attrsOf (types.submodule { options.a = mkOption { apply = x: x + 1; }; }); apply = lib.attrValues; }; } { s.x.a = 1; s.y.a = 2; } ]).s;
  readOnlyInside = { error = (config [ { options.s = mkOption { type = types.submodule { options.a = mkOption { readOnly = true; default = 1; }; }; }; } { s.a = 2; } ]).s.a; match = [ "The option `s.a' is read-only, but it's set multiple times." ]; };
  outerConfig.expr = (config [ ({ config, ... }: { options.domain = mkOption { default = "example.org"; }; options.hosts = mkOption { type = types.attrsOf (types.submodule ({ name, ... }: { options.fqdn = mkOption { default = "${name}.${config.domain}"; }; })); }; }) { hosts.a = { }; domain = "test"; } ]).hosts;
  argsInside.expr = (config [ { options.s = mkOption { type = types.submodule ({ extra, ... }: { options.a = mkOption { default = extra; }; config._module.args.extra = 7; }); default = { }; }; } ]).s;
  optionsArgument.expr = (one (types.submodule ({ options, ... }: { options.a = mkOption { default = 0; }; options.set = mkOption { default = options.a.isDefined && options.a.highestPrio < 1500; }; })) [ { a = 1; } ]).set;
  importsInside.expr = (one (types.submodule { imports = [ { options.a = int; } ]; options.b = mkOption { default = 1; }; }) [ { a = 1; } ]);
  disabledInside.expr = (one (types.submodule { imports = [ ../modules/options.nix ../modules/one.nix ../modules/folder ]; }) [ { numbers = [ 3 ]; } ({ ... }: { disabledModules = [ ../modules/one.nix ]; }) ]).numbers;
  withArgs.expr = (one (types.submoduleWith { modules = [ ({ word, ... }: { options.a = mkOption { default = word; }; }) ]; specialArgs.word = "w"; }) [ { } ]).a;
  withModules.expr = [
    (one (types.submoduleWith { modules = [ { options.a = int; } ]; }) [ { config.a = 1; } ]).a
    (one (types.submoduleWith { modules = [ { options.a = int; } ]; }) [ { options.b = mkOption { default = 2; }; config.a = 1; } ]).b
  ];
  declaredArgs.expr = (config [
    { options.s = mkOption { type = types.submoduleWith { modules = [ ({ a, b, ... }: { options.sum = mkOption { default = a + b; }; }) ]; specialArgs.a = 1; }; default = { }; }; }
    { options.s = mkOption { type = types.submoduleWith { modules = [ ]; specialArgs.b = 2; }; }; }
  ]).s;
  declaredArgsTwice = {
    error = (config [
      { options.s = mkOption { type = types.submoduleWith { modules = [ ({ a, ... }: { options.v = mkOption { default = a; }; }) ]; specialArgs.a = 1; }; default = { }; }; }
      { options.s = mkOption { type = types.submoduleWith { modules = [ ]; specialArgs.a = 2; }; }; }
    ]).s.v;
    match = [ "A submoduleWith option is declared multiple times with the same specialArgs" ];
  };
  declaredShorthand = {
    error = (config [
      { options.s = mkOption { type = types.submoduleWith { modules = [ ]; shorthandOnlyDefinesConfig = true; }; default = { }; }; }
      { options.s = mkOption { type = types.submoduleWith { modules = [ ]; shorthandOnlyDefinesConfig = false; }; }; }
    ]).s;
    match = [ "A submoduleWith option is declared multiple times with conflicting shorthandOnlyDefinesConfig values" ];
  };
  nameOfPlain.expr = (one (types.submodule ({ name, ... }: { options.a = mkOption { default = name; }; })) [ { } ]).a;
  lazyParts.expr = (config [ sites { sites.a.root = throw "never"; sites.a.port = 1; } ]).sites.a.port;
  lazyWhole.expr = lib.attrNames (config [ sites { sites.a = { root = throw "never"; }; } ]).sites;

  # What a type tells about its parts.
  subOptions.expr =
    let o = (types.attrsOf (types.submodule site)).getSubOptions [ "sites" ];
    in { names = lib.attrNames (removeAttrs o [ "_module" ]); loc = o.root.loc; type = o.root.type.name; };
  subModules.expr = [ (lib.length (types.listOf (types.submodule site)).getSubModules) ((types.listOf types.int).getSubModules) ];
  files.expr = (eval [ { options.s = mkOption { type = types.submodule site; }; _file = "here.nix"; } ]).options.s.declarations;
  partsDeclaredIn.expr = ((eval [ { options.s = mkOption { type = types.submodule { options.a = int; }; }; _file = "here.nix"; } ]).options.s.type.getSubOptions [ ]).a.declarations;
}
