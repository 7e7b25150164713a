# The wrappers of lib.mkScripts with as little of nixpkgs as they need: { shell, git, cli, arguments }.
# shell is a folder with a static busybox, to build with; git a folder with bin/git; cli a folder with bin/devbox-cli.
{ shell, git, cli, arguments }:
let
  builder = "${builtins.path { path = shell; name = "shell"; }}/busybox";
  scripts = import ../../../lib/mkScripts.nix ({
    pkgs = {
      inherit git;
      writeShellScriptBin = name: text: derivation {
        inherit name builder text;
        system = builtins.currentSystem;
        passAsFile = [ "text" ];
        args = [
          "sh"
          "-c"
          ''
            PATH=
            ${builder} mkdir -p $out/bin
            { echo '#!/usr/bin/env bash'; ${builder} cat $textPath; } >$out/bin/${name}
            ${builder} chmod 555 $out/bin/${name}
          ''
        ];
      };
    };
    devbox-cli = cli;
  } // builtins.fromJSON arguments);
in
map (name: scripts.${name}) [ "devbox-bootstrap" "devbox-rebuild" "devbox-start" "devbox-stop" "devbox-remove" ]
