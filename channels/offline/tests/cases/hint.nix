# evalModules' own argument `undeclaredHint`.
{ lib }:
let
  inherit (lib) mkOption types;
  hint = "This channel does not implement this option.";
  config = modules: (lib.evalModules { inherit modules; undeclaredHint = hint; }).config;
  sub = type: { options.x = mkOption { inherit type; }; };
  strict = types.submodule { options.a = mkOption { default = 1; }; };
in
{
  top = { error = (config [ { options.a = mkOption { }; } { _file = "mine"; b = 1; } ]).a; match = [ "The option `b' does not exist. Definition values:" "- In `mine': 1" hint ]; offlineOnly = true; };
  nested = { error = (config [ { options.a.c = mkOption { }; } { _file = "mine"; a.b = 1; } ]).a; match = [ "The option `a.b' does not exist." "mine" hint ]; offlineOnly = true; };
  submodule = { error = (config [ (sub strict) { _file = "mine"; x.b = 1; } ]).x.a; match = [ "The option `x.b' does not exist." "mine" hint ]; offlineOnly = true; };
  inAttrs = { error = (config [ (sub (types.attrsOf strict)) { _file = "mine"; x.n.b = 1; } ]).x.n.a; match = [ "The option `x.n.b' does not exist." "mine" hint ]; offlineOnly = true; };
  inLazyAttrs = { error = (config [ (sub (types.lazyAttrsOf strict)) { _file = "mine"; x.n.b = 1; } ]).x.n.a; match = [ "The option `x.n.b' does not exist." hint ]; offlineOnly = true; };
  inList = { error = (lib.head (config [ (sub (types.listOf strict)) { _file = "mine"; x = [ { b = 1; } ]; } ]).x).a; match = [ "does not exist." "mine" hint ]; offlineOnly = true; };
  inNullOr = { error = (config [ (sub (types.nullOr strict)) { _file = "mine"; x.b = 1; } ]).x.a; match = [ "The option `x.b' does not exist." hint ]; offlineOnly = true; };
  inEither = { error = (config [ (sub (types.either types.str strict)) { _file = "mine"; x.b = 1; } ]).x.a; match = [ "The option `x.b' does not exist." hint ]; offlineOnly = true; };
  inCoerced = { error = (config [ (sub (types.coercedTo types.str (b: { inherit b; }) strict)) { _file = "mine"; x = "v"; } ]).x.a; match = [ "The option `x.b' does not exist." hint ]; offlineOnly = true; };
  inUniq = { error = (config [ (sub (types.uniq strict)) { _file = "mine"; x.b = 1; } ]).x.a; match = [ "The option `x.b' does not exist." hint ]; offlineOnly = true; };
  deep = { error = (config [ (sub (types.attrsOf (types.submodule { options.y = mkOption { type = types.listOf strict; }; }))) { _file = "mine"; x.n.y = [ { b = 1; } ]; } ]).x.n.y; match = [ "does not exist." "mine" hint ]; offlineOnly = true; };
  extended = { error = ((lib.evalModules { modules = [ { options.a = mkOption { }; } ]; undeclaredHint = hint; }).extendModules { modules = [ { _file = "mine"; b = 1; } ]; }).config.a; match = [ "The option `b' does not exist." "mine" hint ]; offlineOnly = true; };
  hidden = { expr = (lib.evalModules { modules = [ { options.a = mkOption { }; } { _file = "mine"; a = 1; } ]; undeclaredHint = hint; }).options.a.definitionsWithLocations; offlineOnly = true; };
}
