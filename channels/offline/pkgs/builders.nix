# The trivial builders, made of `derivation` alone. The build environment is the
# host's /usr in Nix' sandbox: /bin/sh, and PATH=/usr/bin:/bin.
{ lib, system }:
let
  # One derivation. `script` runs in /bin/sh -eu and must make $out; the files of
  # the attribute set `files` are handed to it as paths in variables of their names.
  build =
    { name
    , script
    , files ? { }
    , env ? { }
    , shell ? "/bin/sh -eu"
    , meta ? { }
    , passthru ? { }
    }:
    let
      drv = derivation (env // files // {
        inherit name system script;
        builder = "/bin/sh";
        args = [ "-c" "exec ${shell} \"$scriptPath\"" ];
        passAsFile = [ "script" ] ++ lib.attrNames files;
        PATH = "/usr/bin:/bin:/usr/sbin:/sbin";
        LC_ALL = "C.UTF-8";
        preferLocalBuild = true;
        allowSubstitutes = false;
      });
    in
    drv // passthru // {
      inherit name meta passthru;
    };

  executableName = name: meta: { mainProgram = name; } // meta;

  writeTextFile =
    { name
    , text
    , executable ? false
    , destination ? ""
    , checkPhase ? ""
    , meta ? { }
    , passthru ? { }
    , derivationArgs ? { }
    , preferLocalBuild ? true
    , allowSubstitutes ? false
    }:
    build {
      inherit name passthru;
      env = derivationArgs;
      files = { inherit text; };
      meta = lib.optionalAttrs (executable && destination != "") { mainProgram = baseNameOf destination; } // meta;
      script = ''
        target=$out${lib.escapeShellArg destination}
        mkdir -p "$(dirname "$target")"
        cp "$textPath" "$target"
        chmod ${if executable then "0755" else "0644"} "$target"
      '' + lib.optionalString (checkPhase != "") ''
        ${checkPhase}
      '';
    };

  runtimeShell = "/usr/bin/bash";

  checkSyntax = ''/usr/bin/bash -n "$target"'';

  writeShellScript = name: text: writeTextFile {
    inherit name;
    executable = true;
    text = "#!${runtimeShell}\n${text}\n";
    checkPhase = checkSyntax;
  };

  runCommandWith = { name, derivationArgs ? { }, ... }: command:
    build {
      inherit name;
      env = removeAttrs derivationArgs [ "meta" "passthru" "nativeBuildInputs" "buildInputs" "passAsFile" ];
      meta = derivationArgs.meta or { };
      passthru = derivationArgs.passthru or { };
      shell = "/usr/bin/bash -eu";
      # The values that nixpkgs' build environment would have passed as files.
      files = lib.genAttrs (derivationArgs.passAsFile or [ ]) (attribute: derivationArgs.${attribute});
      script =
        let
          inputs = derivationArgs.nativeBuildInputs or [ ] ++ derivationArgs.buildInputs or [ ];
        in
        lib.optionalString (inputs != [ ]) "export PATH=${lib.makeBinPath inputs}:$PATH\n" + command;
    };

  buildEnv =
    { name
    , paths
    , pathsToLink ? [ "/" ]
    , ignoreCollisions ? false
    , postBuild ? ""
    , meta ? { }
    , passthru ? { }
    , ...
    }:
    build {
      inherit name meta passthru;
      files.manifest = builtins.toJSON { inherit pathsToLink ignoreCollisions; paths = map toString paths; };
      script = "python3 -I -S ${./merge.py} \"$manifestPath\"\n" + postBuild;
    };
in
{
  inherit build buildEnv writeTextFile writeShellScript runCommandWith runtimeShell;

  writeText = name: text: writeTextFile { inherit name text; };

  writeTextDir = path: text: writeTextFile {
    inherit text;
    name = baseNameOf path;
    destination = "/${path}";
  };

  writeScript = name: text: writeTextFile { inherit name text; executable = true; };

  writeScriptBin = name: text: writeTextFile {
    inherit name text;
    executable = true;
    destination = "/bin/${name}";
  };

  writeShellScriptBin = name: text: writeTextFile {
    inherit name;
    executable = true;
    destination = "/bin/${name}";
    text = "#!${runtimeShell}\n${text}\n";
    checkPhase = checkSyntax;
  };

  writeShellApplication =
    { name
    , text
    , runtimeInputs ? [ ]
    , runtimeEnv ? { }
    , meta ? { }
    , bashOptions ? [ "errexit" "nounset" "pipefail" ]
    , inheritPath ? true
    , ...
    }:
    writeTextFile {
      inherit name;
      meta = executableName name meta;
      executable = true;
      destination = "/bin/${name}";
      text = lib.concatStrings [
        "#!${runtimeShell}\n"
        (lib.concatMapStrings (option: "set -o ${option}\n") bashOptions)
        (lib.concatStrings (lib.mapAttrsToList
          (variable: value: "export ${variable}=${lib.escapeShellArg (toString value)}\n")
          runtimeEnv))
        (lib.optionalString (runtimeInputs != [ ] || !inheritPath)
          "export PATH=${lib.escapeShellArg (lib.makeBinPath runtimeInputs)}${lib.optionalString inheritPath ":$PATH"}\n")
        "\n${text}\n"
      ];
      checkPhase = checkSyntax;
    };

  writers = { writeBash = writeShellScript; };

  runCommand = name: env: runCommandWith { inherit name; derivationArgs = env; };
  runCommandLocal = name: env: runCommandWith { inherit name; derivationArgs = env; };
  runCommandNoCC = name: env: runCommandWith { inherit name; derivationArgs = env; };

  symlinkJoin = { name, paths, ... }@args:
    buildEnv (removeAttrs args [ "preferLocalBuild" "allowSubstitutes" ] // { ignoreCollisions = true; });

  linkFarm = name: entries:
    let
      list =
        if lib.isAttrs entries
        then lib.mapAttrsToList (name: path: { inherit name path; }) entries
        else entries;
    in
    build {
      inherit name;
      script = "mkdir -p \"$out\"\n" + lib.concatMapStrings
        (entry: ''
          mkdir -p "$out"/${lib.escapeShellArg (dirOf entry.name)}
          ln -s ${lib.escapeShellArg "${entry.path}"} "$out"/${lib.escapeShellArg entry.name}
        '')
        list;
    };

  concatText = name: files: build {
    inherit name;
    script = "cat /dev/null ${lib.escapeShellArgs files} > \"$out\"\n";
  };

  concatTextFile = { name, files, executable ? false, ... }: build {
    inherit name;
    script = "cat /dev/null ${lib.escapeShellArgs files} > \"$out\"\nchmod ${if executable then "0755" else "0644"} \"$out\"\n";
  };
}
