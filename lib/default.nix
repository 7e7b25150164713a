# What the flake has for others to call, as `lib`.
{
  mkContainerSystem = import ./mkContainerSystem.nix;
}
