# Switches that NixOS modules commonly set to false, which is how things are here anyway.
# Setting one to true is refused, with the file that does it.
{ config, lib, options, ... }:
let
  switches = [
    { path = [ "security" "polkit" "enable" ]; why = "only root, through sudo, manages services"; }
    { path = [ "security" "sudo" "execWheelOnly" ]; why = "the host's sudo is open to all"; }
    { path = [ "services" "openssh" "startWhenNeeded" ]; why = "sshd always runs"; }
    { path = [ "services" "resolved" "enable" ]; why = "resolv.conf is the host's business"; }
  ];
in
{
  options = lib.foldl' lib.recursiveUpdate { } (map
    (switch: lib.setAttrByPath switch.path (lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Not implemented: ${switch.why}.";
    }))
    switches);

  config.assertions = map
    (switch: {
      assertion = !(lib.getAttrFromPath switch.path config);
      message = "channels/offline does not implement ${lib.showOption switch.path} (set in ${lib.showFiles (lib.getAttrFromPath switch.path options).files}): ${switch.why}.";
    })
    switches;
}
