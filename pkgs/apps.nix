# What `nix run .#...` starts of devhost: itself, and each command that a person gives, so that
# `nix run .#ensure -- demo --channel ...` is `devhost ensure demo --channel ...`.
{ lib, writeShellScript, devhost }:
let
  verbs = [
    "clone"
    "destroy"
    "diff"
    "doctor"
    "ensure"
    "exec"
    "expire"
    "generations"
    "host"
    "ingress"
    "ip"
    "keep"
    "list"
    "logs"
    "prune"
    "rename"
    "restart"
    "rollback"
    "shell"
    "snapshot"
    "ssh"
    "ssh-config"
    "start"
    "status"
    "stop"
    "undelete"
    "unkeep"
  ];
  app = description: program: { type = "app"; program = toString program; meta = { inherit description; }; };
  itself = app devhost.meta.description "${devhost}/bin/devhost";
in
lib.genAttrs verbs
  (verb: app "devhost ${verb}" (writeShellScript "devhost-${verb}" ''
    exec ${devhost}/bin/devhost ${verb} "$@"
  ''))
// { devhost = itself; }
