{ lib }:
{
  functions.expr = {
    id = lib.id 1;
    const = lib.const 1 2;
    flip = lib.flip (a: b: a - b) 1 10;
    pipe = lib.pipe 2 [ (x: x + 2) (x: x * 10) ];
    pipeNone = lib.pipe 2 [ ];
    concat = lib.concat [ 1 ] [ 2 ];
    merge = lib.mergeAttrs { a = 1; b = 2; } { b = 3; };
    mapNullable = [ (lib.mapNullable (x: x + 1) null) (lib.mapNullable (x: x + 1) 1) ];
    toFunction = [ (lib.toFunction 1 2) (lib.toFunction (x: x + 1) 2) ];
    isFunction = map lib.isFunction [ (x: x) { __functor = _: x: x; } { } 1 ];
    args = lib.functionArgs ({ a, b ? 1, ... }: a);
    setArgs = lib.functionArgs (lib.setFunctionArgs (x: x) { a = false; });
    setArgsCall = lib.setFunctionArgs (x: x + 1) { } 1;
    mirror = lib.functionArgs (lib.mirrorFunctionArgs ({ a, b ? 1 }: a) (x: x));
    functorArgs = lib.functionArgs { __functor = _: { a }: a; };
  };

  logic.expr = {
    or = [ (lib.or true false) (lib.or false false) ];
    and = [ (lib.and true true) (lib.and true false) ];
    xor = [ (lib.xor true false) (lib.xor true true) ];
    bool = map lib.boolToString [ true false ];
    bits = [ (lib.bitAnd 6 3) (lib.bitOr 6 3) (lib.bitXor 6 3) (lib.bitNot 5) ];
    isInt = map lib.isInt [ 1 1.0 "1" ];
    isFloat = map lib.isFloat [ 1 1.0 ];
    isBool = map lib.isBool [ true 1 ];
    isString = map lib.isString [ "x" ./. ];
    isList = map lib.isList [ [ ] { } ];
    isAttrs = map lib.isAttrs [ { } [ ] ];
    isPath = map lib.isPath [ ./. "/x" ];
  };

  numbers.expr = {
    min = lib.min 1 2;
    max = lib.max 1 2;
    mod = [ (lib.mod 7 3) (lib.mod 6 3) (lib.mod 1 3) ];
    compare = [ (lib.compare 1 2) (lib.compare 2 2) (lib.compare 3 2) (lib.compare "a" "b") ];
    add = [ (lib.add 1 2) (lib.sub 1 2) (lib.lessThan 1 2) ];
    hex = map lib.toHexString [ 0 15 16 255 4096 ];
    digits = [ (lib.toBaseDigits 10 123) (lib.toBaseDigits 2 6) (lib.toBaseDigits 16 0) ];
  };

  messages.expr = {
    warn = lib.warn "shown in the log" 1;
    warnIf = [ (lib.warnIf false "x" 1) (lib.warnIfNot true "x" 1) ];
    throwIf = [ (lib.throwIf false "x" 1) (lib.throwIfNot true "x" 1) ];
    assertMsg = lib.assertMsg true "x";
    assertOneOf = lib.assertOneOf "x" 1 [ 1 2 ];
    traces = [ (lib.traceVal 1) (lib.traceIf false "x" 2) (lib.traceSeq { a = 1; } 3) (lib.traceValSeq 4) (lib.info "x" 5) ];
    enum = lib.checkListOfEnum "colour" [ "red" "blue" ] [ "red" ] "ok";
    context = lib.addErrorContext "x" 1;
  };
  throwIf = { error = lib.throwIf true "this went wrong" 1; match = [ "this went wrong" ]; };
  throwIfNot = { error = lib.throwIfNot false "this went wrong" 1; match = [ "this went wrong" ]; };
  assertMsg = { error = assert lib.assertMsg false "must be so"; 1; match = [ "must be so" ]; };
  assertOneOf = { error = lib.assertOneOf "level" "x" [ "a" "b" ]; match = [ "level must be one of [" "but is: \"x\"" ]; };
  enumUnexpected = { error = lib.checkListOfEnum "colour" [ "red" ] [ "green" ] 1; match = [ "colour: green unexpected; valid ones: red" ]; };

  fixedPoints.expr = {
    fix = lib.fix (self: { a = 1; b = self.a + 1; });
    extends = lib.fix (lib.extends (final: prev: { a = prev.a + 10; c = final.b; }) (self: { a = 1; b = self.a + 1; }));
    compose = lib.fix (lib.extends (lib.composeExtensions (f: p: { a = p.a + 1; }) (f: p: { a = p.a * 10; })) (self: { a = 1; }));
    composeMany = lib.fix (lib.extends (lib.composeManyExtensions [ (f: p: { a = p.a + 1; }) (f: p: { b = f.a; }) (f: p: { a = p.a * 10; }) ]) (self: { a = 1; }));
    extensible = ((lib.makeExtensible (self: { a = 1; b = self.a; })).extend (final: prev: { a = 2; })).b;
    converge = lib.converge (x: x / 2) 16;
    libItself = (lib.extend (final: prev: { ours = prev.toUpper "x"; twice = final.ours + final.ours; })).twice;
  };

  customisation.expr =
    let
      f = { a, b ? 2 }: { sum = a + b; inherit a b; };
      call = lib.callPackageWith { a = 1; c = 9; } f { };
    in
    {
      call = [ call.sum (lib.callPackageWith { a = 1; b = 5; } f { b = 7; }).sum ];
      override = [ (call.override { a = 10; }).sum (call.override (old: { a = old.a + 5; })).sum ];
      twice = ((call.override { a = 10; }).override { b = 0; }).sum;
      overridable = (lib.makeOverridable f { a = 1; }).sum;
      file = (lib.callPackageWith { word = "x"; } ../modules/package.nix { }).text;
      several = lib.mapAttrs (_: v: v.v) (lib.callPackagesWith { a = 1; } ({ a }: { x = { v = a; }; y = { v = a + 1; }; }) { });
    };
  missingArgument = {
    error = lib.callPackageWith { other = 1; } ../modules/package.nix { };
    match = [ "lib.customisation.callPackageWith: Function called without required argument \"word\"" "package.nix" ];
  };

  textClosure.expr =
    let
      pieces = {
        a = lib.stringAfter [ "b" "c" ] "A";
        b = lib.fullDepEntry "B" [ "c" ];
        c = lib.noDepEntry "C";
        d = lib.noDepEntry "D";
        e = lib.packEntry [ "d" ];
      };
    in
    {
      list = lib.textClosureList pieces [ "a" "d" ];
      map = lib.textClosureMap (x: "<${x}>") pieces [ "a" "e" "d" ];
    };

  files.expr = {
    type = map lib.pathType [ ../modules ../modules/data.txt ];
    isDirectory = map lib.pathIsDirectory [ ../modules ../modules/data.txt ../modules/none ];
    isRegular = map lib.pathIsRegularFile [ ../modules ../modules/data.txt ];
    exists = map lib.pathExists [ ../modules ../modules/none ];
    recursive = map baseNameOf (lib.filesystem.listFilesRecursive ../modules/tree);
  };
  noSuchFile = { error = lib.pathType ../modules/none; match = [ "lib.filesystem.pathType: Path" "does not exist." ]; };

  commandLine.expr = {
    list = lib.cli.toGNUCommandLine { } { data = "x y"; X = "PUT"; retry = 3; url = [ "a" "b" ]; silent = false; verbose = true; none = null; };
    shell = lib.cli.toGNUCommandLineShell { } { data = "x y"; v = true; };
    separator = lib.cli.toGNUCommandLine { optionValueSeparator = "="; } { a = 1; bb = [ 2 3 ]; };
  };
}
