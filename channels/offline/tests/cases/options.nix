{ lib }:
let
  inherit (lib) mkOption types;
  pkgs = {
    hello = { type = "derivation"; name = "hello-1"; };
    python = { black = { type = "derivation"; name = "black-1"; }; };
  };
  tell = option: removeAttrs option [ "type" ] // {
    type = option.type.description;
    default = option.default.name or option.default or "none";
  };
in
{
  enable.expr = tell (lib.mkEnableOption "the thing");
  package.expr = map tell [
    (lib.mkPackageOption pkgs "hello" { })
    (lib.mkPackageOption pkgs [ "python" "black" ] { extraDescription = "More."; })
    (lib.mkPackageOption pkgs "hello" { nullable = true; })
    (lib.mkPackageOption pkgs "tool" { default = [ "python" "black" ]; example = "tool2"; })
    (lib.mkPackageOption pkgs "hello" { nullable = true; default = null; })
    (lib.mkPackageOption pkgs "hello" { example = [ "python" "black" ]; pkgsText = "myPkgs"; })
  ];
  packageRequired.expr = (lib.mkPackageOption pkgs "hello" { default = null; }) ? default;
  packageMissing = { error = (lib.mkPackageOption pkgs "nope" { }).default; match = [ "nope cannot be found in pkgs" ]; };
  texts.expr = [ (lib.literalExpression "1 + 1") (lib.literalMD "*x*") ];
  textNoString = { error = lib.literalExpression 1; match = [ "literalExpression expects a string." ]; };
  isOption.expr = map lib.isOption [ (mkOption { }) { } 1 ];
  isOptionType.expr = map lib.isOptionType [ types.int { } 1 ];
  isType.expr = [ (lib.isType "x" { _type = "x"; }) (lib.isType "x" { }) (lib.isType "x" 1) (lib.setType "x" { a = 1; }) ];

  showOption.expr = map lib.showOption [ [ "a" "b" ] [ "a" "b c" "d.e" ] [ "a" "<name>" "*" "<function body>" ] [ ] [ "1a" ] [ "[definition 1-entry 2]" ] ];
  showFiles.expr = [ (lib.showFiles [ "a" ]) (lib.showFiles [ "a" "b" ]) ];
  showDefs.expr = map (value: lib.options.showDefs [ { file = "f"; inherit value; } ]) [ 1 "x" "a\nb" [ 1 2 ] { a = 1; } { a = throw "never"; } (throw "never") (x: x) [ 1 2 3 4 5 6 ] ];
  getters.expr = [ (lib.getValues [ { value = 1; } ]) (lib.getFiles or lib.options.getFiles [ { file = "a"; } ]) ];
  mergers.expr =
    let defs = map (value: { file = "f"; inherit value; });
    in [
      (lib.mergeEqualOption [ "x" ] (defs [ 1 1 ]))
      (lib.mergeOneOption [ "x" ] (defs [ 1 ]))
      (lib.mergeDefaultOption [ "x" ] (defs [ [ 1 ] [ 2 ] ]))
      (lib.mergeUniqueOption { message = "m"; } [ "x" ] (defs [ 1 ]))
    ];
  mergeOneTwice = { error = lib.mergeOneOption [ "x" ] [ { file = "a"; value = 1; } { file = "b"; value = 2; } ]; match = [ "The option `x' is defined multiple times while it's expected to be unique." "- In `a': 1" "- In `b': 2" ]; };

  properties.expr = [
    (lib.mkIf true 1)
    (lib.mkMerge [ 1 ])
    (lib.mkOverride 5 1)
    (lib.mkForce 1)
    (lib.mkDefault 1)
    (lib.mkOptionDefault 1)
    (lib.mkVMOverride 1)
    (lib.mkImageMediaOverride 1)
    (lib.mkBefore 1)
    (lib.mkAfter 1)
    (lib.mkOrder 3 1)
    lib.modules.defaultOverridePriority
    lib.modules.defaultOrderPriority
  ];
  mergeDefinitions.expr =
    let m = lib.mergeDefinitions [ "x" ] types.int [ { file = "a"; value = lib.mkDefault 1; } { file = "b"; value = lib.mkIf true 2; } ];
    in { inherit (m) mergedValue isDefined optionalValue defsFinal; };

  # How types call themselves, alone and within others.
  names.expr =
    let
      parts = with types; [
        bool int float number str nonEmptyStr lines commas envVar package attrs anything raw unspecified port
        (enum [ "a" 1 true ]) (enum [ "a" ]) (enum [ ]) (strMatching "x+") ints.unsigned ints.positive ints.u8
        (ints.between 1 2) (numbers.between 0 1) numbers.positive (submodule { }) deferredModule optionType
        (separatedString " ") (separatedString "") (functionTo int) (passwdEntry str) (uniq int) boolByOr
        (submoduleWith { modules = [ ]; description = "thing"; })
        (addCheck int (x: true)) shellPackage
      ];
    in
    {
      alone = map (t: t.description) parts;
      nullOr = map (t: (types.nullOr t).description) parts;
      listOf = map (t: (types.listOf t).description) parts;
      attrsOf = map (t: (types.attrsOf t).description) parts;
      lazyAttrsOf = map (t: (types.lazyAttrsOf t).description) parts;
      left = map (t: (types.either t types.int).description) parts;
      right = map (t: (types.either types.int t).description) parts;
      function = map (t: (types.functionTo t).description) parts;
      coerced = map (t: (types.coercedTo types.bool lib.id t).description) parts;
      deep = map (t: (types.listOf (types.nullOr (types.attrsOf t))).description) parts;
      nonEmpty = map (t: (types.nonEmptyListOf t).description) parts;
      short = map (t: t.name) (with types; [ bool int str (listOf int) (attrsOf int) (nullOr int) (either int str) (enum [ ]) (submodule { }) lines anything raw package path port (coercedTo int toString str) ]);
    };
  nested.expr = {
    list = (types.listOf types.int).nestedTypes.elemType.name;
    either = lib.mapAttrs (_: t: t.name) (types.either types.int types.str).nestedTypes;
  };
  empty.expr = map (t: t.emptyValue) (with types; [ (listOf int) (attrsOf int) attrs (nullOr int) int (submodule { }) (nonEmptyListOf int) ]);
}
