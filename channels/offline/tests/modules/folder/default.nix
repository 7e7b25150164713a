{ ... }:
{
  imports = [ ./two.nix ];
  numbers = [ 20 ];
}
