# The channel's package set: its default.nix, as nixpkgs' own is called.
{ system ? localSystem.system or builtins.currentSystem
, localSystem ? { }
, config ? { }
, overlays ? [ ]
, ...
}:
import ./bed/packages.nix { inherit system config overlays; }
