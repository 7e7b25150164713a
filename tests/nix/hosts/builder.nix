# A dev host that builds NixOS tests in containers too.
{ lib, pkgs, ... }:
{
  imports = [ ../../../modules/test-builder ];
  services.devhost.enable = true;
  devhost.testBuilder = { enable = true; network.enable = true; };
  nix.settings.experimental-features = [ "nix-command" "flakes" ];
  nix.package = lib.mkForce (pkgs.nix // { version = "2.31.0"; });
  nix.nrBuildUsers = 32;
}
