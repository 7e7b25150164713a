# Derivations' meta data and their outputs' programs.
{ lib }:
rec {
  getExe = package:
    getExe' package (package.meta.mainProgram or (lib.warn
      "getExe: package ${lib.getName package} has no meta.mainProgram, so its program is taken to have the package's name. Set meta.mainProgram, or name the program with getExe'."
      (lib.getName package)));

  getExe' = package: program:
    assert lib.assertMsg (lib.isDerivation package)
      "lib.meta.getExe': The first argument is of type ${builtins.typeOf package}, but it should be a derivation instead.";
    assert lib.assertMsg (lib.isString program)
      "lib.meta.getExe': The second argument is of type ${builtins.typeOf program}, but it should be a string instead.";
    assert lib.assertMsg (builtins.length (lib.splitString "/" program) == 1)
      "lib.meta.getExe': The second argument \"${program}\" is a nested path with a \"/\" character, but it should just be the name of the executable instead.";
    "${lib.getBin package}/bin/${program}";

  addMetaAttrs = added: package: package // { meta = package.meta or { } // added; };

  setName = name: package: package // { inherit name; };

  # Priorities of files that several packages of an environment hold: lower wins.
  setPrio = priority: addMetaAttrs { inherit priority; };
  lowPrio = setPrio 10;
  hiPrio = setPrio (-10);
}
