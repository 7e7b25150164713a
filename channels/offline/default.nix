# The channel's package set, with nixpkgs' calling convention.
{ system ? builtins.currentSystem
, config ? { }
, overlays ? [ ]
, ...
}:
import ./pkgs {
  inherit system overlays;
  lib = import ./lib;
}
