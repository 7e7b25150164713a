# A host for every assertion of the modules, and a part of the remedy that it must say. What
# it says is in expected/assertions.json.
{ lib, pkgs }:
let
  off = lib.mkForce false;
in
{
  go = {
    # Where nobody sets the package, and nixpkgs is an old one.
    ownPackage = true;
    module = {
      _module.args.pkgs = lib.mkForce (pkgs // { go = pkgs.go // { version = "1.25.3"; }; });
    };
    remedy = "set\nservices.devhost.package";
  };
  sudo = { module.security.sudo.enable = false; remedy = "set security.sudo.enable = true"; };
  wheel = { module.security.sudo.execWheelOnly = true; remedy = "allowedGroups = [ \"wheel\" ]"; };
  user-namespaces = { module.security.allowUserNamespaces = false; remedy = "set security.allowUserNamespaces = true"; };
  nix = { module.nix.enable = false; remedy = "set nix.enable = true"; };
  build-users = { module.nix.nrBuildUsers = 0; remedy = "set nix.nrBuildUsers = 32"; };
  sandbox = { module.nix.settings.sandbox = off; remedy = "set nix.settings.sandbox = true"; };
  sandbox-relaxed = { module.nix.settings.sandbox = "relaxed"; remedy = "set nix.settings.sandbox = true"; };
  allowed-users = {
    module = { nix.settings.allowed-users = [ "@wheel" ]; services.devhost.batou.enable = false; };
    remedy = "add \"devhost-eval\" to nix.settings.allowed-users";
  };
  allowed-users-batou = { module.nix.settings.allowed-users = [ "devhost-eval" ]; remedy = "services.devhost.batou.enable = false"; };
  forwarding = { module.boot.kernel.sysctl."net.ipv4.ip_forward" = false; remedy = "set\nit to true"; };
  hosts = { module.environment.etc.hosts.mode = "0644"; remedy = "remove environment.etc.hosts.mode"; };
  ports = { module.services.devhost.ingress.httpPort = 443; remedy = "change one of them"; };
  acme-nowhere = { module.services.devhost.ingress.tls = "acme"; remedy = "set\nservices.devhost.publicAddress"; };
  tls-without-files = { module.services.devhost.ingress.tls = "files"; remedy = "set services.devhost.ingress.certificates"; };
  files-without-tls = {
    module.services.devhost.ingress.certificates = [{ certificate = "/tls/a.crt"; key = "/tls/a.key"; }];
    remedy = "services.devhost.ingress.tls = \"files\"";
  };
  routed = { module.services.devhost.network.ipv6Routed = true; remedy = "services.devhost.network.ipv6Pool"; };
  container-nowhere = { module.services.devhost.containers.ci = { }; remedy = "set one of channel, flake\nand config of services.devhost.containers.ci"; };
  container-twice = {
    module.services.devhost.containers.ci = { channel = "/srv/channel"; flake = "github:NixOS/nixpkgs"; };
    remedy = "services.devhost.containers.ci";
  };
  host-network-aliases = {
    module.services.devhost.containers.ci = { channel = "/srv/channel"; network = "host"; aliases = [ "www" ]; };
    remedy = "remove aliases, or set network = \"private\", in\nservices.devhost.containers.ci";
  };
  host-network-ports = {
    module.services.devhost.containers.ci = { channel = "/srv/channel"; network = "host"; forwardPorts = [{ hostPort = 8080; guestPort = 80; }]; };
    remedy = "remove forwardPorts";
  };
  host-network-nesting = {
    module.services.devhost.containers.ci = { channel = "/srv/channel"; network = "host"; nesting = true; };
    remedy = "remove nesting";
  };
  test-builder = {
    module = {
      imports = [ ../../modules/test-builder ];
      devhost.testBuilder.enable = true;
      nix.nrBuildUsers = 32;
      nix.package = lib.mkForce (pkgs.nix // { version = "2.11.1"; });
    };
    remedy = "set nix.package\nto Nix 2.12 or newer";
  };
}
