/**
  mkScripts { pkgs, ... } makes commands for the devboxes of one repository, with steps of its own
  woven in, such as to decrypt a key:

      { devbox-bootstrap, devbox-rebuild, devbox-start, devbox-stop, devbox-remove }

  Each takes the name of a host, and more arguments for devbox-cli, and changes to the top of the
  git repository that it is called in.

      pkgs              the packages of the machine that they run on
      flakeRef          the flake of the hosts; "." is the repository
      privateKeyHook    shell, before devbox-bootstrap: exports DEVBOX_SSH_KEY, the path of a private key
      parentPubKeyHook  shell, after that: exports DEVBOX_PARENT_PUBKEY, the path of a public key
      preRebuildHook    shell, before devbox-rebuild
      devbox-cli        the package of devbox-cli; by default of this flake

  A hook is any bash. It runs in the process of the command, in the repository's top folder, with
  $HOST set, which the programs that it calls have too. What it exports reaches devbox-cli, and what
  it traps on EXIT runs in the end. A command in it that fails, or `exit`, ends all with its exit code
  (set -e); a hook may say `set +e`.

      packages = devhost.lib.mkScripts {
        inherit pkgs;
        privateKeyHook = ''
          DEVBOX_SSH_KEY=$(mktemp)
          trap 'rm -f "$DEVBOX_SSH_KEY"' EXIT
          sops --decrypt "secrets/$HOST.key" >"$DEVBOX_SSH_KEY"
          export DEVBOX_SSH_KEY
        '';
      };
*/
{ pkgs
, flakeRef ? "."
, privateKeyHook ? ""
, parentPubKeyHook ? ""
, preRebuildHook ? ""
, devbox-cli ? pkgs.callPackage ../pkgs/devbox-cli.nix { devhost = pkgs.callPackage ../pkgs/devhost.nix { }; }
}:
let
  quote = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] text + "'";

  # Neither the folder nor the options that a hook leaves matter to what comes after it, nor
  # another HOST, such as one of a file of settings that it reads.
  hook = text: if text == "" then "" else ''
    ${text}

    cd -- "$devboxTop"
    set -e
    HOST=$devboxHost
  '';

  script = name: verb: argument: hooks: pkgs.writeShellScriptBin name ''
    set -e
    case "''${1-}" in
    "" | -*)
      echo "usage: ${name} HOST [ARGUMENT OF devbox-cli ${verb}]..." >&2
      exit 2
      ;;
    esac
    devboxHost=$1
    export HOST="$devboxHost"
    devboxArguments=("''${@:2}")
    if ! devboxTop=$(${pkgs.gitMinimal or pkgs.git}/bin/git rev-parse --show-toplevel); then
      echo "${name}: call it in the git repository of the flake" >&2
      exit 1
    fi
    cd -- "$devboxTop"
    ${builtins.concatStringsSep "" (map hook hooks)}
    # Not by exec: what the hooks trap on EXIT runs when it has ended.
    ${devbox-cli}/bin/devbox-cli ${verb} ${argument} "''${devboxArguments[@]}"
  '';
  reference = quote flakeRef + ''"#$HOST"'';
in
{
  devbox-bootstrap = script "devbox-bootstrap" "init" reference [ privateKeyHook parentPubKeyHook ];
  devbox-rebuild = script "devbox-rebuild" "update" reference [ preRebuildHook ];
  devbox-start = script "devbox-start" "up" ''"$HOST"'' [ ];
  devbox-stop = script "devbox-stop" "down" ''"$HOST"'' [ ];
  devbox-remove = script "devbox-remove" "rm" ''"$HOST"'' [ ];
}
