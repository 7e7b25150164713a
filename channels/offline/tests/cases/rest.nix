# What the other files have no occasion to use.
{ lib }:
let
  tree = ../modules/tree;
in
{
  builtins.expr = {
    strings = [ (lib.substring 1 2 "abcd") (lib.typeOf 1) (lib.split "b" "abc") (lib.strings.compareVersions "1" "2") (lib.strings.parseDrvName "a-1").version (lib.strings.unsafeDiscardStringContext "x") (lib.addContextFrom "a" "b") ];
    lists = [ (lib.elemAt [ 1 2 ] 1) (lib.genericClosure { startSet = [ { key = 1; } ]; operator = x: lib.optional (x.key < 3) { key = x.key + 1; }; }) ];
    sets = [ (lib.getAttr "a" { a = 1; }) (lib.hasAttr "a" { }) (lib.intersectAttrs { a = 1; } { a = 2; b = 3; }) (lib.unsafeGetAttrPos "x" { }) ];
    evaluation = [ (lib.seq 1 2) (lib.deepSeq { a = 1; } 3) (lib.trace "shown" 4) (lib.readFile ../modules/data.txt) ];
    environment = [ (lib.isBool lib.inNixShell) (lib.isBool lib.inPureEvalMode) ];
  };

  variants.expr = {
    traceValFn = [ (lib.traceValFn (x: x + 1) 1) (lib.traceValSeqFn (x: x + 1) 2) (lib.showWarnings [ "w" ] 3) ];
    fix' = (lib.fix' (self: { a = 1; })).__unfix__ { };
    customName = ((lib.makeExtensibleWithCustomName "grow" (self: { a = 1; b = self.a; })).grow (final: prev: { a = 2; })).b;
    doNotRecurse = (lib.dontRecurseIntoAttrs { }).recurseForDerivations;
    setPrio = (lib.setPrio 7 { }).meta.priority;
    searchOutput = lib.makeSearchPathOutput "dev" "include" [ { outPath = "/o"; dev = "/d"; } ];
    aliases = [ (lib.literalExample "x") (lib.isFunction lib.mkAliasOptionModuleMD) (lib.isFunction lib.mkPackageOptionMD) (lib.mdDoc "x") lib.options.unknownModule ];
    aliasWithPriority =
      (lib.evalModules {
        modules = [
          { options.a = lib.mkOption { }; options.b = lib.mkOption { }; }
          ({ options, ... }: { b = lib.modules.mkAliasAndWrapDefsWithPriority lib.id options.a; })
          { a = lib.mkForce 1; b = 2; }
        ];
      }).config.b;
    toml = lib.importTOML ../modules/data.toml;
    fakes = [ lib.fakeHash lib.fakeSha256 ];
    release = [ (lib.isString lib.trivial.release) (lib.isString lib.trivial.versionSuffix) (lib.hasPrefix lib.trivial.release lib.version) (lib.isInOldestRelease lib.trivial.oldestSupportedRelease) ];
    functor = { inherit (lib.defaultFunctor "str") name payload wrapped; };
    typeMerge = (lib.defaultTypeMerge lib.types.str.functor lib.types.str.functor).name;
    phrase = map (class: lib.types.optionDescriptionPhrase (c: c == class) lib.types.str) [ "noun" "composite" ];
    deferredWith = lib.length (lib.types.deferredModuleWith { staticModules = [ { } ]; }).getSubModules;
  };

  sources.expr = {
    filter = map ({ name, type }: lib.cleanSourceFilter "/x/${name}" type) [
      { name = ".git"; type = "directory"; }
      { name = "result"; type = "symlink"; }
      { name = "result"; type = "regular"; }
      { name = "a.nix~"; type = "regular"; }
      { name = ".a.swp"; type = "regular"; }
      { name = "a.o"; type = "regular"; }
      { name = "a.so"; type = "regular"; }
      { name = "socket"; type = "unknown"; }
      { name = "a.nix"; type = "regular"; }
      { name = "src"; type = "directory"; }
      { name = ".hg"; type = "directory"; }
      { name = ".git"; type = "regular"; }
    ];
    clean = "${lib.cleanSource tree}" == builtins.path { path = tree; name = "source"; };
    with' = "${lib.cleanSourceWith { src = tree; name = "n"; filter = path: _: baseNameOf path != "b"; }}" == builtins.path { path = tree; name = "n"; filter = path: _: baseNameOf path != "b"; };
    twice =
      "${lib.cleanSourceWith { src = lib.cleanSourceWith { src = tree; filter = path: _: baseNameOf path != "e.nix"; }; filter = path: _: baseNameOf path != "a.nix"; }}"
      == builtins.path { path = tree; name = "source"; filter = path: _: !(lib.elem (baseNameOf path) [ "a.nix" "e.nix" ]); };
    suffixes = "${lib.sourceFilesBySuffices tree [ "e.nix" ]}" == builtins.path { path = tree; name = "source"; filter = path: type: type == "directory" || lib.hasSuffix "e.nix" path; };
  };
}
