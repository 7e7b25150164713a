# Functions that came to nixpkgs after the oldest release that is compared with.
{ lib }:
{
  concatMapAttrsStringSep = { expr = lib.concatMapAttrsStringSep ", " (name: value: "${name}=${value}") { a = "1"; b = "2"; }; offlineOnly = true; };
}
