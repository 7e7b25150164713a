# Helpers that the files of this module share.
{ lib, options }:
rec {
  # Flying Circus' platform brings users, sudo rules and service defaults of its own.
  isFlyingCircus = options ? flyingcircus;

  # Weaker than a provision, stronger than NixOS' mkDefault (1000) and the platform's (900).
  guestDefault = lib.mkOverride 890;

  hostFolder = "/run/devhost";
}
