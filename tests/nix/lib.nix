# Evaluates NixOS hosts with a tree of nixpkgs: { tree }.
{ tree }:
let
  lib = import (tree + "/lib");
  inherit (import ./text.nix { inherit lib; }) plain linesOfUnit;

  # What a machine needs besides.
  machine = { lib, ... }: {
    boot.loader.grub.enable = false;
    boot.initrd.enable = lib.mkDefault true;
    fileSystems."/" = { device = "/dev/vda"; fsType = "xfs"; };
    system.stateVersion = "24.05";
    # Releases before 21.05 have it by another name.
    nixpkgs.overlays = [ (_: previous: { util-linux = previous.util-linux or previous.utillinux; }) ];
  };

  # It stands in for the real one, which the flake's own check evaluates.
  package = { lib, pkgs, ... }: {
    services.devhost.package = lib.mkDefault (pkgs.writeTextDir "bin/devhost" "");
  };
in
rec {
  inherit lib;

  evaluate = configuration: evaluateWithOwnPackage { imports = [ package configuration ]; };

  evaluateWithOwnPackage = configuration: import (tree + "/nixos") {
    system = "x86_64-linux";
    configuration = { imports = [ machine ../../modules/devhost configuration ]; };
  };

  # What devhost's own assertions say of a host. Messages of assertions that hold need not
  # be there at all.
  complaints = { config, ... }: map (assertion: assertion.message)
    (lib.filter (assertion: !assertion.assertion && builtins.match "(services\\.)?devhost.*" assertion.message != null) config.assertions);

  # What the modules make of a host, without what differs from one release of NixOS to the next.
  projection = { config, ... }:
    let
      ours = lib.filterAttrs (name: _: lib.hasPrefix "devhost" name);
      etc = name: config.environment.etc.${name} or { source = null; };
      unit = kind: name: value: lib.nameValuePair "${name}.${kind}" ({
        inherit (value) wantedBy;
        text = linesOfUnit config.systemd.units."${name}.${kind}".text;
      } // lib.optionalAttrs (kind == "service") {
        path = if value.environment.PATH or null == null then null
          else lib.unique (map (folder: lib.head (lib.splitString "/" folder)) (lib.splitString ":" (plain value.environment.PATH)));
        triggers = map (trigger: plain "${trigger}") value.restartTriggers;
      });
    in
    {
      settings = builtins.fromJSON (builtins.unsafeDiscardStringContext (etc "devhost-settings.json").source.text);
      containers = (builtins.fromJSON (plain (etc "devhost-containers.json").source.text)).containers;
      sudo = lib.filter (lib.hasInfix "DEVHOST") (lib.splitString "\n" config.security.sudo.extraConfig);
      units = lib.mapAttrs' (unit "service") (ours config.systemd.services) // lib.mapAttrs' (unit "timer") (ours config.systemd.timers);
      packages = lib.filter (lib.hasInfix "devhost") (map lib.getName config.systemd.packages);
      names = lib.splitString "\n" (lib.replaceStrings [ "'localhost-hosts' 'string-hosts' 'extra-hosts'" ] [ "localhost-hosts string-hosts extra-hosts" ]
        (plain config.systemd.services.devhost-names.script));
      links = lib.mapAttrs (_: source: plain "${source}") (lib.filterAttrs (_: source: source != null)
        (lib.genAttrs [ "hosts" "devhost" ] (name: (etc name).source)));
      tmpfiles = lib.filter (lib.hasInfix "devhost") config.systemd.tmpfiles.rules;
      firewall = {
        inherit (config.networking.firewall) allowedTCPPorts;
        forward = config.networking.firewall.extraForwardRules or "";
      };
      sysctls = lib.filterAttrs (name: _: lib.elem name [ "net.ipv4.ip_forward" "fs.inotify.max_user_instances" "fs.inotify.max_user_watches" ])
        config.boot.kernel.sysctl;
      kernelModules = lib.filter (lib.hasPrefix "n") (lib.unique config.boot.kernelModules);
      interfaces = {
        dhcpcd = lib.intersectLists [ "dh-*" "vd-*" ] config.networking.dhcpcd.denyInterfaces;
        networkManager = config.networking.networkmanager.unmanaged;
        networkd = lib.mapAttrs (_: network: { inherit (network) matchConfig linkConfig; })
          (lib.filterAttrs (name: _: lib.hasInfix "devhost" name) config.systemd.network.networks);
      };
      accounts = {
        users = lib.mapAttrs (_: user: { inherit (user) isSystemUser group; }) (ours config.users.users);
        groups = lib.attrNames (ours config.users.groups);
      };
      commands = lib.filter (lib.hasPrefix "devhost") (map lib.getName config.environment.systemPackages);
      nix = lib.filterAttrs (name: _: lib.elem name [ "auto-allocate-uids" "use-cgroups" "experimental-features" "extra-system-features" "extra-sandbox-paths" ] && config.nix.settings.${name} != [ ])
        (config.nix.settings or { });
    };
}
