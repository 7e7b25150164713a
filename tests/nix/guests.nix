# Evaluation tests of modules/container-guest, with a tree that holds the guest contract: a
# nixpkgs, or channels/offline: { tree }. What the module makes of a container must be as in
# expected/guests with each of them.
{ tree }:
let
  lib = import (tree + "/lib");
  inherit (import ./text.nix { inherit lib; }) plain linesOfUnit;

  evaluate = configuration: import (tree + "/nixos") {
    system = "x86_64-linux";
    configuration.imports = [ ../../modules/container-guest configuration ];
  };

  ours = lib.filterAttrs (name: _: lib.hasPrefix "devhost" name);

  projection = { config, options, ... }: {
    units = lib.mapAttrs (_: unit: { inherit (unit) wantedBy; text = linesOfUnit unit.text; }) (ours config.systemd.units);
    scripts = lib.mapAttrs (_: service: lib.splitString "\n" (plain service.script))
      (lib.filterAttrs (_: service: service.script or "" != "") (ours config.systemd.services));
    files = lib.mapAttrs (_: file: plain "${file.source}")
      (lib.filterAttrs (name: _: lib.elem name [ "resolv.conf" "systemd/network" ]) config.environment.etc);
    ownHosts = config.environment.etc.hosts.enable;
    tmpfiles = lib.filter (rule: lib.any (path: lib.hasInfix " ${path}" rule) [ "/etc/local" "/srv" "/nix/var/nix/profiles" ]) config.systemd.tmpfiles.rules;
    accounts = {
      users = lib.mapAttrs (_: user: { inherit (user) uid group home isNormalUser hashedPassword; })
        (lib.filterAttrs (_: user: user.isNormalUser) config.users.users);
      groups = lib.filter (name: lib.elem name [ "login" "service" ]) (lib.attrNames config.users.groups);
    };
    sudo = lib.filter (rule: rule.users == [ "developer" ]) (map (rule: { inherit (rule) users commands; }) config.security.sudo.extraRules);
    ssh = {
      inherit (config.services.openssh) enable startWhenNeeded authorizedKeysFiles;
      hostKeys = map (key: { inherit (key) type path; }) config.services.openssh.hostKeys;
    };
    network = {
      inherit (config.networking) hostName useDHCP useNetworkd;
      firewall = config.networking.firewall.enable;
      resolved = config.services.resolved.enable;
    };
    isContainer = config.boot.isContainer;
    pingGroups = config.boot.kernel.sysctl."net.ipv4.ping_group_range";
    nixRemote = config.environment.sessionVariables.NIX_REMOTE;
    documentation = {
      inherit (config.documentation) enable;
      # A manual of NixOS, or the program that shows it.
      installed = lib.filter (name: builtins.match "nixos-(manual|help|configuration).*" name != null)
        (map (package: package.name or "") config.environment.systemPackages);
    };
    inherit (config.devhost.guest) serviceUser selfSignedCertificate;
    nixLd = config.devhost.guest.nixLd.enable && config.programs.nix-ld.enable or true;
  };

  hasNixLd = (evaluate { }).options.programs ? nix-ld;

  configurations = {
    minimal = { };
    all = ./guests/all.nix;
  };

  # Options of the module, each at a value that is not its default, and what that changes of the
  # projection. Those that can only be read follow others.
  tried = {
    serviceUser = { module.devhost.guest.serviceUser = "shop"; changes = [ "accounts" "users" ]; };
    "nixLd.enable" = { module.devhost.guest.nixLd.enable = true; changes = [ "nixLd" ]; };
    "selfSignedCertificate.enable" = { module.devhost.guest.selfSignedCertificate.enable = true; changes = [ "units" ]; };
    "selfSignedCertificate.group" = {
      base.devhost.guest.selfSignedCertificate.enable = true;
      module.devhost.guest.selfSignedCertificate.group = "service";
      changes = [ "scripts" "devhost-certificate" ];
    };
  };

  optionsOf = prefix: options: lib.concatLists (lib.mapAttrsToList
    (name: value:
      if lib.isOption value then lib.optional (! (value.readOnly or false)) (lib.concatStringsSep "." (prefix ++ [ name ]))
      else optionsOf (prefix ++ [ name ]) value)
    options);

  at = lib.foldl' (value: name: value.${name});
  good = problems: if problems == [ ] then "good" else throw (lib.concatStringsSep "\n" problems);
in
{
  # The whole system is evaluated, for its assertions and warnings.
  guests = lib.mapAttrs
    (_: configuration:
      let evaluated = evaluate configuration;
      in builtins.seq evaluated.system.drvPath (projection evaluated))
    configurations;

  options = lib.mapAttrs
    (name: case:
      let
        of = module: at (projection (evaluate { imports = [ (case.base or { }) module ]; })) case.changes;
      in
      good (lib.optional (of { } == of case.module) "devhost.guest.${name} changes nothing at ${lib.concatStringsSep "." case.changes}"))
    tried;

  coverage.options =
    let declared = optionsOf [ ] (evaluate { }).options.devhost.guest;
    in
    good (
      map (name: "devhost.guest.${name} is tried by no test") (lib.subtractLists (lib.attrNames tried) declared)
      ++ map (name: "guests.nix: there is no option ${name}") (lib.subtractLists declared (lib.attrNames tried))
    );

  # The search in `documentation.installed` finds what it is there for.
  coverage.documentation = good (lib.optional
    ((projection (evaluate { documentation = { enable = true; nixos.enable = lib.mkForce true; }; })).documentation.installed == [ ])
    "a container with NixOS' documentation looks like one without");

  # A release without nix-ld refuses it, and says what to do; with it, the system is another one.
  nixLd.system =
    let
      with-it = evaluate { devhost.guest.nixLd.enable = true; };
      complaints = map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) with-it.config.assertions);
    in
    good (
      if hasNixLd then lib.optional (!lib.hasSuffix ".drv" with-it.system.drvPath) "there is no system"
      else lib.optional (! lib.any (lib.hasInfix "take\na newer channel") complaints) "a release that has no nix-ld does not say so: ${builtins.toJSON complaints}"
    );
}
