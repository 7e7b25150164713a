# The options of systemd units, by kind; systemd.nix makes the files.
{ lib }:
let
  inherit (lib) types;

  scalar = types.nullOr (types.oneOf [ types.bool types.int types.float types.str types.path types.package ]);

  # A unit setting. Lists merge and become repeated settings; single values must agree.
  setting = lib.mkOptionType {
    name = "systemd option";
    description = "systemd setting: a value, or a list of values";
    check = value: (if lib.isList value then lib.all scalar.check value else scalar.check value);
    merge = location: definitions:
      if lib.any (definition: lib.isList definition.value) definitions
      then lib.concatMap (definition: lib.toList definition.value) definitions
      else lib.mergeEqualOption location definitions;
  };

  section = description: lib.mkOption {
    type = types.attrsOf setting;
    default = { };
    inherit description;
  };

  unitNames = description: lib.mkOption {
    type = types.listOf types.str;
    default = [ ];
    inherit description;
  };

  lines = description: lib.mkOption {
    type = types.lines;
    default = "";
    inherit description;
  };

  switchBehaviour = {
    restartTriggers = lib.mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Values whose change restarts the unit at a switch.";
    };
    reloadTriggers = lib.mkOption {
      type = types.listOf types.unspecified;
      default = [ ];
      description = "Values whose change reloads the unit at a switch.";
    };
  };
in
{
  # Every kind of unit has these.
  common = switchBehaviour // {
    enable = lib.mkOption {
      type = types.bool;
      default = true;
      description = "Whether the unit exists; a disabled one is masked.";
    };
    overrideStrategy = lib.mkOption {
      type = types.enum [ "asDropinIfExists" "asDropin" ];
      default = "asDropinIfExists";
      description = "Whether the unit is a file of its own, or always an addition to one of systemd's.";
    };
    description = lib.mkOption {
      type = types.singleLineStr;
      default = "";
      description = "What the unit is, for people.";
    };
    documentation = unitNames "URIs of the documentation.";
    requires = unitNames "Units that must start, or this one fails.";
    requisite = unitNames "Units that must run already, or this one fails.";
    wants = unitNames "Units that start with this one.";
    upholds = unitNames "Units that are kept running while this one runs.";
    bindsTo = unitNames "Like `requires`; besides, this unit stops with them.";
    partOf = unitNames "Units whose stop and restart this one follows.";
    conflicts = unitNames "Units that stop when this one starts.";
    before = unitNames "Units that start after this one.";
    after = unitNames "Units that start before this one.";
    onFailure = unitNames "Units that start when this one fails.";
    onSuccess = unitNames "Units that start when this one ends well.";
    wantedBy = unitNames "Units that want this one.";
    requiredBy = unitNames "Units that require this one.";
    upheldBy = unitNames "Units that keep this one running.";
    aliases = unitNames "Further names of the unit.";
    startLimitBurst = lib.mkOption {
      type = types.nullOr types.int;
      default = null;
      description = "Starts allowed within `startLimitIntervalSec`.";
    };
    startLimitIntervalSec = lib.mkOption {
      type = types.nullOr types.int;
      default = null;
      description = "Seconds over which starts are counted.";
    };
    unitConfig = section "Further settings of the section [Unit].";
  };

  service = {
    environment = lib.mkOption {
      type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ]));
      default = { };
      description = "Environment of the processes.";
    };
    path = lib.mkOption {
      type = types.listOf (types.oneOf [ types.package types.str ]);
      default = [ ];
      description = "Packages on the PATH of the processes.";
    };
    serviceConfig = section "Further settings of the section [Service].";
    script = lines "Bash commands that are the service's main process.";
    scriptArgs = lib.mkOption {
      type = types.str;
      default = "";
      description = "Arguments of `script`.";
    };
    preStart = lines "Bash commands before the main process.";
    postStart = lines "Bash commands after the main process has started.";
    reload = lines "Bash commands that reload the service.";
    preStop = lines "Bash commands that stop the service.";
    postStop = lines "Bash commands after the service has stopped.";
    restartIfChanged = lib.mkOption {
      type = types.bool;
      default = true;
      description = "Whether a switch restarts the service when its unit has changed.";
    };
    reloadIfChanged = lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether a switch reloads, instead of restarts, the service when its unit has changed.";
    };
    stopIfChanged = lib.mkOption {
      type = types.bool;
      default = true;
      description = "Whether a changed service stops before, and starts after, the new system is activated.";
    };
    notSocketActivated = lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether a changed service is started itself, though it has a socket.";
    };
    startAt = lib.mkOption {
      type = types.either types.str (types.listOf types.str);
      default = [ ];
      apply = lib.toList;
      example = "*-*-* 03:00:00";
      description = "When a timer starts the service (systemd.time(7)).";
    };
  };

  socket = {
    listenStreams = unitNames "Stream sockets to listen on.";
    listenDatagrams = unitNames "Datagram sockets to listen on.";
    socketConfig = section "Further settings of the section [Socket].";
  };
  timer.timerConfig = section "Settings of the section [Timer].";
  path.pathConfig = section "Settings of the section [Path].";
  slice.sliceConfig = section "Settings of the section [Slice].";
}
