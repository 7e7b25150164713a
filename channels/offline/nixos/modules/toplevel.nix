# The system's store path: what a container boots and switches to.
{ config, lib, pkgs, ... }:
let
  failedAssertions = map (entry: entry.message) (lib.filter (entry: !entry.assertion) config.assertions);

  checked = value:
    if failedAssertions != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failedAssertions}"
    else lib.foldr (message: result: builtins.trace "warning: ${message}" result) value config.warnings;

  # What the host must know before it starts the system.
  hostContract = builtins.toJSON { version = 1; hostUsr = true; };

  unitPath = lib.concatStringsSep ":" [
    "/etc/systemd/system.control"
    "/run/systemd/system.control"
    "/run/systemd/transient"
    "/etc/systemd/system"
    "/run/systemd/system"
  ];

  # systemd sees only this system's units: the host's /usr/lib/systemd/system holds units
  # of whatever else is installed there, and generators that look at the host's hardware.
  init = pkgs.writeTextFile {
    name = "init";
    executable = true;
    text = ''
      #!/bin/sh
      # PID 1 of the container: activates the system, then becomes systemd.
      systemConfig=$(${pkgs.coreutils}/bin/readlink -f "$0")
      systemConfig=''${systemConfig%/*}
      ${pkgs.coreutils}/bin/ln -sfn "$systemConfig" /run/booted-system
      "$systemConfig/activate" "$systemConfig" || echo "activation of $systemConfig had errors" >&2
      export SYSTEMD_UNIT_PATH=${unitPath}
      export SYSTEMD_GENERATOR_PATH=/etc/systemd/system-generators
      export SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/etc/systemd/system-environment-generators
      export PATH=/run/current-system/sw/bin
      exec /usr/lib/systemd/systemd "$@"
    '';
  };
in
{
  options.system = {
    build = lib.mkOption {
      type = lib.types.lazyAttrsOf lib.types.unspecified;
      default = { };
      description = "Derivations that make up the system.";
    };
    extraSystemBuilderCmds = lib.mkOption {
      type = lib.types.lines;
      default = "";
      internal = true;
      description = "Shell commands that add to the system's folder.";
    };
    extraDependencies = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ ];
      description = "Packages that the system keeps alive without using them.";
    };
  };

  config.system.build.toplevel = checked (pkgs.runCommand "offline-system-${config.system.nixos.version}"
    {
      passthru = { inherit config; };
      extraDependencies = map toString config.system.extraDependencies;
    }
    ''
      mkdir -p "$out/bin"
      # A copy: init finds the system by its own place.
      cp ${init} "$out/init"
      ln -s ${config.system.build.activate} "$out/activate"
      ln -s ${config.system.build.etc}/etc "$out/etc"
      ln -s ${config.system.path} "$out/sw"
      cat > "$out/bin/switch-to-configuration" <<END
      #!/bin/sh
      exec ${pkgs.python3}/bin/python3 -I -S ${../system/switch-to-configuration.py} $out "\$@"
      END
      chmod 0755 "$out/bin/switch-to-configuration"
      printf %s ${lib.escapeShellArg config.system.nixos.label} > "$out/nixos-version"
      printf %s ${lib.escapeShellArg config.nixpkgs.hostPlatform.system} > "$out/system"
      printf '%s\n' ${lib.escapeShellArg hostContract} > "$out/devhost-system.json"
      if [ -n "$extraDependencies" ]; then
        printf '%s\n' $extraDependencies > "$out/extra-dependencies"
      fi
      ${config.system.extraSystemBuilderCmds}
    '');
}
