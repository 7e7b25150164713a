{ lib }:
let
  set = { a.b.c = 1; a.d = 2; "e f" = 3; };
in
{
  selecting.expr = {
    attrByPath = [ (lib.attrByPath [ "a" "b" "c" ] 0 set) (lib.attrByPath [ "a" "x" "c" ] 0 set) (lib.attrByPath [ "a" "d" "c" ] 0 set) (lib.attrByPath [ ] 0 1) ];
    hasAttrByPath = [ (lib.hasAttrByPath [ "a" "b" ] set) (lib.hasAttrByPath [ "a" "x" ] set) (lib.hasAttrByPath [ "a" "d" "c" ] set) (lib.hasAttrByPath [ ] set) ];
    getAttrFromPath = lib.getAttrFromPath [ "a" "b" ] set;
    attrVals = lib.attrVals [ "a" "c" ] { a = 1; b = 2; c = 3; };
    getAttrs = lib.getAttrs [ "a" "c" ] { a = 1; b = 2; c = 3; };
    filter = lib.filterAttrs (n: v: n == "a" || v == 3) { a = 1; b = 2; c = 3; };
    filterLazy = lib.attrNames (lib.filterAttrs (n: _: n == "a") { a = throw "never"; b = throw "never"; });
    filterRecursive = lib.filterAttrsRecursive (n: v: v != null) { a = null; b.c = null; b.d = 1; };
    collect = lib.collect (x: x ? outPath) { a = { outPath = "x"; }; b.c = { outPath = "y"; }; d = 1; };
    catAttrs = lib.catAttrs "a" [ { a = 1; } { b = 0; } { a = 2; } ];
    showAttrPath = [ (lib.showAttrPath [ "a" "b c" ]) (lib.showAttrPath [ ]) ];
    names = lib.attrNames { b = 1; a = 2; };
    values = lib.attrValues { b = 1; a = 2; };
  };
  noSuchPath = { error = lib.getAttrFromPath [ "a" "x" ] set; match = [ "cannot find attribute `a.x'" ]; };

  making.expr = {
    pair = lib.nameValuePair "a" 1;
    gen = lib.genAttrs [ "a" "b" ] lib.toUpper;
    set = [ (lib.setAttrByPath [ "a" "b c" ] 1) (lib.setAttrByPath [ ] 1) ];
    optional = [ (lib.optionalAttrs true { a = 1; }) (lib.optionalAttrs false { a = 1; }) ];
    toList = lib.attrsToList { a = 1; b = 2; };
    fromList = lib.listToAttrs [ { name = "a"; value = 1; } { name = "a"; value = 2; } ];
  };

  mapping.expr = {
    map = lib.mapAttrs (n: v: "${n}${v}") { a = "1"; b = "2"; };
    map' = lib.mapAttrs' (n: v: lib.nameValuePair "x${n}" (v + 1)) { a = 1; b = 2; };
    toList = lib.mapAttrsToList (n: v: "${n}=${toString v}") { b = 1; a = 2; };
    concat = lib.concatMapAttrs (n: v: { ${n} = v; "${n}${v}" = v; }) { x = "a"; y = "b"; };
    recursive = lib.mapAttrsRecursive (p: v: lib.concatStringsSep "-" (p ++ [ v ])) { n = { a = "A"; m = { b = "B"; }; }; d = "D"; };
    recursiveCond = lib.mapAttrsRecursiveCond (as: !(as ? stop)) (p: v: if lib.isAttrs v then "stopped" else v) { a = { stop = 1; }; b.c = 2; };
  };

  folding.expr = {
    foldl = lib.foldlAttrs (acc: n: v: acc ++ [ n v ]) [ ] { b = 1; a = 2; };
    fold = lib.foldAttrs (x: acc: [ x ] ++ acc) [ ] [ { a = 2; b = 7; } { a = 3; } { b = 6; } ];
    zipWith = lib.zipAttrsWith (n: vs: "${n}${toString vs}") [ { a = 1; } { a = 2; b = 3; } ];
    zipNames = lib.zipAttrsWithNames [ "a" ] (n: vs: vs) [ { a = "x"; } { a = "y"; b = "z"; } ];
    zip = lib.zipAttrs [ { a = 1; } { a = 2; b = 3; } ];
    mergeList = lib.mergeAttrsList [ { a = 1; b = 2; } { b = 3; } { c = 4; } ];
    mergeNone = lib.mergeAttrsList [ ];
  };

  updating.expr = {
    recursive = lib.recursiveUpdate { a.b = 1; a.c = 2; x = { y = 1; }; } { a.b = 3; a.d = 4; x = 5; };
    recursiveNull = lib.recursiveUpdate { a = null; b.c = 1; } { a.b = 1; b = null; };
    until = lib.recursiveUpdateUntil (path: l: r: path == [ "foo" ] || !lib.isAttrs l) { foo.bar = 1; foo.baz = 2; bar.a = 3; bar.b = 4; } { foo.bar = 5; bar.a = 6; };
    existing = lib.overrideExisting { a = 1; b = 2; } { b = 3; c = 4; };
    matches = [ (lib.matchAttrs { a.b = 1; } { a.b = 1; a.c = 2; }) (lib.matchAttrs { a.b = 2; } { a.b = 1; }) (lib.matchAttrs { x = 1; } { }) ];
    many = lib.updateManyAttrsByPath [
      { path = [ "a" "b" ]; update = old: { d = old.c; }; }
      { path = [ "a" "b" "c" ]; update = old: old + 1; }
      { path = [ "x" "y" ]; update = _: "xy"; }
    ] { a.b.c = 0; };
    cartesian = lib.cartesianProduct { a = [ 1 2 ]; b = [ 3 4 ]; };
    disjoint = lib.attrsets.unionOfDisjoint { a = 1; } { b = 2; };
  };
  notDisjoint = { error = (lib.attrsets.unionOfDisjoint { a = 1; } { a = 2; }).a; match = [ "unionOfDisjoint: collision on a" ]; };

  packages.expr =
    let
      package = {
        type = "derivation";
        name = "tool-1.0";
        outPath = "/store/tool";
        bin = { outPath = "/store/tool-bin"; };
        dev = { outPath = "/store/tool-dev"; };
        meta.mainProgram = "tool";
      };
      plain = { type = "derivation"; name = "plain-1.0"; outPath = "/store/plain"; meta.mainProgram = "run"; };
    in
    {
      isDerivation = map lib.isDerivation [ package { } "x" 1 ];
      exe = [ (lib.getExe (removeAttrs plain [ "meta" ])) (lib.getExe package) (lib.getExe plain) (lib.getExe' plain "other") ];
      bin = [ "${lib.getBin package}" "${lib.getBin plain}" ];
      dev = [ "${lib.getDev package}" "${lib.getDev plain}" ];
      lib = [ "${lib.getLib package}" "${lib.getLib plain}" ];
      man = "${lib.getMan package}";
      output = "${lib.getOutput "bin" package}";
      specified = "${lib.getBin (package // { outputSpecified = true; })}";
      recurse = (lib.recurseIntoAttrs { }).recurseForDerivations;
      priority = (lib.hiPrio package).meta.priority < (lib.lowPrio package).meta.priority;
      named = (lib.setName "x" package).name;
      meta = (lib.addMetaAttrs { license = "mit"; } package).meta;
    };
  exeNotPackage = { error = lib.getExe' "x" "y"; match = [ "lib.meta.getExe': The first argument is of type string, but it should be a derivation instead." ]; };
  exeNested = {
    error = lib.getExe' { type = "derivation"; name = "x"; outPath = "/x"; } "a/b";
    match = [ "lib.meta.getExe': The second argument \"a/b\" is a nested path with a \"/\" character, but it should just be the name of the executable instead." ];
  };
}
