# A host with Flying Circus' platform, whose own role is left out.
{
  imports = [ <fc/nixos/roles> ../../../modules/flyingcircus.nix ];
  flyingcircus.roles.devhost.enable = true;
  services.devhost.allowedGroups = [ "developers" ];
}
