# What keeps containers from working on this host, each with what to do about it.
{ config, lib, options, pkgs, ... }:
let
  cfg = config.services.devhost;

  nixOff = !(config.nix.enable or true);
  # Since 22.05 these are nix.settings.
  nixSettings = config.nix.settings or {
    sandbox = config.nix.useSandbox;
    allowed-users = config.nix.allowedUsers;
  };
  ipForward = config.boot.kernel.sysctl."net.ipv4.ip_forward" or null;

  oldestGo = "1.26";
  ownPackage = options.services.devhost.package.highestPrio >= 1500;

  # Declared containers whose system comes from nowhere, or from more than one place.
  unclear = lib.attrNames (lib.filterAttrs
    (_: container: lib.count (source: source != null) [ container.channel container.flake container.config ] != 1)
    cfg.containers);

  # Declared containers that want of the host's network what it cannot give.
  onHost = option: empty: lib.attrNames (lib.filterAttrs
    (_: container: container.network == "host" && container.${option} != empty)
    cfg.containers);
  notOnHost = option: empty: why: check (onHost option empty == [ ]) ''
    with network = "host" ${why}; remove ${option}, or set network = "private", in
    ${lib.concatMapStringsSep ", " (name: "services.devhost.containers.${name}") (onHost option empty)}'';

  check = assertion: message: {
    inherit assertion;
    message = "services.devhost: ${message}";
  };
in
{
  config.assertions = lib.mkIf cfg.enable [
    (check (!ownPackage || lib.versionAtLeast (pkgs.go.version or "0") oldestGo) ''
      it needs Go ${oldestGo} to be built, and this nixpkgs has ${pkgs.go.version or "none"}; set
      services.devhost.package to the package of devhost's flake, packages.${pkgs.stdenv.hostPlatform.system}.devhost'')

    (check (cfg.allowedGroups == [ ] || config.security.sudo.enable) ''
      members of allowedGroups use it through sudo, which is off (sudo-rs does not do); set security.sudo.enable = true, or
      services.devhost.allowedGroups = [ ] to let root alone use it'')
    (check (!(config.security.sudo.execWheelOnly or false) || lib.all (group: group == "wheel") cfg.allowedGroups) ''
      security.sudo.execWheelOnly keeps members of allowedGroups from sudo; set it to false, or
      services.devhost.allowedGroups = [ "wheel" ]'')

    (check config.security.allowUserNamespaces ''
      containers are user namespaces; set security.allowUserNamespaces = true'')

    (check (!nixOff) ''
      containers are built by the host's Nix; set nix.enable = true'')
    (check (nixOff || config.nix.nrBuildUsers > 0) ''
      without build users, builders would be root on this host; set nix.nrBuildUsers = 32'')
    (check (nixOff || nixSettings.sandbox == true) ''
      without a sandbox, what people build reads files of this host; set nix.settings.sandbox = true'')
    (check (nixOff || lib.any (user: lib.elem user nixSettings.allowed-users) [ "*" "devhost-eval" "@devhost-eval" ]) ''
      its evaluations may not use the Nix daemon; add "devhost-eval" to nix.settings.allowed-users'')
    (check (nixOff || !cfg.batou.enable || lib.elem "*" nixSettings.allowed-users) ''
      containers that batou makes build by the host's Nix daemon, as users that this host has no
      names for; add "*" to nix.settings.allowed-users, or set services.devhost.batou.enable = false'')

    (check (! lib.elem ipForward [ false 0 "0" ]) ''
      containers reach nothing without forwarding; remove boot.kernel.sysctl."net.ipv4.ip_forward", or set
      it to true'')
    (check (config.environment.etc.hosts.mode == "symlink") ''
      it makes /etc/hosts writable in its own way; remove environment.etc.hosts.mode'')

    (check (cfg.ingress.httpPort != cfg.ingress.httpsPort) ''
      ingress.httpPort and ingress.httpsPort are both ${toString cfg.ingress.httpPort}; change one of them'')
    (check (cfg.ingress.tls != "acme" || cfg.publicAddress != "" || cfg.domains != [ ]) ''
      an ACME server signs for names that lead here from outside, and there are none; set
      services.devhost.publicAddress'')
    (check (cfg.ingress.tls != "files" || cfg.ingress.certificates != [ ]) ''
      ingress.tls = "files" has no files; set services.devhost.ingress.certificates'')
    (check (cfg.ingress.tls == "files" || cfg.ingress.certificates == [ ]) ''
      ingress.certificates are shown to nobody while ingress.tls is "${cfg.ingress.tls}"; set
      services.devhost.ingress.tls = "files"'')
    (check (!cfg.network.ipv6Routed || cfg.network.ipv6Pool != "") ''
      network.ipv6Routed does not say which prefix is routed to this host; set
      services.devhost.network.ipv6Pool'')

    (check (unclear == [ ]) ''
      it must be said once where the system of a declared container comes from; set one of channel, flake
      and config of ${lib.concatMapStringsSep ", " (name: "services.devhost.containers.${name}") unclear}'')
    (notOnHost "aliases" [ ] "a container has no port 443, and the ingress cannot serve it")
    (notOnHost "forwardPorts" [ ] "a container's ports are the host's own already")
    (notOnHost "nesting" false "container engines inside cannot make networks of their own")
  ];
}
