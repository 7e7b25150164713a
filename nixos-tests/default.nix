# Tests that run NixOS, by name: { pkgs, modules }. They follow the test driver of nixpkgs
# 26.05. Those whose machines are `nodes` need builders with KVM, those whose machines are
# `containers` builders with uid-range (modules/test-builder). `modules` are added to each test.
{ pkgs, modules ? [ ] }:
let
  inherit (pkgs) lib;
  nixos = import (pkgs.path + "/nixos/lib") { inherit lib; };
in
lib.mapAttrs
  (name: test: nixos.runTest {
    imports = [ test ] ++ modules;
    inherit name;
    hostPkgs = pkgs;
    # Machines that are alike are evaluated with the same packages.
    node.pkgs = lib.mkDefault pkgs;
  })
{
  containers = ./containers.nix;
  devbox = ./devbox.nix;
  devhost = ./devhost.nix;
  guest = ./guest.nix;
  ingress = ./ingress.nix;
  options = ./options.nix;
}
