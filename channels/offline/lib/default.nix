# The part of nixpkgs' `lib` that NixOS modules and ordinary provision.nix files
# use, written anew so that channels/offline needs no nixpkgs. Names, results and
# error messages follow nixpkgs' manual; channels/offline/tests holds the two
# against each other. What is not here is missing on purpose: Nix then names the
# attribute and the line that asked for it.
#
# Works with Nix 2.8 and later.
let
  make = lib:
    let
      load = file: import file { inherit lib; };

      sets = {
        asserts = load ./asserts.nix;
        attrsets = load ./attrsets.nix;
        cli = load ./cli.nix;
        customisation = load ./customisation.nix;
        debug = load ./debug.nix;
        filesystem = load ./filesystem.nix;
        fixedPoints = load ./fixed-points.nix;
        generators = load ./generators.nix;
        lists = load ./lists.nix;
        meta = load ./meta.nix;
        modules = load ./modules.nix;
        options = load ./options.nix;
        sources = load ./sources.nix;
        strings = load ./strings.nix;
        stringsWithDeps = load ./strings-with-deps.nix;
        trivial = load ./trivial.nix;
        types = load ./types.nix;
        versions = load ./versions.nix;
      };
    in
    # Most functions are also found directly under `lib`, as in nixpkgs.
    sets
    // removeAttrs sets.trivial [ "oldestSupportedRelease" "release" "versionSuffix" ]
    // sets.fixedPoints
    // removeAttrs sets.lists [ "commonPrefix" "findFirstIndex" "hasPrefix" "removePrefix" "replicate" ]
    // removeAttrs sets.strings [
      "charToInt" "compareVersions" "escapeC" "escapeNixIdentifier" "escapeNixString" "floatToString" "fromJSON"
      "isConvertibleWithToString" "parseDrvName" "replicate" "sanitizeDerivationName" "storeDir" "toJSON"
      "unsafeDiscardStringContext"
    ]
    // removeAttrs sets.attrsets [ "unionOfDisjoint" ]
    // sets.stringsWithDeps
    // sets.asserts
    // sets.customisation
    // sets.debug
    // sets.meta
    // removeAttrs sets.modules [
      "defaultOrderPriority" "defaultOverridePriority" "importJSON" "importTOML"
      "mkAliasAndWrapDefsWithPriority" "mkAliasIfDef"
    ]
    // removeAttrs sets.options [ "showDefs" ]
    // {
      inherit (builtins) addErrorContext trace unsafeGetAttrPos;
      inherit (sets.lists) replicate;
      inherit (sets.types) defaultFunctor defaultTypeMerge isOptionType isType mkOptionType setType;
      inherit (sets.filesystem) pathIsDirectory pathIsRegularFile pathType;
      inherit (sets.sources) cleanSource cleanSourceFilter cleanSourceWith sourceFilesBySuffices;
      inherit (sets.versions) splitVersion;

      # Hashes of nothing, for a first build that tells the true one.
      fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
      fakeSha256 = "0000000000000000000000000000000000000000000000000000000000000000";
    };

  inherit (import ./fixed-points.nix { inherit lib; }) makeExtensible;
  lib = makeExtensible make;
in
lib
