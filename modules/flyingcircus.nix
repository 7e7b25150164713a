# flyingcircus.roles.devhost.* as other names of services.devhost.*, for hosts that had the role
# of Flying Circus' platform. Where the platform is on the search path, its own role is left out.
{ lib, config, ... }:
let
  role = builtins.tryEval <fc/nixos/roles/devhost>;
  alias = name: lib.mkAliasOptionModule ([ "flyingcircus" "roles" "devhost" ] ++ name);
in
{
  disabledModules = lib.optional role.success role.value;

  imports = [
    ./devhost
    (alias [ "enable" ] [ "services" "devhost" "enable" ])
    (alias [ "publicAddress" ] [ "services" "devhost" "publicAddress" ])
    (alias [ "cleanupContainers" ] [ "services" "devhost" "expiry" "enable" ])
  ];

  # The groups of the platform whose members could use the role.
  config.services.devhost.allowedGroups = lib.mkIf config.services.devhost.enable (lib.mkDefault [ "service" "users" ]);
}
