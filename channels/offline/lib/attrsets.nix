# Attribute sets and derivations.
{ lib }:
let
  inherit (builtins) attrNames concatMap elemAt filter head isAttrs isString length listToAttrs mapAttrs tail;

  updateAt = path: update: value:
    if path == [ ] then update value
    else value // { ${head path} = updateAt (tail path) update (value.${head path} or { }); };

  pathText = path: lib.concatStringsSep "." (map lib.strings.escapeNixIdentifier path);
in
rec {
  inherit (builtins) attrNames attrValues catAttrs getAttr hasAttr intersectAttrs isAttrs listToAttrs mapAttrs removeAttrs;

  # Selecting.
  attrByPath = path: default: set:
    let
      n = length path;
      at = i: value:
        if i == n then value
        else if value ? ${elemAt path i} then at (i + 1) value.${elemAt path i}
        else default;
    in
    at 0 set;
  hasAttrByPath = path: set:
    let
      n = length path;
      at = i: value: i == n || (value ? ${elemAt path i} && at (i + 1) value.${elemAt path i});
    in
    at 0 set;
  getAttrFromPath = path: attrByPath path (abort "cannot find attribute `${lib.concatStringsSep "." path}'");
  attrVals = names: set: map (name: set.${name}) names;
  getAttrs = names: set: lib.genAttrs names (name: set.${name});
  filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
  filterAttrsRecursive = keep: set:
    mapAttrs (_: value: if isAttrs value then filterAttrsRecursive keep value else value) (filterAttrs keep set);
  collect = matches: value:
    if matches value then [ value ]
    else if isAttrs value then concatMap (collect matches) (builtins.attrValues value)
    else [ ];
  showAttrPath = path: if path == [ ] then "<root attribute path>" else pathText path;

  # Making.
  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  setAttrByPath = path: value: lib.foldr (name: inner: { ${name} = inner; }) value path;
  optionalAttrs = condition: set: if condition then set else { };
  attrsToList = mapAttrsToList nameValuePair;

  # Mapping.
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  concatMapAttrs = f: set: mergeAttrsList (mapAttrsToList f set);
  mapAttrsRecursive = mapAttrsRecursiveCond (_: true);
  mapAttrsRecursiveCond = descend: f: set:
    let
      walk = path: mapAttrs (name: value:
        if isAttrs value && descend value then walk (path ++ [ name ]) value else f (path ++ [ name ]) value);
    in
    walk [ ] set;

  # Folding and merging.
  foldlAttrs = f: nil: set: builtins.foldl' (result: name: f result name set.${name}) nil (attrNames set);
  foldAttrs = f: nil: sets: builtins.zipAttrsWith (_: lib.foldr f nil) sets;
  mergeAttrsList = sets: builtins.foldl' (a: b: a // b) { } sets;
  inherit (builtins) zipAttrsWith;
  zipAttrsWithNames = names: f: sets: genAttrs names (name: f name (builtins.catAttrs name sets));
  zipAttrs = builtins.zipAttrsWith (_: values: values);
  recursiveUpdateUntil = stop: left: right:
    let
      merge = path: a: b:
        a // mapAttrs
          (name: value:
            let here = path ++ [ name ]; in
            if a ? ${name} && !stop here a.${name} value then merge here a.${name} value else value)
          b;
    in
    merge [ ] left right;
  recursiveUpdate = recursiveUpdateUntil (_: a: b: !(isAttrs a && isAttrs b));
  overrideExisting = old: new: old // builtins.intersectAttrs old new;
  unionOfDisjoint = a: b:
    let common = attrNames (builtins.intersectAttrs a b);
    in
    a // b // genAttrs common (name:
      throw "unionOfDisjoint: collision on ${name}; complete list: ${lib.concatStringsSep ", " common}");
  matchAttrs = pattern: set:
    builtins.all
      (name: set ? ${name} && (
        if isAttrs pattern.${name} then isAttrs set.${name} && matchAttrs pattern.${name} set.${name}
        else pattern.${name} == set.${name}))
      (attrNames pattern);
  updateManyAttrsByPath = updates: set:
    builtins.foldl' (value: update: updateAt update.path update.update value) set
      (lib.sortOn (update: -(length update.path)) updates);

  cartesianProduct = sets:
    builtins.foldl' (rows: name: concatMap (row: map (value: row // { ${name} = value; }) sets.${name}) rows) [ { } ] (attrNames sets);
  mapCartesianProduct = f: sets: map f (cartesianProduct sets);

  # Derivations.
  isDerivation = x: x.type or null == "derivation";
  toDerivation = path:
    let
      # A path may come without string context, so that the result would not
      # depend on it.
      located = builtins.storePath path;
      result = {
        type = "derivation";
        name = lib.strings.sanitizeDerivationName (builtins.substring 33 (-1) (baseNameOf path));
        outPath = located;
        outputs = [ "out" ];
        out = result;
        outputName = "out";
      };
    in
    result;
  recurseIntoAttrs = set: set // { recurseForDerivations = true; };
  dontRecurseIntoAttrs = set: set // { recurseForDerivations = false; };

  # The output of a package that holds a kind of file; the package itself where
  # it has no such output or an output was chosen already.
  getOutput = output: package:
    if package.outputSpecified or false then package else package.${output} or package.out or package;
  getBin = getOutput "bin";
  getLib = getOutput "lib";
  getDev = getOutput "dev";
  getMan = getOutput "man";
}
