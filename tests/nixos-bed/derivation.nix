# stdenv.mkDerivation as far as NixOS' modules use it, on the machine's own tools: commands or
# phases in bash, inputs on PATH, substitute and its kin (builder.sh).
{ lib, system }:
let
  # What describes a package and is no part of its build.
  described = [ "meta" "passthru" "nativeBuildInputs" "buildInputs" "propagatedBuildInputs" "pname" "version" "outputs" "__structuredAttrs" "strictDeps" ];

  finish = extra: drv: lib.fix (self: drv // extra // {
    out = self;
    overrideAttrs = change:
      let changed = if lib.isFunction change then change drv.drvAttrs else change;
      in finish extra (derivation (drv.drvAttrs // removeAttrs changed described));
    override = _: finish extra drv;
    meta = extra.meta or { };
    passthru = extra.passthru or { };
  });

  mkDerivation = args:
    let
      given = if lib.isFunction args then lib.fix args else args;
      inputs = lib.filter (input: input != null) (given.nativeBuildInputs or [ ] ++ given.buildInputs or [ ]);
      environment = removeAttrs given described;
    in
    finish
      (given.passthru or { } // {
        passthru = given.passthru or { };
        meta = given.meta or { };
        pname = given.pname or given.name;
        version = given.version or "0";
      })
      (derivation (environment // {
        inherit system;
        __ignoreNulls = true;
        name = lib.strings.sanitizeDerivationName (given.name or "${given.pname}-${given.version}");
        builder = "/bin/sh";
        args = [ "-c" ''exec /usr/bin/bash -e "$bedBuilder"'' ];
        bedBuilder = ./builder.sh;
        bedSubstitute = ./substitute.py;
        inputPath = lib.makeBinPath inputs;
        # Texts of any length.
        passAsFile = lib.unique (given.passAsFile or [ ] ++ lib.optional (given ? buildCommand) "buildCommand");
        LC_ALL = "C.UTF-8";
        preferLocalBuild = true;
        allowSubstitutes = false;
      }));
in
{ inherit finish mkDerivation; }
