# Evaluation tests of the modules for hosts, with a tree of nixpkgs: { tree }. A set of sets;
# scripts/check-nix evaluates each value by itself, which must give no error and no warning.
# Those of hosts and assertions must be as in expected/.
{ tree }:
let
  library = import ./lib.nix { inherit tree; };
  inherit (library) lib evaluate evaluateWithOwnPackage projection complaints;

  hosts = import ./hosts;
  effects = import ./options.nix;
  containers = import ./containers.nix;
  assertions = import ./assertions.nix { inherit lib; pkgs = import tree { system = "x86_64-linux"; }; };

  at = lib.foldl' (value: name: value.${name} or null);

  # The paths of all options of a set, and of what is set.
  optionPaths = options: lib.concatLists (lib.mapAttrsToList
    (name: value: map (path: [ name ] ++ path) (if lib.isOption value then [ [ ] ] else optionPaths value))
    (removeAttrs options [ "_module" ]));
  valuePaths = value: lib.concatLists (lib.mapAttrsToList
    (name: inner: map (path: [ name ] ++ path) (if lib.isAttrs inner then valuePaths inner else [ [ ] ]))
    value);

  good = problems: if problems == [ ] then "good" else throw (lib.concatStringsSep "\n" problems);
in
{
  # The whole system is evaluated, for its assertions and warnings; but where those ask for
  # packages that a tree without real ones does not have.
  hosts = lib.mapAttrs
    (name: configuration:
      let evaluated = evaluate configuration;
      in builtins.seq (name == "immutable" || evaluated.system.drvPath != "") (projection evaluated))
    hosts;

  # Each assertion fails where it should, alone, and says the remedy.
  assertions = lib.mapAttrs
    (_: case:
      let
        said = complaints ((if case.ownPackage or false then evaluateWithOwnPackage else evaluate) { imports = [ hosts.minimal case.module ]; });
        message = lib.head said;
      in
      if lib.length said == 1 && lib.hasInfix case.remedy message then message
      else throw "expected one complaint with ${builtins.toJSON case.remedy}, got ${builtins.toJSON said}")
    assertions;

  # What an option changes that is not in the settings file.
  effects = lib.mapAttrs
    (name: case:
      let
        base = case.base or hosts.minimal;
        of = modules: at (projection (evaluate { imports = [ base ] ++ modules; })) case.changes;
      in
      good (lib.optional (of [ ] == of [ case.module ]) "${name} changes nothing at ${lib.concatStringsSep "." case.changes}"))
    effects;

  # What an option of a declared container changes in the file: all are declared beside each
  # other, and beside one that says nothing.
  containers =
    let
      base = { channel = lib.mkDefault "/srv/channel"; };
      declared = (projection (evaluate {
        imports = [ hosts.minimal ];
        services.devhost.containers = lib.mapAttrs (_: module: lib.mkMerge [ base module ]) (containers // { "says nothing" = { }; });
      })).containers;
      byName = lib.listToAttrs (map (container: lib.nameValuePair container.name (removeAttrs container [ "name" ])) declared);
    in
    lib.mapAttrs
      (name: _: good (lib.optional (byName.${name} == byName."says nothing") "containers.<name>.${name} changes nothing"))
      containers;

  coverage = {
    # Every option of a declared container is tried.
    containers =
      let
        declared = map (lib.concatStringsSep ".") (optionPaths
          (removeAttrs ((evaluate hosts.minimal).options.services.devhost.containers.type.getSubOptions [ ]) [ "_freeformOptions" ]));
      in
      good (
        map (name: "containers.<name>.${name} is tried by no test") (lib.subtractLists (lib.attrNames containers) declared)
        ++ map (name: "containers.nix: there is no option ${name}") (lib.subtractLists declared (lib.attrNames containers))
      );

    # Every option makes a difference: in the settings file, or as options.nix says.
    options =
      let
        minimal = (projection (evaluate hosts.minimal)).settings;
        all = (projection (evaluate hosts.all)).settings;
        inSettings = lib.filter (path: path != [ "version" ]) (valuePaths minimal);
        options = (evaluate { imports = [ ../../modules/test-builder ]; }).options;
        names = root: set: map (path: lib.concatStringsSep "." (root ++ path)) (optionPaths set);
        declared = names [ "services" "devhost" ] options.services.devhost ++ names [ "devhost" "testBuilder" ] options.devhost.testBuilder;
        tried = map (path: lib.concatStringsSep "." ([ "services" "devhost" ] ++ path)) inSettings ++ lib.attrNames effects;
      in
      good (
        map (name: "${name} is tried by no test") (lib.subtractLists tried declared)
        ++ map (name: "options.nix: there is no option ${name}") (lib.subtractLists declared tried)
        ++ map (path: "services.devhost.${lib.concatStringsSep "." path}: hosts/all.nix gives it no other value, or it is ignored")
          (lib.filter (path: at all path == at minimal path) inSettings)
      );

    # Every assertion has a test.
    assertions =
      let
        # The messages of other modules cannot all be evaluated.
        own = import ../../modules/devhost/assertions.nix { inherit (evaluate hosts.minimal) config options pkgs; inherit lib; };
        there = lib.length own.config.assertions.content;
        said = lib.unique (lib.filter (lib.hasPrefix "services.devhost:") (lib.attrValues (lib.importJSON ./expected/assertions.json)));
      in
      good (
        lib.optional (there != lib.length said) "services.devhost has ${toString there} assertions, and ${toString (lib.length said)} of them a test"
        ++ lib.optional (complaints (evaluate hosts.minimal) != [ ]) "a good host is complained about"
      );
  };

  library =
    let
      mkContainerSystem = modules: (import ../../lib).mkContainerSystem { nixpkgs = tree; system = "x86_64-linux"; inherit modules; };
      built = mkContainerSystem [ { environment.etc.proof.text = "there"; devhost.guest.serviceUser = "app"; } ];
    in
    {
      system-is-a-derivation = good (lib.optional (! lib.hasSuffix ".drv" built.system.drvPath) "it is none");
      modules-are-used = good (
        lib.optional (built.config.environment.etc.proof.text != "there") "a module is ignored"
        ++ lib.optional (built.config.users.users.app.home != "/srv/app") "the guest module is missing"
      );
      arguments-are-handed-on = good (lib.optional
        (((import ../../lib).mkContainerSystem {
          nixpkgs = tree;
          system = "x86_64-linux";
          specialArgs.team = "red";
          modules = [ ({ team, ... }: { environment.etc.team.text = team; }) ];
        }).config.environment.etc.team.text != "red") "specialArgs are ignored");
      what-is-no-nixpkgs-is-refused = good (lib.optional
        (builtins.tryEval ((import ../../lib).mkContainerSystem { nixpkgs = ../../examples; system = "x86_64-linux"; })).success
        "a folder without NixOS is taken for a nixpkgs");
      unknown-owner-is-refused = good (
        let
          tried = owner: (builtins.tryEval (evaluate {
            imports = [ hosts.minimal { services.devhost.containers.ci = { channel = "/c"; bindMounts."/srv/a" = { hostPath = "/a"; inherit owner; }; }; } ];
          }).config.environment.etc."devhost-containers.json".source.text).success;
        in
        lib.optional (tried "nobody-knows") "a user that has no number is taken" ++ lib.optional (!tried "developer") "a user of every container is refused"
      );
      declared-like-it = good (lib.optional
        ((evaluate { imports = [ hosts.minimal { services.devhost.containers.ci.config.devhost.guest.serviceUser = "app"; } ]; }).config.environment.etc."devhost-containers.json".source.text
          == (evaluate { imports = [ hosts.minimal { services.devhost.containers.ci.config = { }; } ]; }).config.environment.etc."devhost-containers.json".source.text)
        "a module of a declared container is ignored");
    };

  # devhost itself checks its files while a host is built.
  checked = lib.mapAttrs
    (file: command:
      let built = (evaluate hosts.minimal).config.environment.etc.${file}.source;
      in good (lib.optional (!lib.hasInfix "/bin/devhost ${command} \"$out\"\n" (built.buildCommand + built.checkPhase or "")) "the build of ${file} does not check it"))
    {
      "devhost-settings.json" = "host check";
      "devhost-containers.json" = "host check --containers";
    } // {
    # What the settings refuse fails in the build, not after the switch.
    "containers with their settings" =
      let
        inherit (evaluate hosts.declared) config;
        inherit (config.environment) etc;
        plain = builtins.unsafeDiscardStringContext;
        check = plain "host check --containers --settings ${etc."devhost-settings.json".source} ${etc."devhost-containers.json".source} ";
      in
      good (lib.optional (!lib.any (drv: lib.hasInfix check (plain (drv.buildCommand or ""))) config.system.checks) "no check of the system does ${check}");
  };

  # What a switch of the host restarts.
  switches =
    let
      unit = name: module: (evaluate { imports = [ hosts.minimal module ]; }).config.systemd.units.${name}.text;
      same = name: module: unit name { } == unit name module;
    in
    {
      keys-leave-ingress = good (lib.optional
        (!same "devhost-ingress.service" { services.devhost.allowedURIs = [ "https://github.com/" ]; })
        "the ingress is restarted for what it does not read");
      domain-restarts-ingress = good (lib.optional
        (same "devhost-ingress.service" { services.devhost.publicAddress = "dev.example.org"; })
        "the ingress is not restarted for another domain");
      certificates-restart-ingress = good (lib.optional
        (same "devhost-ingress.service" { services.devhost.ingress = { tls = "files"; certificates = [{ certificate = "/tls/a.crt"; key = "/tls/a.key"; }]; }; })
        "the ingress is not restarted for other certificates");
      network-reloads-boot = good (
        lib.optional (same "devhost-boot.service" { services.devhost.network.restrictBuilders = false; })
          "settings of the network wait for the next start"
        ++ lib.optional (!lib.hasInfix "X-ReloadIfChanged=true" (unit "devhost-boot.service" { }))
          "containers are started again"
      );
      declarations-are-applied = good (
        lib.optional (same "devhost-apply.service" { services.devhost.containers.ci.channel = "/srv/channel"; })
          "declared containers wait for the next start"
        ++ lib.optional (same "devhost-apply.service" { services.devhost.defaults.tasks = 4096; })
          "the host's limits for declared containers wait for the next start"
        ++ lib.optional (!same "devhost-apply.service" { services.devhost.expiry.stopAfter = "9d"; })
          "declared containers are looked at for what does not concern them"
      );
      hosts-renew-names = good (lib.optional
        (same "devhost-names.service" { networking.hosts."192.0.2.7" = [ "printer" ]; })
        "names of the host's configuration wait for the next start");
      containers-stay = good (lib.optional
        (!lib.hasInfix "X-RestartIfChanged=false" (unit "devhost@.service" { }))
        "containers are restarted");
    };
}
