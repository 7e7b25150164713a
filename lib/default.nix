# What the flake has for others to call, as `lib`.
{
  mkContainerSystem = import ./mkContainerSystem.nix;
  mkDevbox = import ./mkDevbox.nix;
  mkScripts = import ./mkScripts.nix;
}
