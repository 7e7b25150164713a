# The module system: modules declare options and define them; every option's
# definitions are merged by its type. The rules are those of the NixOS manual,
# chapter "Writing NixOS Modules".
#
# Evaluation goes in four steps, each lazy in the values:
#   load     modules and what they import, once per key, without disabled ones
#   match    declarations and definitions of the same path, level by level
#   merge    one option's definitions: conditions, priorities, order, type
#   collect  the values of all options to `config`
{ lib }:
let
  inherit (builtins)
    all attrNames concatMap elem filter foldl' genericClosure head isAttrs isList isPath isString
    length mapAttrs partition removeAttrs sort tail typeOf zipAttrsWith;
  inherit (lib)
    imap1 isFunction isOption mkOption optional optionalAttrs optionalString setAttrByPath showFiles
    showOption types;
  inherit (lib.options) showDefs;

  tagOf = x: x._type or null;

  group = zipAttrsWith (_: entries: entries);

  # ---- load --------------------------------------------------------------

  # What may stand beside `config` and `options` in a module.
  reserved = [ "_class" "_file" "key" "disabledModules" "imports" "options" "config" "meta" "freeformType" ];
  reservedInShorthand = [ "_class" "_file" "key" "disabledModules" "require" "imports" "freeformType" ];

  # A module as written, to one form: { file; key; disabled; imports; options; config; }.
  normalise = file: key: m:
    let
      stray = attrNames (removeAttrs m reserved);
      common = {
        file = toString m._file or file;
        key = toString m.key or key;
        disabled = m.disabledModules or [ ];
      };
      freeform = optionalAttrs (m ? freeformType) { _module.freeformType = m.freeformType; };
      with' = extra: config: if extra == { } then config else mkMerge [ config extra ];
    in
    if m ? config || m ? options then
      if stray != [ ] then
        throw "Module `${common.key}' has an unsupported attribute `${head stray}'. This is caused by introducing a top-level `config' or `options' attribute. Add configuration attributes immediately on the top level instead, or move all of them (namely: ${toString stray}) into the explicit `config' attribute."
      else
        common // {
          imports = m.imports or [ ];
          options = m.options or { };
          config = with' (freeform // optionalAttrs (m ? meta) { inherit (m) meta; }) (m.config or { });
        }
    else
      common // {
        imports = m.require or [ ] ++ m.imports or [ ];
        options = { };
        config = with' freeform (removeAttrs m reservedInShorthand);
      };

  # Modules may ask by name for everything in specialArgs and in `_module.args`.
  applyArgs = file: args: f:
    let
      ask = name: _:
        builtins.addErrorContext "while evaluating the module argument `${name}' in \"${file}\":"
          (args.${name} or (args.config._module.args.${name} or (throw
            "attribute '${name}' missing: the module in `${file}' asks for the argument `${name}', which is neither in specialArgs nor in _module.args")));
    in
    f (args // mapAttrs ask (lib.functionArgs f));

  loadModule = args: file: key: m:
    if isFunction m then
      fromSet args file key (applyArgs file args m)
    else if isAttrs m then
      fromSet args file key m
    else if isList m then
      throw "Module imports can't be nested lists. Perhaps you meant to remove one level of lists? Definitions: ${
        showDefs [ { inherit file; value = m; } ]
      }"
    else if isPath m || isString m then
      let
        name = toString m;
        content = import m;
      in
      fromSet args name name (if isFunction content then applyArgs name args content else content)
    else
      throw "Expected a module, but found a value of type ${typeOf m} in `${file}'.";

  fromSet = args: file: key: m:
    if !isAttrs m then
      throw "module ${file} (${key}) does not look like a module."
    else if tagOf m == null || tagOf m == "module" then
      normalise file key m
    else if tagOf m == "if" || tagOf m == "override" then
      normalise file key { config = m; }
    else
      throw "Could not load a value as a module, because it is of type \"${toString (tagOf m)}\", in file ${file}.";

  # All modules that `modules` name, imports after the modules that import them.
  load = modulesPath: args: modules:
    let
      loadAll = parent: list: imap1 (n: loadModule args parent.file "${parent.key}:anon-${toString n}") list;
      top = loadAll { file = lib.options.unknownModule; key = ""; } modules;
      imports = module: loadAll module module.imports;

      every = genericClosure {
        startSet = top;
        operator = imports;
      };

      keyOf = module: x:
        if isString x then (if builtins.substring 0 1 x == "/" then x else "${modulesPath}/${x}")
        else if isPath x then toString x
        else if isAttrs x && x ? key then toString x.key
        else throw "Module `${module.file}' contains a disabledModules item that is no path and does not have a `key` attribute, so there is no telling which module it means.";
      disabled = concatMap (module: map (keyOf module) module.disabled) every;
      enabled = filter (module: !elem module.key disabled);
    in
    if disabled == [ ] then every
    else genericClosure {
      startSet = enabled top;
      operator = module: enabled (imports module);
    };

  # ---- match -------------------------------------------------------------

  # Properties around a set of definitions move to each of them, so that names
  # can be matched without evaluating a condition.
  spread = config:
    let tag = tagOf config;
    in
    if tag == "merge" then concatMap spread config.contents
    else if tag == "if" then map (mapAttrs (_: mkIf config.condition)) (spread config.content)
    else if tag == "override" then map (mapAttrs (_: mkOverride config.priority)) (spread config.content)
    else [ config ];

  spreadDefs = loc: defs:
    concatMap
      (def: map
        (value:
          if isAttrs value then def // { inherit value; }
          else throw ''
            In module `${def.file}', you're trying to define a value of type `${typeOf value}'
            rather than an attribute set for the option
            `${showOption loc}'!

            This usually happens if `${showOption loc}' has option
            definitions inside that are not matched. Please check how to properly define
            this option by e.g. referring to `man 5 configuration.nix'!'')
        (spread def.value))
      defs;

  # decls: [ { file; options; } ], defs: [ { file; value; } ] below the path loc.
  # Yields { options; undeclared = [ { loc; defs; } ]; }.
  matchLevel = loc: decls: defs:
    let
      declared = group (map
        (decl:
          if isAttrs decl.options then mapAttrs (_: options: decl // { inherit options; }) decl.options
          else throw ''
            An option declaration for `${showOption loc}' has type
            `${typeOf decl.options}' rather than an attribute set.
            Did you mean to define this outside of `options'?'')
        decls);
      defined = group (map (def: mapAttrs (_: value: def // { inherit value; }) def.value) (spreadDefs loc defs));
      nodes = mapAttrs (name: here: matchNode (loc ++ [ name ]) here (defined.${name} or [ ])) declared;
      strays = removeAttrs defined (attrNames declared);
    in
    {
      options = mapAttrs (_: node: node.options) nodes;
      undeclared =
        map (name: { loc = loc ++ [ name ]; defs = strays.${name}; }) (attrNames strays)
        ++ concatMap (node: node.undeclared) (builtins.attrValues nodes);
    };

  matchNode = loc: decls: defs:
    let
      sides = partition (decl: isOption decl.options) decls;
      nestable = all (decl: decl.options.type.name or null == "submodule") sides.right;
      # Options declared below an option that is a submodule belong to it.
      asSubmodule = decl: decl // {
        options = mkOption {
          type = types.submoduleWith {
            modules = [ { inherit (decl) options; } ];
            shorthandOnlyDefinesConfig = null;
          };
        };
      };
      wrong = filter (decl: tagOf decl.options != null) sides.wrong;
    in
    if wrong != [ ] then
      throw (wrongDeclaration loc (head wrong))
    else if sides.right == [ ] then
      matchLevel loc decls defs
    else {
      options =
        if sides.wrong == [ ] then evalOptionValue loc (mergeOptionDecls loc decls) defs
        else if nestable then evalOptionValue loc (mergeOptionDecls loc (map (decl: if isOption decl.options then decl else asSubmodule decl) decls)) defs
        else throw (parentOfOptions loc (head sides.right) sides.wrong);
      undeclared = [ ];
    };

  wrongDeclaration = loc: decl:
    let
      kind = if types.isOptionType decl.options then "option-type" else tagOf decl.options;
    in
    "In module ${decl.file}: expected an option declaration at option path `${showOption loc}` but got an attribute set with type ${toString kind}"
    + optionalString (kind == "option-type") ("\n\n" + ''
      When declaring an option, you must wrap the type in a `mkOption` call. It should look somewhat like:

          ${showOption loc} = lib.mkOption {
            description = ...;
            type = <the type you wrote for ${showOption loc}>;
            ...
          };'');

  parentOfOptions = loc: parent: children:
    let
      line = child: lib.concatMapStringsSep "\n"
        (name: "- option(s) with prefix `${showOption (loc ++ [ name ])}' in module `${child.file}'")
        (if isAttrs child.options then attrNames child.options else [ "" ]);
    in
    "The option `${showOption loc}' in module `${parent.file}' would be a parent of the following options, but its type `${
      parent.options.type.description or "<no description>"
    }' does not support nested options.\n${lib.concatMapStringsSep "\n" line children}";

  # Several declarations of one option, to one: { type; declarations; ... }.
  mergeOptionDecls = loc: decls:
    let
      alone = [ "default" "example" "description" "apply" ];

      # Options in a submodule say that they were declared in this file.
      typeOf' = decl:
        let
          type = decl.options.type;
          inner = type.getSubModules or null;
        in
        if inner == null then type
        else type.substSubModules (map (setDefaultModuleLocation decl.file) inner);

      prepare = decl:
        decl.options
        // { declarations = [ decl.file ]; }
        // optionalAttrs (decl.options ? type) { type = typeOf' decl; };

      add = merged: decl:
        let
          next = prepare decl;
          type = if merged ? type && next ? type then merged.type.typeMerge next.type.functor else null;
          clash = builtins.any (name: merged ? ${name} && next ? ${name}) alone
            || (merged ? type && next ? type && type == null);
        in
        if clash then
          throw "The option `${showOption loc}' in `${decl.file}' is already declared in ${showFiles merged.declarations}."
        else
          merged // next // { declarations = merged.declarations ++ next.declarations; }
          // optionalAttrs (type != null) { inherit type; };

      merged = foldl' add (prepare (head decls)) (tail decls);
    in
    { type = types.unspecified; } // merged // { inherit loc; };

  # ---- merge -------------------------------------------------------------

  warnDeprecated = loc: type: files:
    if type.deprecationMessage or null == null then lib.id
    else lib.warn "The type `types.${type.name}' of option `${showOption loc}' defined in ${showFiles files} is deprecated. ${type.deprecationMessage}";

  # The option with its value and with what is known about its definitions.
  evalOptionValue = loc: opt: defs:
    let
      all' = optional (opt ? default) { file = head opt.declarations; value = mkOptionDefault opt.default; } ++ defs;
      merged =
        if opt.readOnly or false && length all' > 1 then
          throw "The option `${showOption loc}' is read-only, but it's set multiple times. Definition values:${
            showDefs (map (def: def // { value = (mergeDefinitions loc opt.type [ def ]).mergedValue; }) all')
          }"
        else
          mergeDefinitions loc opt.type all';
      value = warnDeprecated loc opt.type opt.declarations ((opt.apply or lib.id) merged.mergedValue);
    in
    opt // {
      value = builtins.addErrorContext "while evaluating the option `${showOption loc}':" value;
      definitions = map (def: def.value) merged.defsFinal;
      definitionsWithLocations = map (def: { inherit (def) file value; }) merged.defsFinal;
      files = map (def: def.file) merged.defsFinal;
      inherit (merged) isDefined;
      inherit (merged.defsFinal') highestPrio;
      __toString = _: showOption loc;
    };

  # One option's definitions [ { file; value; } ], properties included, merged by
  # a type.
  mergeDefinitions = loc: type: defs:
    let
      defsFinal' =
        let kept = strongest (concatMap (def: map (value: def // { inherit value; }) (dischargeProperties def.value)) defs);
        in kept // { values = sortProperties kept.values; };
      defsFinal = defsFinal'.values;
      invalid = filter (def: !type.check def.value) defsFinal;
      isDefined = defsFinal != [ ];
      mergedValue =
        if !isDefined then
          throw "The option `${showOption loc}' was accessed but has no value defined. Try setting the option."
        else if invalid != [ ] then
          throw "A definition for option `${showOption loc}' is not of type `${type.description}'. Definition values:${showDefs invalid}"
        else
          type.merge loc defsFinal;
    in
    {
      inherit defsFinal' defsFinal isDefined mergedValue;
      optionalValue = optionalAttrs isDefined { value = mergedValue; };
    };

  # The values that remain of a definition when its mkMerge and mkIf are resolved.
  dischargeProperties = value:
    let tag = tagOf value;
    in
    if tag == "merge" then concatMap dischargeProperties value.contents
    else if tag == "if" then
      if !builtins.isBool value.condition then throw "‘mkIf’ called with a non-Boolean condition"
      else if value.condition then dischargeProperties value.content
      else [ ]
    else [ value ];

  # The definitions of the strongest, that is lowest, priority.
  strongest = defs:
    let
      priority = def: if tagOf def.value == "override" then def.value.priority else defaultOverridePriority;
      highestPrio = foldl' (found: def: lib.min found (priority def)) 9999 defs;
      strip = def: if tagOf def.value == "override" then def // { value = def.value.content; } else def;
    in
    {
      values = map strip (filter (def: priority def == highestPrio) defs);
      inherit highestPrio;
    };

  # Definitions in the order that mkOrder asks for, else as they came.
  sortProperties = defs:
    let
      ordered = def: tagOf def.value == "order";
      entry = def:
        if ordered def then { rank = def.value.priority; def = def // { value = def.value.content; }; }
        else { rank = defaultOrderPriority; inherit def; };
    in
    if builtins.any ordered defs
    then map (x: x.def) (sort (a: b: a.rank < b.rank) (map entry defs))
    else defs;

  # ---- properties --------------------------------------------------------

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };

  defaultOverridePriority = 100;
  defaultOrderPriority = 1000;
  mkOptionDefault = mkOverride 1500;

  setDefaultModuleLocation = file: m: { _file = file; imports = [ m ]; };

  # ---- renamed and removed options ---------------------------------------

  # Definitions of `option` for another place, under their own priority.
  aliasDefinitions = wrap: option:
    mkIf option.isDefined (wrap (mkMerge option.definitions));
  aliasDefinitionsWithPriority = wrap: option:
    mkIf option.isDefined (wrap (mkMerge (map (mkOverride option.highestPrio) option.definitions)));

  obsolete = from: to: "Obsolete option `${showOption from}' is used. It was renamed to `${showOption to}'.";

  # Where no module declares `warnings`, there is nobody to read them.
  warningsOf = options: messages: optionalAttrs (options ? warnings) { warnings = messages; };
in
rec {
  inherit defaultOverridePriority defaultOrderPriority mergeDefinitions mkIf mkMerge
    mkOptionDefault mkOrder mkOverride setDefaultModuleLocation;

  # Evaluates modules.
  #   modules         list of modules: paths, functions, attribute sets
  #   specialArgs     arguments that modules may use in `imports` too
  #   prefix          path of names before every option, in messages
  #   undeclaredHint  sentence to add to the message about an option that no
  #                   module declares, also within submodules
  # Yields { config; options; _module; extendModules; type; }.
  evalModules = { modules, specialArgs ? { }, prefix ? [ ], class ? null, undeclaredHint ? null }:
    let
      args = {
        inherit lib config options specialArgs;
        _class = class;
      } // specialArgs;

      internal = {
        _file = "lib/modules.nix";
        key = "lib/modules.nix";
        options._module = {
          args = mkOption {
            type = types.lazyAttrsOf types.raw;
            internal = prefix != [ ];
            description = "What modules may ask for by name, besides `lib`, `config`, `options` and `specialArgs`.";
          };
          check = mkOption {
            type = types.bool;
            internal = true;
            default = true;
            description = "Whether a definition of an option that no module declares is an error.";
          };
          freeformType = mkOption {
            type = types.nullOr types.optionType;
            internal = true;
            default = null;
            description = "Type by which definitions without a declared option are merged; null where there must be none.";
          };
          specialArgs = mkOption {
            readOnly = true;
            internal = true;
            description = "The arguments that were given to evalModules.";
          };
        };
        config._module = {
          args = { inherit extendModules moduleType; };
          inherit specialArgs;
        };
      };

      # Later modules come first, which is what the order of merged lists is by.
      loaded = lib.reverseList (load (toString (specialArgs.modulesPath or "")) args (modules ++ [ internal ]));
      hint = optionalAttrs (undeclaredHint != null) { inherit undeclaredHint; };

      matched = matchLevel prefix
        (map (m: { inherit (m) file options; }) loaded)
        (map (m: { inherit (m) file; value = m.config; } // hint) loaded);
      inherit (matched) options undeclared;

      collectValues = mapAttrs (_: option: if isOption option then option.value else collectValues option);
      declared = collectValues options;
      freeform = declared._module.freeformType;
      config =
        if freeform == null then declared
        else if undeclared == [ ] then declared
        else
          lib.recursiveUpdate
            (freeform.merge prefix (concatMap
              (entry: map (def: def // { value = setAttrByPath (lib.drop (length prefix) entry.loc) def.value; }) entry.defs)
              undeclared))
            declared;

      firstUndeclared = head undeclared;
      undeclaredMessage =
        "The option `${showOption firstUndeclared.loc}' does not exist. Definition values:${showDefs firstUndeclared.defs}"
        + optionalString (attrNames options == [ "_module" ]) (
          if prefix == [ ] then
            "\n\nIt seems as if you're trying to declare an option by placing it into `config' rather than `options'!"
          else
            "\n\nHowever there are no options defined in `${showOption prefix}'. Are you sure you've\ndeclared your options properly? This can happen if you e.g. declared your options in `types.submodule'\nunder `config' rather than `options'."
        )
        + optionalString (undeclaredHint != null) "\n\n${undeclaredHint}";
      checked = value:
        if declared._module.check && freeform == null && undeclared != [ ]
        then throw undeclaredMessage
        else value;

      extendModules = { modules ? [ ], specialArgs ? { }, prefix ? [ ] }@more:
        evalModules {
          modules = startModules ++ more.modules or [ ];
          specialArgs = startArgs // more.specialArgs or { };
          prefix = more.prefix or startPrefix;
          inherit class undeclaredHint;
        };
      startModules = modules;
      startArgs = specialArgs;
      startPrefix = prefix;

      moduleType = types.submoduleWith { inherit modules specialArgs class; };
    in
    {
      _type = "configuration";
      config = checked (removeAttrs config [ "_module" ]);
      options = checked options;
      _module = checked config._module;
      type = moduleType;
      inherit class extendModules;
    };

  mkAssert = assertion: message: mkIf (if assertion then true else throw "\nFailed assertion: ${message}");

  mkDefault = mkOverride 1000;
  mkImageMediaOverride = mkOverride 60;
  mkForce = mkOverride 50;
  mkVMOverride = mkOverride 10;

  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  mkAliasDefinitions = mkAliasAndWrapDefinitions lib.id;
  mkAliasAndWrapDefinitions = aliasDefinitions;
  mkAliasAndWrapDefsWithPriority = aliasDefinitionsWithPriority;
  mkAliasIfDef = option: mkIf option.isDefined;
  mkDerivedConfig = option: f: mkOverride (option.highestPrio or defaultOverridePriority) (f option.value);

  importJSON = file: { _file = file; config = lib.importJSON file; };
  importTOML = file: { _file = file; config = lib.importTOML file; };

  # An option under another name; definitions of the old name count for the new.
  doRename =
    { from, to, visible, warn, use, withPriority ? true, condition ? true }:
    { config, options, ... }:
    let
      old = lib.getAttrFromPath from options;
      new = lib.attrByPath to { } options;
      notThere = abort "Renaming error: option `${showOption to}' does not exist.";
      alias = if withPriority then aliasDefinitionsWithPriority else aliasDefinitions;
    in
    {
      options = setAttrByPath from (mkOption {
        inherit visible;
        description = "Alias of {option}`${showOption to}`.";
        type = if isOption new then new.type else types.unspecified;
        apply = _: use (lib.attrByPath to notThere config);
      });
      config = mkIf condition (mkMerge [
        (warningsOf options (optional (warn && old.isDefined)
          "The option `${showOption from}' defined in ${showFiles old.files} has been renamed to `${showOption to}'."))
        (alias (setAttrByPath to) old)
      ]);
    };

  mkRenamedOptionModule = from: to: doRename {
    inherit from to;
    visible = false;
    warn = true;
    use = builtins.trace (obsolete from to);
  };

  # sinceRelease: the release that renamed it, YYMM. Nobody is warned as long as
  # older releases are in use, whose users cannot use the new name yet.
  mkRenamedOptionModuleWith = { from, to, sinceRelease }:
    let known = lib.isInOldestRelease sinceRelease;
    in doRename {
      inherit from to;
      visible = false;
      warn = known;
      use = if known then builtins.trace (obsolete from to) else lib.id;
    };

  mkAliasOptionModule = from: to: doRename {
    inherit from to;
    visible = true;
    warn = false;
    use = lib.id;
  };
  mkAliasOptionModuleMD = mkAliasOptionModule;

  # An option that is gone: a definition is a failed assertion, reading it an error.
  mkRemovedOptionModule = path: instructions: { options, ... }:
    let option = lib.getAttrFromPath path options;
    in
    {
      options = setAttrByPath path (mkOption {
        visible = false;
        apply = _: throw "The option `${showOption path}' can no longer be used since it's been removed. ${instructions}";
      });
      config.assertions = [
        {
          assertion = !option.isDefined;
          message = ''
            The option definition `${showOption path}' in ${showFiles option.files} no longer has any effect; please remove it.
            ${instructions}
          '';
        }
      ];
    };

  # Old options whose values, together, make the value of a new one.
  mkMergedOptionModule = from: to: mergeFn: { config, options, ... }:
    let
      unset = "_mkMergedOptionModule";
      value = path: lib.getAttrFromPath path config;
      isSet = path: value path != unset;
    in
    {
      options = foldl' lib.recursiveUpdate { } (map
        (path: setAttrByPath path (mkOption {
          visible = false;
          # Any value, and a default that no person writes: the new option's value
          # then depends on what was set, not on how.
          default = unset;
        }))
        from);
      config =
        warningsOf options (map
          (path: "The option `${showOption path}' defined in ${
            showFiles (lib.getAttrFromPath path options).files
          } has been changed to `${showOption to}' that has a different type. Please read `${showOption to}' documentation and update your configuration accordingly.")
          (filter isSet from))
        // setAttrByPath to (mkMerge (optional (builtins.any isSet from) (mergeFn config)));
    };

  mkChangedOptionModule = from: to: changeFn: mkMergedOptionModule [ from ] to changeFn;
}
