# Lists.
{ lib }:
let
  inherit (builtins) concatMap elem elemAt filter genList groupBy head length listToAttrs sort tail;

  firstOfEach = builtins.foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
in
rec {
  inherit (builtins)
    all any concatLists concatMap elem elemAt filter foldl' genList head isList length map sort tail;

  singleton = x: [ x ];
  toList = x: if builtins.isList x then x else [ x ];
  forEach = list: f: map f list;
  optional = condition: x: if condition then [ x ] else [ ];
  optionals = condition: list: if condition then list else [ ];

  foldr = f: nil: list:
    let
      n = length list;
      from = i: if i == n then nil else f (elemAt list i) (from (i + 1));
    in
    from 0;
  fold = foldr;
  foldl = f: nil: list:
    let upTo = i: if i == 0 then nil else f (upTo (i - 1)) (elemAt list (i - 1));
    in upTo (length list);

  imap0 = f: list: genList (i: f i (elemAt list i)) (length list);
  imap1 = f: imap0 (i: f (i + 1));
  ifilter0 = keep: list: map (i: elemAt list i) (filter (i: keep i (elemAt list i)) (range 0 (length list - 1)));

  flatten = x: if builtins.isList x then concatMap flatten x else [ x ];
  remove = x: filter (y: y != x);
  count = matches: list: length (filter matches list);
  range = first: final: if first > final then [ ] else genList (i: first + i) (final - first + 1);
  replicate = n: x: genList (_: x) n;
  reverseList = list: let n = length list; in genList (i: elemAt list (n - 1 - i)) n;

  findFirstIndex = matches: default: list:
    let
      n = length list;
      from = i: if i == n then default else if matches (elemAt list i) then i else from (i + 1);
    in
    from 0;
  findFirst = matches: default: list:
    let i = findFirstIndex matches null list;
    in if i == null then default else elemAt list i;
  findSingle = matches: default: multiple: list:
    let found = filter matches list;
    in
    if found == [ ] then default
    else if length found == 1 then head found
    else multiple;

  sublist = start: count: list:
    let n = length list;
    in
    genList (i: elemAt list (start + i))
      (if start >= n then 0 else if start + count > n then n - start else count);
  take = sublist 0;
  drop = count: list: sublist count (length list) list;
  init = list:
    assert lib.assertMsg (list != [ ]) "lists.init: list must not be empty!";
    take (length list - 1) list;
  last = list:
    assert lib.assertMsg (list != [ ]) "lists.last: list must not be empty!";
    elemAt list (length list - 1);

  hasPrefix = prefix: list: take (length prefix) list == prefix;
  removePrefix = prefix: list:
    if hasPrefix prefix list then drop (length prefix) list
    else throw "lib.lists.removePrefix: First argument is not a list prefix of the second argument";
  commonPrefix = a: b:
    let
      n = lib.min (length a) (length b);
      same = i: if i < n && elemAt a i == elemAt b i then same (i + 1) else i;
    in
    take (same 0) a;

  zipListsWith = f: a: b: genList (i: f (elemAt a i) (elemAt b i)) (lib.min (length a) (length b));
  zipLists = zipListsWith (fst: snd: { inherit fst snd; });

  # Strings, by far the most frequent, go through attribute names instead of
  # comparing each with each.
  unique = list:
    if builtins.all builtins.isString list then
      let
        first = listToAttrs (imap0 (i: name: { name = builtins.unsafeDiscardStringContext name; value = i; }) list);
      in
      ifilter0 (i: x: first.${builtins.unsafeDiscardStringContext x} == i) list
    else
      firstOfEach list;
  allUnique = list: length (unique list) == length list;
  intersectLists = allowed: filter (x: elem x allowed);
  subtractLists = unwanted: filter (x: !(elem x unwanted));
  mutuallyExclusive = a: b: builtins.all (x: !(elem x b)) a;

  partition = builtins.partition;
  inherit (builtins) groupBy;
  groupBy' = f: nil: key: list: lib.mapAttrs (_: builtins.foldl' f nil) (groupBy key list);

  sortOn = key: list:
    map (x: x.value) (sort (a: b: a.key < b.key) (map (value: { key = key value; inherit value; }) list));
  compareLists = compare: a: b:
    if a == [ ] && b == [ ] then 0
    else if a == [ ] then -1
    else if b == [ ] then 1
    else
      let result = compare (head a) (head b);
      in if result != 0 then result else compareLists compare (tail a) (tail b);
  naturalSort = list:
    let
      # Digits and other characters in turn, digits as numbers.
      parts = text: map (p: if builtins.isList p then lib.toIntBase10 (head p) else p) (builtins.split "(0|[1-9][0-9]*)" text);
      compareParts = a: b: lib.compare a b;
      keyed = map (value: { key = parts value; inherit value; }) list;
    in
    map (x: x.value) (sort (a: b: compareLists compareParts a.key b.key < 0) keyed);
}
