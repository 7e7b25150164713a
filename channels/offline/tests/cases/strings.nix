{ lib }:
let
  inherit (lib) strings;
in
{
  concat.expr = {
    strings = lib.concatStrings [ "a" "" "b" ];
    empty = lib.concatStrings [ ];
    sep = lib.concatStringsSep ", " [ "a" "b" "c" ];
    sepOne = lib.concatStringsSep ", " [ "a" ];
    map = lib.concatMapStrings (x: "<${x}>") [ "a" "b" ];
    mapSep = lib.concatMapStringsSep "-" lib.toUpper [ "a" "b" ];
    imap = lib.concatImapStrings (i: x: "${toString i}${x}") [ "a" "b" ];
    imapSep = lib.concatImapStringsSep "-" (i: x: "${toString (i * 2)}${x}") [ "a" "b" ];
    lines = lib.concatLines [ "a" "b" ];
    linesNone = lib.concatLines [ ];
    intersperse = lib.intersperse "," [ "a" "b" "c" ];
    intersperseOne = lib.intersperse "," [ "a" ];
    intersperseNone = lib.intersperse "," [ ];
    replicate = strings.replicate 3 "ab";
    replicateNone = strings.replicate 0 "ab";
    optional = [ (lib.optionalString true "x") (lib.optionalString false "x") ];
  };

  asking.expr = {
    prefix = [ (lib.hasPrefix "a" "ab") (lib.hasPrefix "b" "ab") (lib.hasPrefix "" "") (lib.hasPrefix "abc" "ab") ];
    suffix = [ (lib.hasSuffix "b" "ab") (lib.hasSuffix "a" "ab") (lib.hasSuffix "" "") (lib.hasSuffix "cab" "ab") (lib.hasSuffix "ab" "ab") ];
    infix = [ (lib.hasInfix "b" "abc") (lib.hasInfix "" "") (lib.hasInfix "" "a") (lib.hasInfix "." "abc") (lib.hasInfix "\n" "a\nb") (lib.hasInfix "x" "") ];
    posix = map lib.isValidPosixName [ "a" "_A9" "9a" "a-b" "" ];
    stringLike = map strings.isStringLike [ "a" ./. { outPath = "x"; } { __toString = _: "x"; } 1 null [ ] { } ];
    convertible = map strings.isConvertibleWithToString [ "a" 1 2.5 null true [ "a" 1 ] [ { } ] { } (x: x) ];
    storePath = map lib.isStorePath [
      "${builtins.storeDir}/00000000000000000000000000000000-x"
      "${builtins.storeDir}/00000000000000000000000000000000-x/bin"
      "/etc"
      "x"
      ""
      1
    ];
    older = [ (lib.versionOlder "1.1" "1.2") (lib.versionOlder "1.2" "1.1") (lib.versionOlder "1.1" "1.1") (lib.versionOlder "1.9" "1.10") (lib.versionOlder "2pre1" "2") ];
    atLeast = [ (lib.versionAtLeast "1.1" "1.1") (lib.versionAtLeast "1.1" "1.2") (lib.versionAtLeast "1.10" "1.9") ];
    length = lib.stringLength "abc";
  };

  longText.expr =
    let text = strings.replicate 20000 "0123456789";
    in [ (lib.hasPrefix "0123" text) (lib.hasSuffix "789" text) (lib.stringLength (lib.removeSuffix "789" text)) ];

  removing.expr = {
    prefix = [ (lib.removePrefix "a" "ab") (lib.removePrefix "b" "ab") (lib.removePrefix "" "ab") (lib.removePrefix "ab" "ab") ];
    suffix = [ (lib.removeSuffix "b" "ab") (lib.removeSuffix "a" "ab") (lib.removeSuffix "" "ab") (lib.removeSuffix "ab" "ab") ];
    trim = map lib.trim [ "  a b\t\n" "" "  " "a" "\r\na" ];
    trimStart = strings.trimWith { start = true; } "  a  ";
    trimEnd = strings.trimWith { end = true; } "  a  ";
    trimNothing = strings.trimWith { } "  a  ";
  };

  splitting.expr = {
    plain = lib.splitString "." "a.b.c";
    ends = lib.splitString "." ".a..b.";
    none = lib.splitString "." "abc";
    empty = lib.splitString "." "";
    long = lib.splitString "::" "a::b:c";
    special = map (s: lib.splitString s "a${s}b") [ "(" "[" "\\" "*" "+" "?" "|" "^" "$" "{" ];
    chars = lib.stringToCharacters "abc";
    noChars = lib.stringToCharacters "";
    asChars = lib.stringAsChars (c: if c == "a" then "A" else c) "banana";
    lines = lib.splitString "\n" "a\nb\n";
    version = lib.splitVersion "1.2.3pre4";
  };

  splittingKeepsContext.expr =
    let
      drv = derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; };
    in
    map builtins.hasContext (lib.splitString "-" "a-${drv}");

  replacing.expr = {
    replace = lib.replaceStrings [ "a" "bb" ] [ "1" "2" ] "abbab";
    replaceEmpty = lib.replaceStrings [ "" ] [ "-" ] "ab";
    lower = lib.toLower "ÄBC-dE1";
    upper = lib.toUpper "äbc-dE1";
    width = [ (lib.fixedWidthString 5 "0" "12") (lib.fixedWidthString 2 "0" "12") (lib.fixedWidthNumber 4 7) ];
    sanitize = map strings.sanitizeDerivationName [ "a b" ".hidden" "" "a$$$b" "ok-1.2_3" ];
  };

  escaping.expr = {
    escape = lib.escape [ "a" "(" ] "(abc)";
    regex = lib.escapeRegex "[^a-z]*.(x)+?{2}|$\\";
    xml = lib.escapeXML ''"test" 'test' < & >'';
    shell = map lib.escapeShellArg [ "simple" "" "it's" "a b" "a/b:c=d" "%x@y_z,+" "\n" "~" "ä" ];
    shellOther = map lib.escapeShellArg [ 1 true false null ];
    shellArgs = lib.escapeShellArgs [ "one" "two three" "four'five" ];
    shellVar = [
      (lib.toShellVar "a" "it's")
      (lib.toShellVar "b" [ "x" "y z" ])
      (lib.toShellVar "c" { k = "v w"; "k 2" = "x"; })
      (lib.toShellVar "d" 1)
    ];
    shellVars = lib.toShellVars { a = "1"; b = [ "2" ]; };
    nixString = map strings.escapeNixString [ "a" ''a"b'' "\${x}" "a\\b" "\n" ];
    nixIdentifier = map strings.escapeNixIdentifier [ "a" "a-b'" "a.b" "1a" "" "$" ];
    c = strings.escapeC [ " " "-" ] "a b-c";
    url = strings.escapeURL "a b/ä?&-_.~";
  };

  numbers.expr = {
    toInt = map lib.toInt [ "1" "-1" " 12 " "0" "1337" ];
    base10 = map lib.toIntBase10 [ "0123" " 7 " "00" "0" ];
    float = map strings.floatToString [ 1.5 0.25 ];
    char = map strings.charToInt [ " " "a" "~" "\n" ];
    fromJSON = lib.importJSON ../modules/data.json;
    fileContents = lib.fileContents ../modules/data.txt;
  };
  toIntText = { error = lib.toInt "a"; match = [ "toInt: Could not convert \"a\" to int." ]; };
  toIntTwo = { error = lib.toInt "1 2"; match = [ "toInt: Could not convert \"1 2\" to int." ]; };
  toIntFloat = { error = lib.toInt "1.5"; match = [ "toInt: Could not convert \"1.5\" to int." ]; };
  toIntEmpty = { error = lib.toInt ""; match = [ "toInt: Could not convert \"\" to int." ]; };
  toIntOctal = { error = lib.toInt "0123"; match = [ "toInt: Ambiguity in interpretation of \"0123\" between octal and zero padded integer." ]; };
  toIntBase10Text = { error = lib.toIntBase10 "x1"; match = [ "toIntBase10: Could not convert \"x1\" to int." ]; };
  tooWide = { error = lib.fixedWidthString 1 "0" "12"; match = [ "fixedWidthString: requested string length (1) must not be shorter than actual length (2)" ]; };

  names.expr = {
    name = [ (lib.getName "hello-1.2") (lib.getName { pname = "p"; version = "3"; }) (lib.getName { name = "x-y-1.0"; }) ];
    version = [ (lib.getVersion "hello-1.2") (lib.getVersion { pname = "p"; version = "3"; }) (lib.getVersion { name = "x-y-1.0"; }) ];
    url = lib.nameFromURL "https://x.org/a/hello-1.2.tar.gz" "-";
    paths = {
      search = lib.makeSearchPath "bin" [ "/a" "/b" ];
      bin = lib.makeBinPath [ { outPath = "/o"; bin = "/b"; } "/p" ];
      lib = lib.makeLibraryPath [ { outPath = "/o"; lib = "/l"; } ];
      none = lib.makeBinPath [ ];
    };
    features = [ (lib.enableFeature true "x") (lib.enableFeature false "x") (lib.enableFeatureAs true "x" "1") (lib.withFeature false "x") (lib.withFeatureAs true "x" "y") ];
  };

  versions.expr = {
    major = map lib.versions.major [ "1.2.3" "1" ];
    minor = map lib.versions.minor [ "1.2.3" "1.2" ];
    patch = lib.versions.patch "1.2.3";
    majorMinor = map lib.versions.majorMinor [ "1.2.3" "1.2" ];
    pad = [ (lib.versions.pad 3 "1.2") (lib.versions.pad 3 "1.2-rc1") (lib.versions.pad 2 "1.2.3") ];
  };
}
