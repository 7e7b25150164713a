# What a channel of Flying Circus' shape adds to the guest: the platform and its roles, as
# upstream imports them into a development container. The search path must hold the channel's
# folder, so that <fc/nixos> is found.
{ lib, ... }:
{
  imports = [
    <fc/nixos>
    <fc/nixos/roles>
    ./default.nix
  ];

  # The platform wants a name while it is evaluated. The container's own arrives at run time
  # (names.nix), so that containers can share a system.
  flyingcircus.enc = lib.mkDefault { name = "container"; };
  flyingcircus.infrastructureModule = lib.mkDefault "container";
}
