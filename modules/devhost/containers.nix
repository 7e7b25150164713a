# Containers that the host's configuration declares: a file that says what each shall be, and
# a unit that has devhost make them so at each start of the host, and at each switch that
# changes the file.
{ config, lib, options, pkgs, ... }:
let
  cfg = config.services.devhost;

  canCheck = import ./can-check.nix pkgs;

  # Modules of one's own in a folder that devhost takes as a provision.
  provisionOf = name: modules:
    if modules == [ ] then ""
    else
      "${pkgs.runCommand "devhost-provision-${name}" { preferLocalBuild = true; allowSubstitutes = false; } ''
        mkdir $out
        ${lib.concatStrings (lib.imap0 (i: module: "cp -r ${module} $out/module-${toString i}\n") modules)}
        echo '{ imports = [ ${lib.concatStringsSep " " (lib.imap0 (i: _: "./module-${toString i}") modules)} ]; }' > $out/provision.nix
      ''}";

  evaluated = container: import ../../lib/mkContainerSystem.nix {
    nixpkgs = pkgs.path;
    system = pkgs.stdenv.hostPlatform.system;
    modules = [ container.config ] ++ container.provision;
  };

  # The numbers of users, by their names.
  uidOf = name: container: owner:
    let
      users = if container.config == null then { developer.uid = 1000; s-dev.uid = 1001; } else (evaluated container).config.users.users;
      uid = users.${owner}.uid or null;
    in
    if owner == null then 0
    else if builtins.isInt owner then owner
    else if uid != null then uid
    else
      throw ''
        services.devhost.containers.${name}.bindMounts: no user ${owner} with a fixed uid is known to be in
        the container; give the user's number, such as owner = 1000'';

  orNone = value: if value == null then "" else value;

  values = lib.mapAttrsToList
    (name: container: {
      inherit name;
      inherit (container) autoStart ephemeral expiry aliases environment authorizedKeys nesting network forwardPorts;
      channel = orNone (if container.flake != null then container.flake else container.channel);
      system = if container.config == null then "" else "${(evaluated container).system}";
      provision = if container.config == null then provisionOf name container.provision else "";
      bindMounts = lib.mapAttrsToList
        (guestPath: mount: { inherit guestPath; inherit (mount) hostPath isReadOnly; owner = uidOf name container mount.owner; })
        container.bindMounts;
      limits = lib.filterAttrs (_: value: value != null) container.limits;
    })
    cfg.containers;

  file = pkgs.writeTextFile {
    name = "devhost-containers.json";
    text = builtins.toJSON { version = 1; containers = values; };
    checkPhase = lib.optionalString canCheck ''
      ${cfg.package}/bin/devhost host check --containers "$out"
    '';
  };

  # Not in the file itself, which would be another one for other settings: a switch that changes
  # those applies no containers.
  fits = pkgs.runCommand "devhost-containers-fit" { preferLocalBuild = true; allowSubstitutes = false; } ''
    ${cfg.package}/bin/devhost host check --containers --settings ${config.environment.etc."devhost-settings.json".source} ${file} >$out
  '';
in
{
  config = lib.mkIf cfg.enable {
    environment.etc."devhost-containers.json".source = file;

    # NixOS 23.05 and older do not have system.checks.
    system.${if options.system ? checks then "checks" else "extraDependencies"} = lib.optional (canCheck && cfg.containers != { }) fits;

    systemd.services.devhost-apply = {
      description = "Containers of devhost that the host's configuration declares";
      wantedBy = [ "multi-user.target" ];
      # Channels may have to be fetched. A container that cannot be made keeps nothing else
      # from starting.
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nix-daemon.socket" "devhost-boot.service" ];
      environment.PATH = lib.mkForce "/run/wrappers/bin:/run/current-system/sw/bin";
      # Limits that a container does not name are those of the host.
      restartTriggers = [ file (builtins.hashString "sha256" (builtins.toJSON { inherit (cfg) defaults maximum; })) ];
      stopIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${cfg.package}/bin/devhost host apply";
        # Units that failed in a container are its own matter.
        SuccessExitStatus = 3;
        TimeoutStartSec = "infinity";
      };
    };
  };
}
