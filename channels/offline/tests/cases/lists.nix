{ lib }:
let
  inherit (lib) lists;
in
{
  making.expr = {
    singleton = lib.singleton 1;
    toList = [ (lib.toList 1) (lib.toList [ 1 ]) (lib.toList null) (lib.toList { }) ];
    optional = [ (lib.optional true 1) (lib.optional false 1) ];
    optionals = [ (lib.optionals true [ 1 2 ]) (lib.optionals false [ 1 2 ]) ];
    range = [ (lib.range 2 4) (lib.range 2 2) (lib.range 3 2) ];
    replicate = lib.replicate 3 "x";
    genList = lib.genList (i: i * i) 4;
    forEach = lib.forEach [ 1 2 ] toString;
  };

  folding.expr = {
    foldr = lib.foldr (x: r: [ x r ]) "nil" [ 1 2 3 ];
    foldl = lib.foldl (r: x: [ r x ]) "nil" [ 1 2 3 ];
    foldl' = lib.foldl' (r: x: r - x) 10 [ 1 2 3 ];
    fold = lib.fold (x: r: x - r) 0 [ 1 2 3 ];
    foldrLazy = lib.foldr (x: r: x == 1 || r) (throw "never") [ 0 1 (throw "never") ];
    count = lib.count (x: x > 1) [ 1 2 3 ];
    all = [ (lib.all (x: x > 0) [ 1 2 ]) (lib.all (x: x > 1) [ 1 2 ]) (lib.all (x: false) [ ]) ];
    any = [ (lib.any (x: x > 1) [ 1 2 ]) (lib.any (x: true) [ ]) ];
  };

  mapping.expr = {
    imap0 = lib.imap0 (i: x: "${toString i}${x}") [ "a" "b" ];
    imap1 = lib.imap1 (i: x: "${toString i}${x}") [ "a" "b" ];
    ifilter0 = lib.ifilter0 (i: x: i == 0 || x > 2) [ 1 2 3 ];
    flatten = lib.flatten [ 1 [ 2 [ 3 [ ] ] [ [ [ 4 ] ] ] ] ];
    flattenOne = lib.flatten 1;
    concat = lib.concatLists [ [ 1 ] [ ] [ 2 3 ] ];
    concatMap = lib.concatMap (x: [ x x ]) [ 1 2 ];
    zip = lib.zipLists [ 1 2 3 ] [ "a" "b" ];
    zipWith = lib.zipListsWith (a: b: a + b) [ 1 2 ] [ 10 20 30 ];
    cross = lib.mapCartesianProduct ({ a, b }: "${a}${b}") { a = [ "1" "2" ]; b = [ "x" "y" ]; };
    reverse = lib.reverseList [ 1 2 3 ];
    reverseNone = lib.reverseList [ ];
  };

  choosing.expr = {
    head = lib.head [ 1 2 ];
    tail = lib.tail [ 1 2 ];
    last = lib.last [ 1 2 ];
    init = lib.init [ 1 2 3 ];
    take = [ (lib.take 2 [ 1 2 3 ]) (lib.take 5 [ 1 ]) (lib.take 0 [ 1 ]) ];
    drop = [ (lib.drop 2 [ 1 2 3 ]) (lib.drop 5 [ 1 ]) (lib.drop 0 [ 1 ]) ];
    sublist = [ (lib.sublist 1 3 [ 0 1 2 3 4 5 ]) (lib.sublist 1 30 [ 0 1 2 ]) (lib.sublist 5 1 [ 0 1 ]) ];
    filter = lib.filter (x: x > 1) [ 1 2 3 ];
    remove = lib.remove 2 [ 1 2 3 2 ];
    findFirst = [ (lib.findFirst (x: x > 1) null [ 1 2 3 ]) (lib.findFirst (x: x > 9) "none" [ 1 ]) ];
    findFirstIndex = [ (lists.findFirstIndex (x: x > 1) null [ 1 2 3 ]) (lists.findFirstIndex (x: x > 9) null [ 1 ]) ];
    findFirstLazy = lib.findFirst (x: x == 1) null [ 1 (throw "never") ];
    findSingle = [
      (lib.findSingle (x: x == 3) "none" "many" [ 1 3 ])
      (lib.findSingle (x: x == 9) "none" "many" [ 1 3 ])
      (lib.findSingle (x: x == 3) "none" "many" [ 3 3 ])
    ];
    prefix = [ (lists.hasPrefix [ 1 ] [ 1 2 ]) (lists.hasPrefix [ 2 ] [ 1 2 ]) (lists.removePrefix [ 1 ] [ 1 2 ]) (lists.commonPrefix [ 1 2 3 ] [ 1 2 4 5 ]) ];
    partition = lib.partition (x: x > 2) [ 5 1 2 3 4 ];
  };
  lastOfNone = { error = lib.last [ ]; match = [ "lists.last: list must not be empty!" ]; };
  initOfNone = { error = lib.init [ ]; match = [ "lists.init: list must not be empty!" ]; };
  removeOtherPrefix = { error = lists.removePrefix [ 9 ] [ 1 ]; match = [ "lib.lists.removePrefix: First argument is not a list prefix of the second argument" ]; };

  sets.expr = {
    unique = [ (lib.unique [ 3 2 3 4 2 ]) (lib.unique [ "b" "a" "b" ]) (lib.unique [ ]) (lib.unique [ "a" 1 "a" [ 1 ] [ 1 ] ]) ];
    allUnique = [ (lib.allUnique [ 1 2 ]) (lib.allUnique [ 1 1 ]) (lib.allUnique [ ]) ];
    intersect = lib.intersectLists [ 1 2 3 ] [ 6 3 2 ];
    subtract = lib.subtractLists [ 3 2 ] [ 1 2 3 4 3 ];
    exclusive = [ (lib.mutuallyExclusive [ 1 ] [ 2 ]) (lib.mutuallyExclusive [ 1 2 ] [ 2 ]) ];
    elem = [ (lib.elem 1 [ 1 ]) (lib.elem { a = 1; } [ { a = 1; } ]) (lib.elem 1 [ ]) ];
  };

  sorting.expr = {
    sort = lib.sort (a: b: a < b) [ 5 3 7 ];
    stable = lib.sort (a: b: a.k < b.k) [ { k = 1; v = "a"; } { k = 0; v = "b"; } { k = 1; v = "c"; } ];
    sortOn = lib.sortOn builtins.stringLength [ "ccc" "a" "bb" "d" ];
    natural = lib.naturalSort [ "disk11" "disk8" "disk100" "disk9" ];
    naturalIP = lib.naturalSort [ "10.46.133.149" "10.5.16.62" "10.54.16.25" ];
    naturalText = lib.naturalSort [ "v0.2" "v0.15" "v0.0.9" ];
    compare = [ (lib.compareLists lib.compare [ 1 2 ] [ 1 3 ]) (lib.compareLists lib.compare [ ] [ ]) (lib.compareLists lib.compare [ 1 ] [ ]) ];
    groupBy = lib.groupBy (x: if x > 2 then "big" else "small") [ 5 1 2 3 4 ];
    groupBy' = lib.groupBy' builtins.add 0 (x: lib.boolToString (x > 2)) [ 5 1 2 3 4 ];
  };
}
