# Options that are not, or not only, in the settings file: a module that sets one, and what that
# changes of a host (projection in lib.nix) with the modules of base, or else of hosts/minimal.nix.
let
  set = path: value: {
    module = { lib, ... }: lib.setAttrByPath ([ "services" "devhost" ] ++ path) (lib.mkOverride 90 value);
  };
in
{
  "services.devhost.enable" = { base = { }; module.services.devhost.enable = true; changes = [ "units" ]; };
  "services.devhost.package" = {
    module = { pkgs, ... }: { services.devhost.package = pkgs.writeTextDir "bin/devhost" "" // { name = "devhost-of-ones-own"; }; };
    changes = [ "packages" ];
  };
  # What is in it is tried in containers.nix.
  "services.devhost.containers" = set [ "containers" ] { ci.channel = "/srv/channel"; } // { changes = [ "containers" ]; };
  "services.devhost.batou.enable" = set [ "batou" "enable" ] false // { changes = [ "commands" ]; };
  "services.devhost.expiry.enable" = set [ "expiry" "enable" ] false // { changes = [ "units" "devhost-expire.timer" ]; };
  "services.devhost.ingress.enable" = set [ "ingress" "enable" ] false // { changes = [ "units" "devhost-ingress.service" ]; };
  "services.devhost.openFirewall" = set [ "openFirewall" ] false // { changes = [ "firewall" "allowedTCPPorts" ]; };
  "services.devhost.sysctls.ipForward" = set [ "sysctls" "ipForward" ] false // { changes = [ "sysctls" "net.ipv4.ip_forward" ]; };
  "services.devhost.sysctls.inotifyInstances" = set [ "sysctls" "inotifyInstances" ] 65536 // { changes = [ "sysctls" "fs.inotify.max_user_instances" ]; };
  "services.devhost.sysctls.inotifyWatches" = set [ "sysctls" "inotifyWatches" ] 1048576 // { changes = [ "sysctls" "fs.inotify.max_user_watches" ]; };
  "devhost.testBuilder.enable" = {
    module = { imports = [ ../../modules/test-builder ]; devhost.testBuilder.enable = true; };
    changes = [ "nix" "auto-allocate-uids" ];
  };
  "devhost.testBuilder.network.enable" = {
    base = { imports = [ ../../modules/test-builder ]; devhost.testBuilder.enable = true; };
    module.devhost.testBuilder.network.enable = true;
    changes = [ "nix" "extra-sandbox-paths" ];
  };
}
