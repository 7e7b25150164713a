# Evaluation tests of modules/devbox and lib.mkDevbox, with a tree of nixpkgs: { tree }. What the
# module makes of a machine must be as in expected/devboxes.
{ tree }:
let
  nixpkgs = import ./nixpkgs.nix { inherit tree; };
  inherit (nixpkgs) lib;
  inherit (import ../../lib) mkDevbox mkScripts;
  hypervisors = import ../../modules/devbox/hypervisors.nix;

  # In place of devbox-auto-install, which a tree without real packages cannot build.
  standIn = { lib, pkgs, ... }: { devbox.install.package = lib.mkDefault (pkgs.writeTextDir "bin/devbox-auto-install" ""); };

  # { system, module } -> the machine, by the module itself.
  evaluate = { system ? "aarch64-linux", module ? { } }: nixpkgs.lib.nixosSystem {
    inherit system;
    modules = [ ../../modules/devbox { system.stateVersion = "24.05"; } standIn module ];
  };

  # Of a store path, its name alone.
  unhashed = text: lib.concatStrings (map (part: if lib.isList part then lib.last part else part)
    (builtins.split "${builtins.storeDir}/([a-z0-9]{32})-([^/: \n\"]+)" text));

  # What the ISO does, and that it can be built.
  installer = { config, pkgs, ... }:
    let
      iso = config.system.build.devboxInstallerSystem.config;
      unit = iso.systemd.services.devbox-auto-install;
    in
    {
      buildable = map (built: lib.hasSuffix ".drv" built.drvPath) [ config.system.build.devboxInstaller config.system.build.devboxImage ];
      complaints = map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) iso.assertions) ++ iso.warnings;
      emergency = iso.systemd.enableEmergencyMode;
      facts = unhashed (builtins.unsafeDiscardStringContext config.system.build.devboxInstallerFacts.facts);
      # Nothing but what is installed is in the ISO besides itself.
      holds = map lib.getName (lib.subtractLists [ iso.system.build.toplevel ] iso.isoImage.storeContents);
      kernelParams = iso.boot.kernelParams;
      unit = lib.filter (line: ! lib.hasPrefix "Environment=" line) (lib.splitString "\n" (unhashed (builtins.unsafeDiscardStringContext iso.systemd.units."devbox-auto-install.service".text)));
      path = map (package: if lib.isString package then package else lib.getName package) (lib.take 5 unit.path);
      nixPath = unit.environment.NIX_PATH or null;
      logins = lib.filter (name: (iso.systemd.services.${name}.enable or true)) [ "getty@tty1" "serial-getty@${(builtins.fromJSON (builtins.unsafeDiscardStringContext config.system.build.devboxInstallerFacts.facts)).console}" ];
      passwords = passwordsOf iso;
      network = iso.networking.useDHCP;
      nix = { inherit (iso.nix.settings) substituters trusted-public-keys; };
    };

  projection = { config, options, pkgs, ... }@machine:
    let
      only = names: lib.filterAttrs (name: _: lib.elem name names);
      settings = config.nix.settings or { };
      variant = config.virtualisation.vmVariant or null;
    in
    {
      inherit (pkgs.stdenv.hostPlatform) system;
      inherit (config.devbox.install) disk;
      boot = {
        loader = {
          systemd-boot = { inherit (config.boot.loader.systemd-boot) enable configurationLimit; };
          inherit (config.boot.loader) timeout;
        };
        inherit (config.boot) growPartition;
        consoles = lib.filter (lib.hasPrefix "console=") config.boot.kernelParams;
        modules = lib.filter (lib.hasPrefix "kvm-") config.boot.kernelModules;
        initrd = lib.intersectLists [ "virtio_blk" "virtio_console" "virtio_net" "virtiofs" "9p" ]
          (config.boot.initrd.availableKernelModules ++ config.boot.initrd.kernelModules);
      };
      fileSystems = lib.mapAttrs (_: fileSystem: { inherit (fileSystem) device fsType; grows = fileSystem.autoResize; }) (only [ "/" "/boot" ] config.fileSystems);
      zram = config.zramSwap.enable;
      agent = config.services.qemuGuest.enable;
      tellsAddress = config.systemd.services ? devbox-address;
      ssh = {
        inherit (config.services.openssh) enable;
        # A release says it as a word or as a bool.
        keys = config.services.openssh.authorizedKeysFiles;
        passwords = lib.elem (config.services.openssh.settings.PasswordAuthentication or config.services.openssh.passwordAuthentication) [ true "yes" ];
      };
      users = lib.mapAttrs (_: user: { inherit (user) description isNormalUser hashedPassword initialPassword; groups = user.extraGroups; })
        (lib.filterAttrs (_: user: user.isNormalUser) config.users.users);
      passwords = passwordsOf config;
      sudoAsks = config.security.sudo.wheelNeedsPassword;
      openFiles = {
        logins = map (limit: "${limit.type} ${limit.value}") (lib.filter (limit: limit.item == "nofile") config.security.pam.loginLimits);
        # Releases before 25.11 have a text.
        services = toString (config.systemd.settings.Manager.DefaultLimitNOFILE
          or (map (lib.removePrefix "DefaultLimitNOFILE=") (lib.filter (lib.hasInfix "NOFILE") (lib.splitString "\n" config.systemd.extraConfig))));
      };
      documentation = {
        nixos = config.documentation.nixos.enable;
        doc = config.documentation.doc.enable;
        info = config.documentation.info.enable;
        man = config.documentation.man.enable;
      };
      nix = {
        inherit (settings) experimental-features substituters trusted-public-keys;
      };
      tryOut = {
        inherit (variant.virtualisation) diskSize;
        # NixOS' own choice is left out.
        cores = if config.devbox.vm.cpus == null then null else variant.virtualisation.cores;
        memorySize = if config.devbox.vm.memoryMB == null then null else variant.virtualisation.memorySize;
        login = variant.services.getty.autologinUser;
      };
      installer = installer machine;
    };

  machines = {
    tart = { };
    tart-bootstrap = { module.devbox.install.mode = "bootstrap"; };
    qemu = { system = "x86_64-linux"; module.devbox = { hypervisor = "qemu"; }; };
    all = { system = "x86_64-linux"; module = ./devboxes/all.nix; };
    own = { module = ./devboxes/own.nix; };
  };

  # Options at values that are not their defaults, and what that changes.
  tried = {
    hypervisor = { value = "qemu"; changes = [ "boot" "consoles" ]; };
    "user.login" = { value = "alice"; changes = [ "users" ]; };
    "vm.nested" = { value = true; changes = [ "users" ]; };
    "vm.memoryMB" = { value = 4096; changes = [ "tryOut" "memorySize" ]; };
    "vm.diskGB" = { value = 20; changes = [ "tryOut" "diskSize" ]; };
    "vm.cpus" = { value = 3; changes = [ "tryOut" "cores" ]; };
    "nix.substituters" = { value = [ "https://cache.example.org" ]; changes = [ "nix" "substituters" ]; };
    "nix.trustedPublicKeys" = { value = [ "cache.example.org-1:0000000000000000000000000000000000000000000=" ]; changes = [ "nix" "trusted-public-keys" ]; };
    "install.mode" = { value = "bootstrap"; changes = [ "installer" "facts" ]; };
    # It is read by devbox-cli, which tells the installer.
    "install.disk" = { value = "/dev/vdb"; changes = [ "disk" ]; };
    "install.package" = { value = (import ./nixpkgs.nix { inherit tree; }).legacyPackages.x86_64-linux.hello; changes = [ "installer" "unit" ]; };
  };

  refused = {
    no-such-guest = {
      machine = { system = "x86_64-linux"; };
      message = "devbox: tart runs no x86_64-linux; set devbox.hypervisor = \"qemu\", or build for aarch64-linux";
    };
    no-machines-inside = {
      machine.module.devbox = { hypervisor = "qemu"; vm.nested = true; };
      message = "devbox: qemu lets no machines run in one of aarch64-linux; set devbox.hypervisor = \"tart\", or set devbox.vm.nested = false";
    };
    another-host-key = {
      machine.module.services.openssh.hostKeys = [{ type = "ed25519"; path = "/persist/key"; }];
      message = "devbox: devbox-cli knows the machine by /etc/ssh/ssh_host_ed25519_key, which the installer makes; add { type = \"ed25519\"; path = \"/etc/ssh/ssh_host_ed25519_key\"; } to services.openssh.hostKeys";
    };
    hidden-host-key = {
      machine.module = { boot.initrd.systemd.enable = true; system.etc.overlay.enable = true; };
      message = "devbox: devbox-cli knows the machine by /etc/ssh/ssh_host_ed25519_key, which the installer makes and an overlay on /etc hides; set system.etc.overlay.enable = false";
    };
  };

  # Accounts with a password that somebody could know.
  passwordsOf = config: lib.attrNames (lib.filterAttrs
    (_: user: lib.any (password: ! lib.elem password [ null "!" "*" ]) [ user.hashedPassword user.password user.initialPassword user.initialHashedPassword ])
    config.users.users);

  optionsOf = prefix: options: lib.concatLists (lib.mapAttrsToList
    (name: value: if lib.isOption value then [ (lib.concatStringsSep "." (prefix ++ [ name ])) ] else optionsOf (prefix ++ [ name ]) value)
    options);
  at = lib.foldl' (value: name: value.${name});
  good = problems: if problems == [ ] then "good" else throw (lib.concatStringsSep "\n" problems);
  complaints = { config, ... }: map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);
in
{
  # The whole system is evaluated, for its assertions and warnings.
  devboxes = lib.mapAttrs
    (_: machine:
      let evaluated = evaluate machine;
      in builtins.seq evaluated.config.system.build.toplevel.drvPath (projection evaluated))
    machines;

  options =
    let without = projection (evaluate { });
    in
    lib.mapAttrs
      (name: case:
        let with' = projection (evaluate { module.devbox = lib.setAttrByPath (lib.splitString "." name) case.value; });
        in good (lib.optional (at with' case.changes == at without case.changes) "devbox.${name} changes nothing at ${lib.concatStringsSep "." case.changes}"))
      tried;

  assertions = lib.mapAttrs
    (_: case:
      # An overlay on /etc asks for a kernel that a tree without real packages has not.
      let ours = lib.filter (lib.hasPrefix "devbox: ") (complaints (evaluate case.machine));
      in good (lib.optional (ours != [ case.message ]) "expected one complaint, ${builtins.toJSON case.message}, got ${builtins.toJSON ours}"))
    refused;

  coverage = {
    options =
      let declared = optionsOf [ ] (evaluate { }).options.devbox;
      in
      good (
        map (name: "devbox.${name} is tried by no test") (lib.subtractLists (lib.attrNames tried) declared)
        ++ map (name: "devboxes.nix: there is no option ${name}") (lib.subtractLists declared (lib.attrNames tried))
      );

    # Every guest that a hypervisor runs has no complaints, and a console; every other is refused.
    hypervisors = good (lib.concatLists (lib.mapAttrsToList
      (hypervisor: can: lib.concatMap
        (system: lib.concatMap
          (nested:
            let
              said = complaints (evaluate { inherit system; module.devbox = { inherit hypervisor; vm = { inherit nested; }; }; });
              able = lib.elem system can.systems && (!nested || lib.elem system can.nested);
            in
            lib.optional ((said == [ ]) != able) "${hypervisor}, ${system}, nested ${builtins.toJSON nested}: ${builtins.toJSON said}"
            ++ lib.optional (lib.elem system can.systems && !(can.console ? ${system})) "${hypervisor} has no console for ${system}")
          [ false true ])
        [ "aarch64-linux" "x86_64-linux" ])
      hypervisors));
  };

  # What devbox-auto-install writes in the mode bootstrap.
  bootstrap =
    let
      machine = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ../../internal/install/testdata/configuration.nix ]; };
      inherit (machine) config;
      user = config.users.users.alice;
    in
    {
      evaluates = good (complaints machine ++ config.warnings ++ lib.optional (!lib.hasSuffix ".drv" config.system.build.toplevel.drvPath) "it cannot be built");
      is-as-it-must-be = good (
        lib.optional (config.networking.hostName != "dev") "the host name is ${config.networking.hostName}"
        ++ lib.optional (!(config.services.openssh.enable && config.services.openssh.settings.PasswordAuthentication == false)) "sshd is not there, or takes passwords"
        ++ lib.optional (!(user.isNormalUser && lib.elem "wheel" user.extraGroups) || config.security.sudo.wheelNeedsPassword) "alice is no administrator"
        ++ lib.optional (lib.last user.openssh.authorizedKeys.keys != "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBar a \"quoted\" \${comment} \\ of mine") "the keys are ${builtins.toJSON user.openssh.authorizedKeys.keys}"
        ++ lib.optional (passwordsOf config != [ ]) "these have passwords: ${builtins.toJSON (passwordsOf config)}"
        ++ lib.optional (!lib.elem "https://cache.example.org" config.nix.settings.substituters) "the binary cache is missing"
        ++ lib.optional (lib.subtractLists config.nix.settings.experimental-features [ "nix-command" "flakes" ] != [ ]) "flakes are off"
      );
    };

  library =
    let
      machine = { modules ? [ ], ... }@arguments: mkDevbox ({ inherit nixpkgs; system = "x86_64-linux"; hypervisor = "qemu"; } // arguments // {
        modules = [{ system.stateVersion = "24.05"; }] ++ modules;
      });
      config = arguments: (machine arguments).config;
      fails = value: !(builtins.tryEval value).success;
    in
    {
      arguments-are-options = good (
        lib.optional ((mkDevbox { inherit nixpkgs; system = "aarch64-linux"; }).config.devbox.hypervisor != "tart") "the hypervisor is not tart by itself"
        ++ lib.optional ((config { }).devbox.hypervisor != "qemu") "the hypervisor is ignored"
        ++ lib.optional ((config { vm.cpus = 3; }).devbox.vm.cpus != 3) "vm is ignored"
      );
      system-is-used = good (lib.optional ((machine { }).pkgs.stdenv.hostPlatform.system != "x86_64-linux") "system is ignored");
      modules-and-their-arguments = good (lib.optional
        ((config { specialArgs.team = "red"; modules = [ ({ team, ... }: { environment.etc.team.text = team; }) ]; }).environment.etc.team.text != "red")
        "modules or specialArgs are ignored");
      scripts =
        let
          pkgs = (machine { }).pkgs;
          scripts = arguments: mkScripts ({ inherit pkgs; devbox-cli = pkgs.hello; } // arguments);
          commands = [ "devbox-bootstrap" "devbox-rebuild" "devbox-remove" "devbox-start" "devbox-stop" ];
          changed = hook: lib.filter (name: (scripts { ${hook} = "true"; }).${name}.drvPath != (scripts { }).${name}.drvPath) commands;
        in
        good (
          lib.optional (lib.attrNames (scripts { }) != commands) "the commands are ${toString (lib.attrNames (scripts { }))}"
          ++ lib.optional (changed "privateKeyHook" != [ "devbox-bootstrap" ]) "privateKeyHook is in ${toString (changed "privateKeyHook")}"
          ++ lib.optional (changed "parentPubKeyHook" != [ "devbox-bootstrap" ]) "parentPubKeyHook is in ${toString (changed "parentPubKeyHook")}"
          ++ lib.optional (changed "preRebuildHook" != [ "devbox-rebuild" ]) "preRebuildHook is in ${toString (changed "preRebuildHook")}"
        );
      what-is-wrong-is-refused = good (
        lib.optional (!fails (config { vm.memory = 1; }).devbox.vm.memory) "an unknown option of vm is taken"
        ++ lib.optional (!fails (config { hypervisor = "xen"; }).devbox.hypervisor) "an unknown hypervisor is taken"
        ++ lib.optional (!fails (machine { nixpkgs = tree; })) "a path is taken for nixpkgs"
      );
    };
}
