# Types of options: what a definition may be, and how definitions are merged.
# NixOS manual, chapter "Options Types".
#
# A type is made by mkOptionType from
#   name              short name; types of the same name may be merged
#   description       for messages: "A definition for option `x' is not of type `...'"
#   descriptionClass  "noun", "nonRestrictiveClause", "conjunction" or "composite":
#                     says where a description needs parentheses within another
#   check             value -> bool
#   merge             path -> definitions [ { file; value; } ] -> value
#   emptyValue        { value = ...; } where no definition is a value too
#   functor           how the type is merged with another declaration's type:
#                     { name; type; wrapped; payload; binOp; }
#   getSubOptions, getSubModules, substSubModules, nestedTypes
#                     what composite types say about what they hold
{ lib }:
let
  inherit (builtins)
    all any attrNames concatMap concatStringsSep elem elemAt filter foldl' head isAttrs isBool isFloat
    isInt isList isString length mapAttrs match substring toJSON typeOf;
  inherit (lib)
    getFiles getValues imap1 isDerivation isFunction last mergeDefinitions mergeEqualOption
    mergeOneOption optionalAttrs showFiles showOption toDerivation types;
  inherit (lib.strings) isStringLike;

  # Definitions of the parts keep what else is known about the whole.
  part = def: value: def // { inherit value; };

  at = path: "`${showOption path}'";

  defaultTypeMerge = mine: other:
    let
      wrapped = mine.wrapped.typeMerge other.wrapped.functor;
      payload = mine.binOp mine.payload other.payload;
    in
    if mine.name != other.name then null
    else if mine.wrapped != null && other.wrapped != null then
      if wrapped == null then null else mine.type wrapped
    else if mine.payload != null && other.payload != null then
      if payload == null then null else mine.type payload
    else if mine.wrapped == null && other.wrapped == null && mine.payload == null && other.payload == null then
      mine.type
    else
      null;

  defaultFunctor = name: {
    inherit name;
    type = types.${name} or null;
    wrapped = null;
    payload = null;
    binOp = _: _: null;
  };

  # Functor of a type that is made from one other type.
  wrapping = name: type: wrapped: defaultFunctor name // { inherit type wrapped; };

  mkOptionType =
    { name
    , description ? null
    , descriptionClass ? null
    , check ? (_: true)
    , merge ? lib.options.mergeDefaultOption
    , emptyValue ? { }
    , getSubOptions ? (_: { })
    , getSubModules ? null
    , substSubModules ? (_: null)
    , typeMerge ? defaultTypeMerge functor
    , functor ? defaultFunctor name
    , deprecationMessage ? null
    , nestedTypes ? { }
    }:
    {
      _type = "option-type";
      inherit name check merge emptyValue getSubOptions getSubModules substSubModules typeMerge
        functor deprecationMessage nestedTypes descriptionClass;
      description = if description == null then name else description;
    };

  # A type's description as a part of another's. `allowed` are the classes that,
  # besides nouns, need no parentheses there.
  phrase = allowed: type:
    if elem (type.descriptionClass or null) ([ "noun" ] ++ allowed) then type.description else "(${type.description})";

  # A type of values that are only valid or not, and that must all be equal.
  simple = name: description: check: mkOptionType {
    inherit name description check;
    descriptionClass = "noun";
    merge = mergeEqualOption;
  };

  # `type` with a further condition and its own description.
  restricted = type: name: description: check: addCheck type check // {
    inherit name description;
    functor = defaultFunctor name;
    typeMerge = defaultTypeMerge (defaultFunctor name);
  };

  addCheck = type: check: type // { check = x: type.check x && check x; };

  # name -> what mergeDefinitions says of this name's definitions.
  partsByName = elemType: loc: defs:
    builtins.zipAttrsWith (name: mergeDefinitions (loc ++ [ name ]) elemType)
      (map (def: mapAttrs (_: part def) def.value) defs);

  submoduleWith =
    { modules, specialArgs ? { }, shorthandOnlyDefinesConfig ? false, description ? null, class ? null }@attributes:
    let
      evaluate = more: undeclaredHint: prefix: lib.evalModules {
        modules = modules ++ more;
        inherit specialArgs class prefix undeclaredHint;
      };
      asModule = def:
        if isAttrs def.value && shorthandOnlyDefinesConfig == true
        then { _file = def.file; config = def.value; }
        else { _file = def.file; imports = [ def.value ]; };
      # Options for documentation: names are not known there.
      documented = evaluate [ { _module.args.name = "‹name›"; _module.check = false; } ] null;
      freeform = (documented [ ])._module.freeformType;
    in
    mkOptionType {
      name = "submodule";
      description =
        if description != null then description
        else if freeform == null then "submodule"
        else "open submodule of ${phrase [ "composite" ] freeform}";
      check = x: isAttrs x || isFunction x || types.path.check x;
      merge = loc: defs:
        (evaluate ([ { _module.args.name = last loc; } ] ++ map asModule defs)
          (foldl' (found: def: def.undeclaredHint or found) null defs)
          loc).config;
      emptyValue.value = { };
      getSubOptions = prefix:
        let options = (documented prefix).options;
        in options // optionalAttrs (freeform != null) {
          _freeformOptions = freeform.getSubOptions prefix;
        };
      getSubModules = modules;
      substSubModules = modules: submoduleWith (attributes // { inherit modules; });
      nestedTypes = optionalAttrs (freeform != null) { freeformType = freeform; };
      functor = defaultFunctor "submodule" // {
        type = submoduleWith;
        payload = { inherit modules specialArgs shorthandOnlyDefinesConfig description class; };
        binOp = a: b:
          let
            # Declarations that say nothing agree with any other.
            agree = what: x: y:
              if x == null || x == y then y
              else if y == null then x
              else throw "A submoduleWith option is declared multiple times with conflicting ${what} values \"${toString x}\" and \"${toString y}\"";
            twice = attrNames (builtins.intersectAttrs a.specialArgs b.specialArgs);
            flag = x: if x == null then null else lib.boolToString x;
            shorthand = agree "shorthandOnlyDefinesConfig" (flag a.shorthandOnlyDefinesConfig) (flag b.shorthandOnlyDefinesConfig);
          in
          {
            modules = a.modules ++ b.modules;
            specialArgs =
              if twice == [ ] then a.specialArgs // b.specialArgs
              else throw "A submoduleWith option is declared multiple times with the same specialArgs \"${toString twice}\"";
            shorthandOnlyDefinesConfig = if shorthand == null then null else shorthand == "true";
            description = agree "description" a.description b.description;
            class = agree "class" a.class b.class;
          };
      };
    };
in
rec {
  inherit addCheck defaultFunctor defaultTypeMerge mkOptionType submoduleWith;

  # Attribute sets that say what they are.
  isType = type: x: x._type or null == type;
  setType = type: x: x // { _type = type; };
  isOptionType = isType "option-type";
  optionDescriptionPhrase = allowedClass: type:
    if allowedClass (type.descriptionClass or null) then type.description else "(${type.description})";

  # Anything, with less and less said about it.
  raw = mkOptionType {
    name = "raw";
    description = "raw value";
    descriptionClass = "noun";
    merge = mergeOneOption;
  };
  unspecified = mkOptionType {
    name = "unspecified";
    description = "unspecified value";
    descriptionClass = "noun";
  };
  anything = mkOptionType {
    name = "anything";
    description = "anything";
    descriptionClass = "noun";
    merge = loc: defs:
      let
        kind = x: if isAttrs x && isStringLike x then "package" else if isFunction x then "function" else typeOf x;
        first = kind (head defs).value;
        same = all (def: kind def.value == first) defs;
      in
      if !same then
        throw "The option ${at loc} has conflicting option types in ${showFiles (getFiles defs)}"
      else if first == "set" then
        (attrsOf anything).merge loc defs
      else if first == "list" then
        if length defs == 1 then (listOf anything).merge loc defs
        else throw "The option ${at loc} has conflicting definitions, in ${showFiles (getFiles defs)}."
      else if first == "package" then
        mergeOneOption loc defs
      else if first == "function" then
        x: anything.merge (loc ++ [ "<function body>" ]) (map (def: part def (def.value x)) defs)
      else
        mergeEqualOption loc defs;
  };

  # Single values.
  bool = simple "bool" "boolean" isBool;
  boolByOr = mkOptionType {
    name = "boolByOr";
    description = "boolean (merged using or)";
    descriptionClass = "noun";
    check = isBool;
    merge = _: any (def: def.value);
  };
  int = simple "int" "signed integer" isInt;
  float = simple "float" "floating point number" isFloat;
  number = either int float;

  ints =
    let
      range = low: high: "${toString low} and ${toString high} (both inclusive)";
      within = low: high:
        if low > high then throw "ints.between: lowest must be smaller than highest"
        else restricted int "intBetween" "integer between ${range low high}" (x: x >= low && x <= high);
      bits = sign: name: n: low: high:
        restricted int name "${toString n} bit ${sign} integer; between ${range low high}" (x: x >= low && x <= high);
      power = n: if n == 0 then 1 else 2 * power (n - 1);
      unsignedBits = n: bits "unsigned" "unsignedInt${toString n}" n 0 (power n - 1);
      signedBits = n: bits "signed" "signedInt${toString n}" n (-(power (n - 1))) (power (n - 1) - 1);
    in
    {
      between = within;
      positive = restricted int "positiveInt" "positive integer, meaning >0" (x: x > 0)
        // { descriptionClass = "nonRestrictiveClause"; };
      unsigned = restricted int "unsignedInt" "unsigned integer, meaning >=0" (x: x >= 0)
        // { descriptionClass = "nonRestrictiveClause"; };
      u8 = unsignedBits 8;
      u16 = unsignedBits 16;
      u32 = unsignedBits 32;
      s8 = signedBits 8;
      s16 = signedBits 16;
      s32 = signedBits 32;
    };
  port = ints.u16;

  numbers = {
    between = low: high:
      if low > high then throw "numbers.between: lowest must be smaller than highest"
      else restricted number "numberBetween" "integer or floating point number between ${toString low} and ${toString high} (both inclusive)"
        (x: x >= low && x <= high);
    nonnegative = restricted number "numberNonnegative" "nonnegative integer or floating point number, meaning >=0" (x: x >= 0)
      // { descriptionClass = "nonRestrictiveClause"; };
    positive = restricted number "numberPositive" "positive integer or floating point number, meaning >0" (x: x > 0)
      // { descriptionClass = "nonRestrictiveClause"; };
  };

  str = simple "str" "string" isString;
  nonEmptyStr = simple "nonEmptyStr" "non-empty string" (x: isString x && match "[ \t\n]*" x == null);
  singleLineStr =
    let base = strMatching "[^\n\r]*\n?"; in
    mkOptionType {
      name = "singleLineStr";
      description = "(optionally newline-terminated) single-line string";
      descriptionClass = "noun";
      inherit (base) check;
      merge = loc: defs: lib.removeSuffix "\n" (mergeEqualOption loc defs);
    };
  strMatching = pattern: mkOptionType {
    name = "strMatching ${lib.strings.escapeNixString pattern}";
    description = "string matching the pattern ${pattern}";
    descriptionClass = "noun";
    check = x: isString x && match pattern x != null;
    merge = mergeEqualOption;
    functor = defaultFunctor "strMatching" // {
      type = strMatching;
      payload = pattern;
      binOp = a: b: if a == b then a else null;
    };
  };
  separatedString = separator: mkOptionType {
    name = "separatedString";
    description = if separator == "" then "Concatenated string" else "strings concatenated with ${toJSON separator}";
    descriptionClass = "noun";
    check = isString;
    merge = _: defs: concatStringsSep separator (getValues defs);
    functor = defaultFunctor "separatedString" // {
      type = separatedString;
      payload = separator;
      binOp = a: b: if a == b then a else null;
    };
  };
  lines = separatedString "\n";
  commas = separatedString ",";
  envVar = separatedString ":";
  string = separatedString "" // {
    name = "string";
    deprecationMessage = "Use `types.str`, or `types.separatedString` where several definitions are to be joined.";
  };
  passwdEntry = entry: addCheck entry (x: !(lib.hasInfix ":" x || lib.hasInfix "\n" x)) // {
    name = "passwdEntry ${entry.name}";
    description = "${phrase [ ] entry}, not containing newlines or colons";
    descriptionClass = "nonRestrictiveClause";
  };
  enum = values:
    let
      show = x:
        if isString x then ''"${x}"''
        else if isInt x then toString x
        else if isBool x then lib.boolToString x
        else "<${typeOf x}>";
    in
    mkOptionType {
      name = "enum";
      description =
        if values == [ ] then "impossible (empty enum)"
        else if length values == 1 then "value ${show (head values)} (singular enum)"
        else "one of ${lib.concatMapStringsSep ", " show values}";
      descriptionClass = if length values < 2 then "noun" else "conjunction";
      check = x: elem x values;
      merge = mergeEqualOption;
      functor = defaultFunctor "enum" // {
        type = enum;
        payload = values;
        binOp = a: b: lib.unique (a ++ b);
      };
    };

  path = mkOptionType {
    name = "path";
    description = "absolute path";
    descriptionClass = "noun";
    check = x: isStringLike x && substring 0 1 (toString x) == "/";
    merge = mergeEqualOption;
  };
  pathInStore = mkOptionType {
    name = "pathInStore";
    description = "path in the Nix store";
    descriptionClass = "noun";
    check = x: isStringLike x && match "${lib.escapeRegex builtins.storeDir}/[^.].*" (toString x) != null;
    merge = mergeEqualOption;
  };
  package = mkOptionType {
    name = "package";
    descriptionClass = "noun";
    check = x: isDerivation x || lib.isStorePath x;
    merge = loc: defs:
      let value = mergeOneOption loc defs;
      in if builtins.isPath value || (isString value && !builtins.hasContext value) then toDerivation value else value;
  };
  shellPackage = package // { check = x: isDerivation x && x ? shellPath; };
  pkgs = addCheck
    (unique { message = "A Nixpkgs pkgs set can not be merged with another pkgs set."; } attrs // {
      name = "pkgs";
      descriptionClass = "noun";
      description = "Nixpkgs package set";
    })
    (x: x._type or null == "pkgs");
  optionType = mkOptionType {
    name = "optionType";
    description = "optionType";
    descriptionClass = "noun";
    check = isOptionType;
    merge = loc: defs: (foldl'
      (merged: def:
        let value = merged.value.typeMerge def.value.functor;
        in
        if value != null then part merged value
        else throw "The option ${at loc} has conflicting option types in ${showFiles (getFiles [ merged def ])}")
      (head defs)
      (builtins.tail defs)).value;
  };

  # Collections. Each part's definitions may hold mkIf, mkForce and so on.
  listOf = elemType: mkOptionType {
    name = "listOf";
    description = "list of ${phrase [ "composite" ] elemType}";
    descriptionClass = "composite";
    check = isList;
    merge = loc: defs:
      let
        merged = lib.concatLists (imap1
          (n: def: imap1
            (m: value: (mergeDefinitions (loc ++ [ "[definition ${toString n}-entry ${toString m}]" ]) elemType [ (part def value) ]).optionalValue)
            def.value)
          defs);
      in
      concatMap (x: if x ? value then [ x.value ] else [ ]) merged;
    emptyValue.value = [ ];
    getSubOptions = prefix: elemType.getSubOptions (prefix ++ [ "*" ]);
    inherit (elemType) getSubModules;
    substSubModules = m: listOf (elemType.substSubModules m);
    functor = wrapping "listOf" listOf elemType;
    nestedTypes.elemType = elemType;
  };
  nonEmptyListOf = elemType:
    let list = addCheck (listOf elemType) (x: x != [ ]);
    in list // {
      description = "non-empty ${phrase [ ] list}";
      emptyValue = { };
      substSubModules = m: nonEmptyListOf (elemType.substSubModules m);
    };

  attrs = mkOptionType {
    name = "attrs";
    description = "attribute set";
    check = isAttrs;
    merge = _: defs: foldl' (a: def: a // def.value) { } defs;
    emptyValue.value = { };
  };
  attrsOf = elemType: mkOptionType {
    name = "attrsOf";
    description = "attribute set of ${phrase [ "composite" ] elemType}";
    descriptionClass = "composite";
    check = isAttrs;
    merge = loc: defs:
      let parts = partsByName elemType loc defs;
      in mapAttrs (_: x: x.value) (lib.filterAttrs (_: x: x ? value) (mapAttrs (_: x: x.optionalValue) parts));
    emptyValue.value = { };
    getSubOptions = prefix: elemType.getSubOptions (prefix ++ [ "<name>" ]);
    inherit (elemType) getSubModules;
    substSubModules = m: attrsOf (elemType.substSubModules m);
    functor = wrapping "attrsOf" attrsOf elemType;
    nestedTypes.elemType = elemType;
  };
  # Does not evaluate conditions to know which names there are: a name whose
  # definitions are all disabled stays, with the type's empty value or an error.
  lazyAttrsOf = elemType: mkOptionType {
    name = "lazyAttrsOf";
    description = "lazy attribute set of ${phrase [ "composite" ] elemType}";
    descriptionClass = "composite";
    check = isAttrs;
    merge = loc: defs:
      mapAttrs (_: x: x.optionalValue.value or elemType.emptyValue.value or x.mergedValue) (partsByName elemType loc defs);
    emptyValue.value = { };
    getSubOptions = prefix: elemType.getSubOptions (prefix ++ [ "<name>" ]);
    inherit (elemType) getSubModules;
    substSubModules = m: lazyAttrsOf (elemType.substSubModules m);
    functor = wrapping "lazyAttrsOf" lazyAttrsOf elemType;
    nestedTypes.elemType = elemType;
  };

  # Types made from others.
  nullOr = elemType: mkOptionType {
    name = "nullOr";
    description = "null or ${phrase [ "conjunction" ] elemType}";
    descriptionClass = "conjunction";
    check = x: x == null || elemType.check x;
    merge = loc: defs:
      let nulls = filter (def: def.value == null) defs;
      in
      if length nulls == length defs then null
      else if nulls != [ ] then
        throw "The option `${showOption loc}` is defined both null and not null, in ${showFiles (getFiles defs)}."
      else
        elemType.merge loc defs;
    emptyValue.value = null;
    inherit (elemType) getSubOptions getSubModules;
    substSubModules = m: nullOr (elemType.substSubModules m);
    functor = wrapping "nullOr" nullOr elemType;
    nestedTypes.elemType = elemType;
  };
  either = a: b: mkOptionType {
    name = "either";
    description = "${phrase [ "nonRestrictiveClause" "conjunction" ] a}${
      lib.optionalString (a.descriptionClass or null == "nonRestrictiveClause") ","
    } or ${phrase [ "conjunction" "composite" ] b}";
    descriptionClass = "conjunction";
    check = x: a.check x || b.check x;
    merge = loc: defs:
      if all (def: a.check def.value) defs then a.merge loc defs
      else if all (def: b.check def.value) defs then b.merge loc defs
      else mergeOneOption loc defs;
    functor = defaultFunctor "either" // { wrapped = [ a b ]; };
    typeMerge = other:
      let
        left = a.typeMerge (elemAt other.wrapped 0).functor;
        right = b.typeMerge (elemAt other.wrapped 1).functor;
      in
      if other.name == "either" && left != null && right != null then either left right else null;
    nestedTypes = { left = a; right = b; };
  };
  oneOf = options:
    let
      first = if options == [ ] then throw "types.oneOf needs to get at least one type in its argument" else head options;
    in
    foldl' either first (builtins.tail options);
  coercedTo = from: coerce: to:
    let convert = x: if from.check x then coerce x else x;
    in
    if from.getSubModules != null then
      throw "coercedTo: coercedType must not have submodules (it’s a ${from.description})"
    else
      mkOptionType {
        name = "coercedTo";
        description = "${phrase [ ] to} or ${phrase [ ] from} convertible to it";
        check = x: (from.check x && to.check (coerce x)) || to.check x;
        merge = loc: defs: to.merge loc (map (def: part def (convert def.value)) defs);
        inherit (to) emptyValue getSubOptions getSubModules;
        substSubModules = m: coercedTo from coerce (to.substSubModules m);
        typeMerge = _: null;
        functor = defaultFunctor "coercedTo";
        nestedTypes = { coercedType = from; finalType = to; };
      };
  uniq = unique { message = ""; };
  unique = { message }: type: mkOptionType {
    name = "unique";
    inherit (type) description descriptionClass check emptyValue getSubOptions getSubModules;
    merge = lib.options.mergeUniqueOption { inherit message; inherit (type) merge; };
    substSubModules = m: unique { inherit message; } (type.substSubModules m);
    functor = wrapping "unique" (unique { inherit message; }) type;
    nestedTypes.elemType = type;
  };
  functionTo = elemType: mkOptionType {
    name = "functionTo";
    description = "function that evaluates to a(n) ${phrase [ "composite" ] elemType}";
    descriptionClass = "composite";
    check = isFunction;
    merge = loc: defs: {
      __functor = _: x:
        (mergeDefinitions (loc ++ [ "<function body>" ]) elemType (map (def: part def (def.value x)) defs)).mergedValue;
      __functionArgs = foldl' (found: def: found // lib.functionArgs def.value) { } defs;
    };
    getSubOptions = prefix: elemType.getSubOptions (prefix ++ [ "<function body>" ]);
    inherit (elemType) getSubModules;
    substSubModules = m: functionTo (elemType.substSubModules m);
    functor = wrapping "functionTo" functionTo elemType;
    nestedTypes.elemType = elemType;
  };

  # Modules as values.
  submodule = modules: submoduleWith {
    shorthandOnlyDefinesConfig = true;
    modules = lib.toList modules;
  };
  deferredModule = deferredModuleWith { };
  deferredModuleWith = { staticModules ? [ ] }: mkOptionType {
    name = "deferredModule";
    description = "module";
    descriptionClass = "noun";
    check = x: isAttrs x || isFunction x || path.check x;
    merge = loc: defs: {
      imports = staticModules ++ map (def: lib.setDefaultModuleLocation "${def.file}, via option ${showOption loc}" def.value) defs;
    };
    inherit (submoduleWith { modules = staticModules; }) getSubOptions getSubModules;
    substSubModules = m: deferredModuleWith { staticModules = m; };
    functor = defaultFunctor "deferredModuleWith" // {
      type = deferredModuleWith;
      payload = { inherit staticModules; };
      binOp = a: b: { staticModules = lib.unique (a.staticModules ++ b.staticModules); };
    };
  };
}
