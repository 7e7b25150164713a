{ lib }:
let
  inherit (lib) mkDefault mkForce mkIf mkOption types;

  base = {
    options.warnings = mkOption { type = types.listOf types.str; default = [ ]; };
    options.assertions = mkOption { type = types.listOf types.raw; default = [ ]; };
    options.new.name = mkOption { type = types.listOf types.int; default = [ ]; };
    options.new.flag = mkOption { type = types.bool; default = false; };
    options.new.text = mkOption { type = types.str; default = "unset"; };
    options.new.sites = mkOption { type = types.attrsOf (types.submodule { options.a = mkOption { default = 1; }; }); default = { }; };
  };
  config = modules: (lib.evalModules { modules = [ base ] ++ modules; }).config;
  mine = values: { _file = "mine"; config = values; };

  renamed = lib.mkRenamedOptionModule [ "old" "name" ] [ "new" "name" ];
  flag = lib.mkRenamedOptionModule [ "flag" ] [ "new" "flag" ];
in
{
  renamed.expr = map (values: let c = config ([ renamed ] ++ map mine values); in { inherit (c) warnings; new = c.new.name; old = c.old.name; }) [
    [ ]
    [ { old.name = [ 1 ]; } ]
    [ { old.name = [ 1 ]; } { new.name = [ 2 ]; } ]
    [ { old.name = mkForce [ 1 ]; } { new.name = [ 2 ]; } ]
    [ { old.name = mkDefault [ 1 ]; } { new.name = [ 2 ]; } ]
    [ { old.name = mkIf false [ 1 ]; } ]
    [ { old.name = [ 1 ]; } { old.name = lib.mkBefore [ 0 ]; } ]
  ];
  renamedWrongType = { error = (config [ flag (mine { flag = "x"; }) ]).new.flag; match = [ "A definition for option `" "' is not of type `boolean'." "\"x\"" ]; };
  renamedConflict = { error = (config [ flag (mine { flag = true; new.flag = false; }) ]).new.flag; match = [ "The option `new.flag' has conflicting definition values:" ]; };
  renamedNowhere = { error = (config [ (lib.mkRenamedOptionModule [ "a" ] [ "no" "where" ]) (mine { a = 1; }) ]).new.flag; match = [ "The option `no" "does not exist" ]; };
  renamedRelease.expr = map (sinceRelease: let c = config [ (lib.mkRenamedOptionModuleWith { inherit sinceRelease; from = [ "old" ]; to = [ "new" "name" ]; }) (mine { old = [ 1 ]; }) ]; in { inherit (c) warnings; new = c.new.name; }) [ 2305 9905 ];
  renamedGroup.expr = (config [ (lib.mkRenamedOptionModule [ "old" ] [ "new" "sites" ]) (mine { old.x = { a = 2; }; }) (mine { new.sites.y = { }; }) ]).new.sites;
  chained.expr = let c = config [ (lib.mkRenamedOptionModule [ "b" ] [ "new" "flag" ]) (lib.mkRenamedOptionModule [ "a" ] [ "b" ]) (mine { a = true; }) ]; in [ c.new.flag (lib.sort lib.lessThan c.warnings) ];
  noWarningsOption.expr = (lib.evalModules { modules = [ { options.b = mkOption { type = types.int; }; } (lib.mkRenamedOptionModule [ "a" ] [ "b" ]) { a = 1; } ]; }).config.b;

  alias.expr = let c = config [ (lib.mkAliasOptionModule [ "short" ] [ "new" "name" ]) (mine { short = [ 1 ]; }) (mine { new.name = [ 2 ]; }) ]; in [ c.short c.new.name c.warnings ];
  aliasPriority.expr = (config [ (lib.mkAliasOptionModule [ "short" ] [ "new" "text" ]) (mine { short = mkForce "a"; new.text = "b"; }) ]).new.text;
  aliasVisible.expr = (lib.evalModules { modules = [ base renamed (lib.mkAliasOptionModule [ "short" ] [ "new" "name" ]) ]; }).options.short.visible;
  renamedHidden.expr = (lib.evalModules { modules = [ base renamed ]; }).options.old.name.visible;
  doRename.expr = let c = config [ (lib.doRename { from = [ "f" ]; to = [ "new" "text" ]; visible = false; warn = false; use = x: "<${x}>"; withPriority = false; }) (mine { f = mkForce "a"; }) ]; in [ c.f c.new.text ];

  doRenameCondition.expr = map (condition: let c = config [ (lib.doRename { from = [ "f" ]; to = [ "new" "text" ]; visible = false; warn = true; use = lib.id; inherit condition; }) (mine { f = "a"; }) ]; in [ c.new.text c.warnings ]) [ true false ];

  removed.expr = map (values: (config ([ (lib.mkRemovedOptionModule [ "gone" "x" ] "Use `new.name' instead.") ] ++ map mine values)).assertions) [ [ ] [ { gone.x = 1; } ] [ { gone.x = mkIf false 1; } ] ];
  removedRead = { error = (config [ (lib.mkRemovedOptionModule [ "gone" "x" ] "Use `new.name' instead.") ]).gone.x; match = [ "The option `gone.x' " ]; };
  removedReadSet = { error = (config [ (lib.mkRemovedOptionModule [ "gone" "x" ] "Use `new.name' instead.") (mine { gone.x = 1; }) ]).gone.x; match = [ "The option `gone.x' can no longer be used since it's been removed. Use `new.name' instead." ]; };

  changed.expr = map (values: let c = config ([ (lib.mkChangedOptionModule [ "old" "text" ] [ "new" "flag" ] (config: lib.getAttrFromPath [ "old" "text" ] config == "yes")) ] ++ map mine values); in [ c.new.flag c.warnings ]) [
    [ ]
    [ { old.text = "yes"; } ]
    [ { old.text = "no"; } ]
    [ { old.text = "yes"; new.flag = mkForce false; } ]
  ];
  merged.expr = map (values: let c = config ([ (lib.mkMergedOptionModule [ [ "a" "low" ] [ "a" "high" ] ] [ "new" "name" ] (config: [ (lib.getAttrFromPath [ "a" "low" ] config) ])) ] ++ map mine values); in [ c.new.name (lib.sort lib.lessThan c.warnings) ]) [
    [ ]
    [ { a.low = 1; } ]
    [ { a.low = 1; a.high = 2; } ]
  ];
}
