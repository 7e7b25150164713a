# Functions on single values: conditions, numbers, messages, function arguments.
{ lib }:
let
  inherit (builtins) bitAnd bitOr bitXor elemAt functionArgs isAttrs isFunction lessThan trace;

  hexDigits = [ "0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "A" "B" "C" "D" "E" "F" ];

  callable = f: isFunction f || (isAttrs f && f ? __functor);
in
rec {
  inherit (builtins)
    add bitAnd bitOr bitXor deepSeq genericClosure isBool isFloat isInt lessThan pathExists readFile
    seq sub;

  # The release whose behaviour this library follows.
  release = "24.11";
  versionSuffix = "-offline";
  version = release + versionSuffix;
  # The oldest release still in use, YYMM.
  oldestSupportedRelease = 2405;
  isInOldestRelease = since: since <= oldestSupportedRelease;

  id = x: x;
  const = x: _: x;
  flip = f: a: b: f b a;
  pipe = lib.lists.foldl' (value: f: f value);
  concat = a: b: a ++ b;
  mergeAttrs = a: b: a // b;

  "or" = a: b: a || b;
  and = a: b: a && b;
  xor = a: b: a != b;
  bitNot = n: -1 - n;

  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;
  mod = a: b: a - b * (a / b);
  compare = a: b: if a < b then -1 else if a > b then 1 else 0;

  boolToString = b: if b then "true" else "false";
  mapNullable = f: value: if value == null then null else f value;

  importJSON = file: builtins.fromJSON (builtins.readFile file);
  importTOML = file: builtins.fromTOML (builtins.readFile file);
  inNixShell = builtins.getEnv "IN_NIX_SHELL" != "";
  inPureEvalMode = !(builtins ? currentSystem);

  # The digits of a non-negative number in a base, the highest first.
  toBaseDigits = base: n:
    let digits = rest: if rest < base then [ rest ] else digits (rest / base) ++ [ (mod rest base) ];
    in
    assert lib.assertMsg (builtins.isInt base && base >= 2) "toBaseDigits: the base must be an integer of at least 2.";
    assert lib.assertMsg (builtins.isInt n && n >= 0) "toBaseDigits: the number must be an integer of at least 0.";
    digits n;
  toHexString = n: lib.concatMapStrings (elemAt hexDigits) (toBaseDigits 16 n);

  # Messages. A warning goes to standard error and does not change the value.
  warn = message: trace "evaluation warning: ${message}";
  warnIf = condition: message: if condition then warn message else id;
  warnIfNot = condition: warnIf (!condition);
  info = message: trace "INFO: ${message}";
  showWarnings = messages: value: lib.foldr warn value messages;
  throwIfNot = condition: message: if condition then id else throw message;
  throwIf = condition: throwIfNot (!condition);

  checkListOfEnum = what: allowed: given:
    let unknown = lib.subtractLists allowed given;
    in
    throwIfNot (unknown == [ ])
      "${what}: ${lib.concatStringsSep ", " unknown} unexpected; valid ones: ${lib.concatStringsSep ", " allowed}";

  # A function may be an attribute set with `__functor`; `__functionArgs` then
  # says what it takes.
  isFunction = callable;
  functionArgs = f:
    if f ? __functor then f.__functionArgs or (functionArgs (f.__functor f)) else builtins.functionArgs f;
  setFunctionArgs = f: args: { __functor = _: f; __functionArgs = args; };
  mirrorFunctionArgs = model: f: setFunctionArgs f (functionArgs model);
  toFunction = value: if callable value then value else _: value;
}
