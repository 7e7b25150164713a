# What `nix run` starts of devboxes: devbox-cli itself, and each verb that a person gives, so that
# `nix run .#init -- ./my-flake#my-devbox` is `devbox-cli init ./my-flake#my-devbox`.
{ lib, writeShellScript, devbox-cli }:
let
  app = description: program: { type = "app"; program = toString program; meta = { inherit description; }; };
  itself = app devbox-cli.meta.description "${devbox-cli}/bin/devbox-cli";
in
lib.genAttrs [ "down" "init" "rm" "up" "update" ]
  (verb: app "devbox-cli ${verb}" (writeShellScript "devbox-${verb}" ''
    exec ${devbox-cli}/bin/devbox-cli ${verb} "$@"
  ''))
// { devbox = itself; default = itself; }
