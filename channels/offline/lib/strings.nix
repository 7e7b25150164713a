# Strings.
{ lib }:
let
  inherit (builtins) concatStringsSep elem genList head isList isString match replaceStrings stringLength substring;

  stringToCharacters = text: genList (i: substring i 1 text) (stringLength text);

  lowerLetters = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
  upperLetters = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  blanks = [ " " "\t" "\r" "\n" ];

  # Printable ASCII from code 32 on, and the control characters that texts hold.
  printable = stringToCharacters " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
  asciiCode = builtins.listToAttrs (lib.imap0 (i: name: { inherit name; value = i + 32; }) printable)
    // { "\t" = 9; "\n" = 10; "\r" = 13; };
  hexCode = char: lib.fixedWidthString 2 "0" (lib.toHexString asciiCode.${char});

  unreserved = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";
  reserved = lib.subtractLists unreserved (builtins.attrNames asciiCode);
in
rec {
  inherit (builtins)
    compareVersions concatStringsSep elem elemAt filter fromJSON head isInt isList isPath isString
    match parseDrvName readFile replaceStrings split storeDir stringLength substring tail
    toJSON typeOf unsafeDiscardStringContext;

  inherit stringToCharacters;

  # Joining.
  concatStrings = concatStringsSep "";
  concatMapStrings = f: list: concatStrings (map f list);
  concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
  concatImapStrings = f: list: concatStrings (lib.imap1 f list);
  concatImapStringsSep = separator: f: list: concatStringsSep separator (lib.imap1 f list);
  concatMapAttrsStringSep = separator: f: set: concatStringsSep separator (lib.mapAttrsToList f set);
  concatLines = concatMapStrings (line: line + "\n");
  intersperse = separator: list:
    if list == [ ] then list
    else [ (head list) ] ++ lib.concatMap (x: [ separator x ]) (builtins.tail list);
  replicate = n: text: concatStrings (genList (_: text) n);
  optionalString = condition: text: if condition then text else "";
  makeSearchPath = folder: packages: concatMapStringsSep ":" (package: "${package}/${folder}") (lib.remove null packages);
  makeSearchPathOutput = output: folder: packages: makeSearchPath folder (map (lib.getOutput output) packages);
  makeBinPath = makeSearchPathOutput "bin" "bin";
  makeLibraryPath = makeSearchPathOutput "lib" "lib";

  # Asking.
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix = suffix: text:
    let start = stringLength text - stringLength suffix;
    in start >= 0 && substring start (-1) text == suffix;
  # Leaving out the searched part changes the text if it is there: unlike a
  # regular expression, this takes texts of any length.
  hasInfix = infix: text:
    let whole = toString text;
    in infix == "" || replaceStrings [ infix ] [ "" ] whole != whole;
  isStringLike = x: isString x || builtins.isPath x || x ? outPath || x ? __toString;
  isConvertibleWithToString = x:
    isStringLike x || elem (builtins.typeOf x) [ "null" "int" "float" "bool" ]
    || (isList x && builtins.all isConvertibleWithToString x);
  isStorePath = x:
    isStringLike x && hasPrefix "/" (toString x) && dirOf (toString x) == builtins.storeDir;
  isValidPosixName = name: match "[a-zA-Z_][a-zA-Z0-9_]*" name != null;
  versionOlder = a: b: builtins.compareVersions a b < 0;
  versionAtLeast = a: b: !versionOlder a b;

  # Taking apart.
  removePrefix = prefix: text:
    if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  removeSuffix = suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  splitString = separator: text:
    map (addContextFrom text)
      (builtins.filter isString (builtins.split (escapeRegex (toString separator)) (toString text)));
  trim = trimWith { start = true; end = true; };
  trimWith = { start ? false, end ? false }: text:
    let
      blankAt = i: elem (substring i 1 text) blanks;
      forward = i: if i < stringLength text && blankAt i then forward (i + 1) else i;
      backward = i: if i > first && blankAt (i - 1) then backward (i - 1) else i;
      first = if start then forward 0 else 0;
      end' = if end then backward (stringLength text) else stringLength text;
    in
    substring first (end' - first) text;
  stringAsChars = f: text: concatStrings (map f (stringToCharacters text));
  charToInt = char: asciiCode.${char};
  fileContents = file: removeSuffix "\n" (builtins.readFile file);
  getName = x: if isString x then (builtins.parseDrvName x).name else x.pname or (builtins.parseDrvName x.name).name;
  getVersion = x: if isString x then (builtins.parseDrvName x).version else x.version or (builtins.parseDrvName x.name).version;
  nameFromURL = url: separator:
    let
      file = lib.last (splitString "/" url);
      name = head (splitString separator file);
    in
    assert name != file;
    name;

  # Numbers. Leading zeros may mean octal, so `toInt` refuses them.
  toInt = text:
    let
      digits = match "[[:space:]]*-?[[:digit:]]+[[:space:]]*" text;
      zeroPadded = match "[[:space:]]*0[[:digit:]]+[[:space:]]*" text != null;
    in
    if zeroPadded then
      throw "toInt: Ambiguity in interpretation of ${escapeNixString text} between octal and zero padded integer."
    else if digits == null then
      throw "toInt: Could not convert ${escapeNixString text} to int."
    else
      toIntBase10 text;
  toIntBase10 = text:
    let
      parts = match "[[:space:]]*(-?)0*([[:digit:]]+)[[:space:]]*" text;
    in
    if parts == null then
      throw "toIntBase10: Could not convert ${escapeNixString text} to int."
    else
      builtins.fromJSON (concatStrings parts);
  floatToString = number: let text = toString number; in assert number == builtins.fromJSON text; text;

  # Changing.
  toLower = replaceStrings upperLetters lowerLetters;
  toUpper = replaceStrings lowerLetters upperLetters;
  # The text with the store paths that `source` depends on.
  addContextFrom = source: text: substring 0 0 source + text;
  fixedWidthString = width: filler: text:
    let missing = width - stringLength text;
    in
    assert lib.assertMsg (missing >= 0)
      "fixedWidthString: requested string length (${toString width}) must not be shorter than actual length (${toString (stringLength text)})";
    replicate missing filler + text;
  fixedWidthNumber = width: number: fixedWidthString width "0" (toString number);
  sanitizeDerivationName = text:
    let
      # A store path's name has no leading dot, and letters, digits and +-._?= only.
      undotted = head (match "\\.*(.*)" (builtins.unsafeDiscardStringContext (toString text)));
      clean = concatMapStrings (part: if isList part then "-" else part) (builtins.split "[^[:alnum:]+._?=-]+" undotted);
      short = substring (lib.max (stringLength clean - 207) 0) (-1) clean;
    in
    if short == "" then "unknown" else short;

  # Escaping.
  escape = chars: replaceStrings chars (map (char: "\\${char}") chars);
  escapeC = chars: replaceStrings chars (map (char: "\\x${toLower (hexCode char)}") chars);
  escapeURL = replaceStrings reserved (map (char: "%${hexCode char}") reserved);
  escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
  escapeXML = replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
  escapeShellArg = x:
    let text = toString x;
    in if match "[[:alnum:],._+:@%/-]+" text != null then text else "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  escapeNixString = text: escape [ "$" ] (builtins.toJSON text);
  escapeNixIdentifier = name:
    if match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null then name else escapeNixString name;
  toShellVar = name: value:
    assert lib.assertMsg (isValidPosixName name) "toShellVar: ${name} is not a valid shell variable name";
    if builtins.isAttrs value && !isStringLike value then
      "declare -A ${name}=(${concatStringsSep " " (lib.mapAttrsToList (key: item: "[${escapeShellArg key}]=${escapeShellArg item}") value)})"
    else if isList value then
      "declare -a ${name}=(${escapeShellArgs value})"
    else
      "${name}=${escapeShellArg value}";
  toShellVars = vars: concatStringsSep "\n" (lib.mapAttrsToList toShellVar vars);

  # Flags of configure scripts and build systems.
  enableFeature = flag: feature: "--${if flag then "enable" else "disable"}-${feature}";
  enableFeatureAs = flag: feature: value: enableFeature flag feature + optionalString flag "=${value}";
  withFeature = flag: feature: "--${if flag then "with" else "without"}-${feature}";
  withFeatureAs = flag: feature: value: withFeature flag feature + optionalString flag "=${value}";
}
