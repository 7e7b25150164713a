# Whole systems, evaluated: what a system must hold, and what must be refused.
#
#   systems.NAME    a derivation's path, which forces the whole system; so do `bare` and `accepted`
#   checks.NAME     { got, want }
#   refusals.NAME   an expression that must fail; `matches.NAME` is what its message must hold
#
# `nixos` is the function that makes a system; nixpkgs' own takes the same arguments.
# internal/offlinechannel runs all of it.
{ nixos ? import ../nixos }:
let
  guest = ../../../modules/container-guest;
  example = name: ../../../examples + "/${name}/provision.nix";

  system = modules: nixos { configuration.imports = [ guest ] ++ modules; };
  config = modules: (system modules).config;
  unit = name: modules: (config modules).systemd.units.${name}.text;
  lines = text: builtins.filter (line: builtins.isString line && line != "") (builtins.split "\n" text);
  linesWith = part: text: builtins.filter (line: builtins.match ".*${part}.*" line != null) (lines text);

  # A provision with the name that errors give it.
  provision = settings: { _file = "provision.nix"; config = settings; };

  refused = settings: (system [ (provision settings) ]).system.drvPath;

  plainUser = { isNormalUser = true; };

  refusals = {
    unknownOption = {
      expression = refused { services.mysql.enable = true; };
      match = [ "The option `services.mysql' does not exist" "provision.nix" "channels/offline does not implement" ];
    };
    unknownSubOption = {
      expression = refused { services.nginx = { enable = true; virtualHosts.x.frob = true; }; };
      match = [ "The option `services.nginx.virtualHosts.x.frob' does not exist" "provision.nix" ];
    };
    unknownUnitSetting = {
      expression = refused { systemd.services.x.confinement.enable = true; };
      match = [ "The option `systemd.services.x.confinement' does not exist" "provision.nix" ];
    };
    unknownPackage = {
      expression = refused { environment.systemPackages = [ (system [ ]).pkgs.frobnicate ]; };
      match = [ "attribute 'frobnicate' missing" "systems.nix" ];
    };
    sourceBuild = {
      expression = refused { environment.systemPackages = [ ((system [ ]).pkgs.stdenv.mkDerivation { pname = "frob"; }) ]; };
      match = [ "channels/offline builds nothing from source" "frob" ];
    };
    wrongType = {
      expression = refused { services.nginx.enable = "yes"; };
      match = [ "`services.nginx.enable' is not of type" "provision.nix" ];
    };
    wrongPort = {
      expression = refused { services.openssh.ports = [ 70000 ]; };
      match = [ "services.openssh.ports" "provision.nix" ];
    };
    acme = {
      expression = refused { services.nginx = { enable = true; virtualHosts.x.enableACME = true; }; };
      match = [ "virtualHosts.\"x\".enableACME" "selfSignedCertificate" ];
    };
    resolved = {
      expression = refused { services.resolved.enable = true; };
      match = [ "does not implement services.resolved.enable" "provision.nix" ];
    };
    noGroup = {
      expression = refused { users.users.a = plainUser // { group = "gone"; }; };
      match = [ "users.users.a.group" "gone" ];
    };
    noKind = {
      expression = refused { users.users.a.group = "users"; };
      match = [ "users.users.a.isSystemUser" "users.users.a.isNormalUser" ];
    };
    sameUid = {
      expression = refused { users.users = { a = plainUser // { uid = 1500; }; b = plainUser // { uid = 1500; }; }; };
      match = [ "a, b" "1500" ];
    };
    activationCycle = {
      expression = refused { system.activationScripts = { a = { deps = [ "b" ]; text = ""; }; b = { deps = [ "a" ]; text = ""; }; }; };
      match = [ "system.activationScripts" "a -> b -> a" ];
    };
    activationUnknown = {
      expression = refused { system.activationScripts.a = { deps = [ "gone" ]; text = ""; }; };
      match = [ "system.activationScripts.a.deps" "gone" ];
    };
    databaseOwner = {
      expression = refused { services.postgresql = { enable = true; ensureUsers = [{ name = "a"; ensureDBOwnership = true; }]; }; };
      match = [ "ensureUsers" "ensureDatabases" ];
    };
    twoKindsOfTLS = {
      expression = refused { services.nginx = { enable = true; virtualHosts.x = { addSSL = true; forceSSL = true; }; }; };
      match = [ "virtualHosts.\"x\"" "only one of" ];
    };
    assertion = {
      expression = refused { assertions = [{ assertion = false; message = "this must not be"; }]; };
      match = [ "Failed assertions" "this must not be" ];
    };
  };
in
{
  systems = {
    minimal = (system [ (example "minimal") ]).system.drvPath;
    demo = (system [ (example "demo") ]).system.drvPath;
    redis = (system [ (example "redis") ]).system.drvPath;
    compose = (system [ (example "compose") ]).system.drvPath;
  };

  # The channel by itself; NixOS would ask for a disk.
  bare = (nixos { configuration = { }; }).system.drvPath;

  # What a provision of another world may set without being refused.
  accepted = (system [
    (provision {
      boot.tmp.cleanOnBoot = true;
      documentation.nixos.enable = false;
      environment.shellAliases.ll = "ls -l";
      i18n.defaultLocale = "C.UTF-8";
      networking.firewall.allowedTCPPorts = [ 80 443 ];
      networking.nameservers = [ "192.0.2.53" ];
      nixpkgs.config.allowUnfree = true;
      nixpkgs.overlays = [ (final: previous: { mine = previous.writeShellScriptBin "mine" "echo mine"; }) ];
      programs.bash.interactiveShellInit = "set -o vi";
      security.sudo.wheelNeedsPassword = false;
      services.journald.extraConfig = "SystemMaxUse=100M";
      services.openssh.settings.X11Forwarding = false;
      services.postgresql = {
        enable = true;
        enableTCPIP = true;
        authentication = "host all all 192.0.2.0/24 scram-sha-256";
        settings.max_connections = 50;
      };
      system.stateVersion = "24.05";
      time.timeZone = "Europe/Berlin";
      users.mutableUsers = false;
      users.users.ada = plainUser // { openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA ada" ]; };
    })
    ({ pkgs, ... }: { environment.systemPackages = [ pkgs.mine ]; })
  ]).system.drvPath;

  # A system does not depend on the container's name, nor on where its modules are.
  checks = {
    hostName = { got = (config [ ]).networking.hostName; want = ""; };

    keysOfTheHost = {
      got = toString (config [ ]).services.openssh.authorizedKeysFiles;
      want = "/run/devhost/authorized_keys/%u /etc/ssh/authorized_keys.d/%u";
    };
    hostKeyOfTheHost = {
      got = map (key: key.path) (config [ ]).services.openssh.hostKeys;
      want = [ "/run/devhost/ssh/ssh_host_ed25519_key" ];
    };
    accounts = {
      got = map (name: (config [ ]).users.users.${name}.uid) [ "developer" "s-dev" ];
      want = [ 1000 1001 ];
    };
    otherServiceUser = {
      got =
        let users = (config [ (provision { devhost.guest.serviceUser = "app"; }) ]).users.users;
        in [ (users ? s-dev) users.app.home ];
      want = [ false "/srv/app" ];
    };
    podmanWorksInAUserNamespace = {
      got =
        let containers = (config [ (provision { virtualisation.podman.enable = true; }) ]).virtualisation.containers;
        in [ containers.containersConf.settings.containers containers.containersConf.settings.engine.runtime containers.storage.settings.storage.driver ];
      want = [ { cgroups = "disabled"; default_sysctls = [ ]; keyring = false; } "crun" "vfs" ];
    };
    podmanIsTheProvisions = {
      got = (config [
        (provision {
          virtualisation.podman.enable = true;
          virtualisation.containers.storage.settings.storage.driver = "overlay";
        })
      ]).virtualisation.containers.storage.settings.storage.driver;
      want = "overlay";
    };
    noPodmanUnasked = {
      got = [ ((config [ ]).environment.etc ? "containers/storage.conf") ((config [ ]).systemd.services ? devhost-podman) ];
      want = [ false false ];
    };
    provisionWins = {
      got = (config [ (provision { networking.firewall.enable = true; services.openssh.settings.MaxStartups = "5"; }) ]).services.openssh.settings.MaxStartups;
      want = "5";
    };

    # Units.
    unitText = {
      got = linesWith "(After|Environment=.X|ExecStart|Nice|X-|Restart=).*" (unit "x.service" [
        (provision {
          systemd.services.x = {
            after = [ "a.service" "b.service" ];
            environment.X = "50% of \"it\"";
            serviceConfig = { ExecStart = [ "" "/bin/x" ]; Nice = 5; Restart = "always"; };
            restartIfChanged = false;
          };
        })
      ]);
      want = [
        "After=a.service b.service"
        "Environment=\"X=50%% of \\\"it\\\"\""
        "ExecStart="
        "ExecStart=/bin/x"
        "Nice=5"
        "Restart=always"
        "X-RestartIfChanged=false"
      ];
    };
    triggersChangeTheUnit = {
      got = unit "x.service" [ (provision { systemd.services.x = { script = ":"; restartTriggers = [ "1" ]; }; }) ]
        == unit "x.service" [ (provision { systemd.services.x = { script = ":"; restartTriggers = [ "2" ]; }; }) ];
      want = false;
    };
    startAtMakesATimer = {
      got = lines (unit "x.timer" [ (provision { systemd.services.x = { script = ":"; startAt = "daily"; }; }) ]);
      want = [ "[Timer]" "OnCalendar=daily" ];
    };
    textOfEtcNeedsNoDerivation = {
      got = map (name: (config [ (provision { environment.etc = { a.text = "1"; b = { text = "1"; source = "/x"; }; }; }) ]).environment.etc.${name}.embedded) [ "a" "b" ];
      want = [ true false ];
    };
    sudoRule = {
      got = map (rule: rule.users) (builtins.filter (rule: rule.users != [ ]) (config [ ]).security.sudo.extraRules);
      want = [ [ "root" ] [ "developer" ] ];
    };
  };

  # What README.md must list: options by their first two names, and packages.
  documented =
    let
      bare = nixos { configuration = { }; };
      isOption = value: value._type or "" == "option";
      groups = builtins.concatMap
        (name:
          let value = bare.options.${name};
          in if isOption value then [ name ] else map (inner: "${name}.${inner}") (builtins.attrNames value))
        (builtins.filter (name: name != "_module") (builtins.attrNames bare.options));
    in
    {
      options = groups;
      packages = [ "cacert" ] ++ builtins.attrNames (import ../pkgs/programs.nix);
    };

  refusals = builtins.mapAttrs (_: refusal: refusal.expression) refusals;
  matches = builtins.mapAttrs (_: refusal: refusal.match) refusals;
}
