# systemd.services and its siblings: from options to one store folder of unit files.
{ config, lib, pkgs, ... }:
let
  cfg = config.systemd;
  unitOptions = import ./systemd-unit-options.nix { inherit lib; };

  unitsOption = kind: description: lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule ({ name, config, ... }: {
      options = unitOptions.common // unitOptions.${kind} or { };
      config = lib.optionalAttrs (kind == "service") {
        path = lib.mkAfter [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused pkgs.systemd ];
      };
    }));
    default = { };
    inherit description;
  };

  valueText = value:
    if value == true then "true"
    else if value == false then "false"
    else toString value;

  # KEY=VALUE lines; a list repeats the key, null leaves it out.
  settingLines = settings: lib.concatStrings (lib.mapAttrsToList
    (key: value:
      if value == null then ""
      else lib.concatMapStrings (element: "${key}=${valueText element}\n") (lib.toList value))
    settings);

  sectionText = name: body: lib.optionalString (body != "") "[${name}]\n${body}\n";

  joined = key: names: lib.optionalAttrs (names != [ ]) { ${key} = lib.concatStringsSep " " names; };

  # A digest instead of the values: the file only has to differ when they differ.
  trigger = values: builtins.hashString "sha256"
    (builtins.unsafeDiscardStringContext (lib.concatMapStringsSep " " (value: if lib.isString value || lib.isPath value || lib.isDerivation value then "${value}" else builtins.toJSON value) values));

  unitSection = unit: sectionText "Unit" (settingLines (
    lib.optionalAttrs (unit.description != "") { Description = unit.description; }
    // lib.optionalAttrs (unit.documentation != [ ]) { Documentation = lib.concatStringsSep " " unit.documentation; }
    // joined "Requires" unit.requires
    // joined "Requisite" unit.requisite
    // joined "Wants" unit.wants
    // joined "Upholds" unit.upholds
    // joined "BindsTo" unit.bindsTo
    // joined "PartOf" unit.partOf
    // joined "Conflicts" unit.conflicts
    // joined "Before" unit.before
    // joined "After" unit.after
    // joined "OnFailure" unit.onFailure
    // joined "OnSuccess" unit.onSuccess
    // lib.optionalAttrs (unit.startLimitBurst != null) { StartLimitBurst = unit.startLimitBurst; }
    // lib.optionalAttrs (unit.startLimitIntervalSec != null) { StartLimitIntervalSec = unit.startLimitIntervalSec; }
    // lib.optionalAttrs (unit.restartTriggers != [ ]) { X-Restart-Triggers = trigger unit.restartTriggers; }
    // lib.optionalAttrs (unit.reloadTriggers != [ ]) { X-Reload-Triggers = trigger unit.reloadTriggers; }
    // unit.unitConfig
  ));

  escapeEnvironment = value: lib.replaceStrings [ "\\" "\"" "%" "\n" ] [ "\\\\" "\\\"" "%%" "\\n" ] "${toString value}";

  environmentLines = environment: lib.concatStrings (lib.mapAttrsToList
    (variable: value: lib.optionalString (value != null) "Environment=\"${variable}=${escapeEnvironment value}\"\n")
    environment);

  # The scripts of a service, by the setting that runs each. The file's name is what the journal shows.
  serviceScripts = name: service:
    let
      make = suffix: text:
        let
          file = "${lib.replaceStrings [ "@" "\\" ] [ "-" "-" ] name}-${suffix}";
          script = pkgs.writeTextFile {
            name = "unit-script-${file}";
            executable = true;
            destination = "/bin/${file}";
            text = "#!${pkgs.runtimeShell}\nset -e\n${text}\n";
            checkPhase = "/usr/bin/bash -n \"$target\"";
          };
        in
        "${script}/bin/${file}";
    in
    lib.optionalAttrs (service.script != "") { ExecStart = [ "${make "start" service.script} ${service.scriptArgs}" ]; }
    // lib.optionalAttrs (service.preStart != "") { ExecStartPre = [ (make "pre-start" service.preStart) ]; }
    // lib.optionalAttrs (service.postStart != "") { ExecStartPost = [ (make "post-start" service.postStart) ]; }
    // lib.optionalAttrs (service.reload != "") { ExecReload = [ (make "reload" service.reload) ]; }
    // lib.optionalAttrs (service.preStop != "") { ExecStop = [ (make "pre-stop" service.preStop) ]; }
    // lib.optionalAttrs (service.postStop != "") { ExecStopPost = [ (make "post-stop" service.postStop) ]; };

  # The scripts first, then what serviceConfig says of the same settings.
  withScripts = scripts: settings: settings // lib.mapAttrs
    (key: value: value ++ lib.optionals (settings.${key} or null != null) (lib.toList settings.${key}))
    scripts;

  pathText = packages: lib.concatStringsSep ":" (
    map (package: "${package}/bin") packages ++ map (package: "${package}/sbin") packages
  );

  serviceSection = name: service: sectionText "Service" (
    environmentLines (cfg.globalEnvironment // { PATH = pathText service.path; } // service.environment)
    + settingLines (
      withScripts (serviceScripts name service) service.serviceConfig
      // lib.optionalAttrs service.reloadIfChanged { X-ReloadIfChanged = true; }
      // lib.optionalAttrs (!service.restartIfChanged) { X-RestartIfChanged = false; }
      // lib.optionalAttrs (!service.stopIfChanged) { X-StopIfChanged = false; }
      // lib.optionalAttrs service.notSocketActivated { X-NotSocketActivated = true; }
    )
  );

  socketSection = socket: sectionText "Socket" (settingLines (
    socket.socketConfig
    // lib.optionalAttrs (socket.listenStreams != [ ]) { ListenStream = socket.listenStreams; }
    // lib.optionalAttrs (socket.listenDatagrams != [ ]) { ListenDatagram = socket.listenDatagrams; }
  ));

  toUnit = suffix: body: name: unit: {
    name = "${name}.${suffix}";
    value = {
      inherit (unit) enable overrideStrategy wantedBy requiredBy upheldBy aliases;
      text = unitSection unit + body name unit;
    };
  };

  unitsOf = suffix: body: lib.mapAttrsToList (toUnit suffix body);

  timed = lib.filterAttrs (_: service: service.enable && service.startAt != [ ]) cfg.services;

  manifest = {
    units = cfg.units;
    upstream = cfg.upstreamUnits;
    wants = cfg.upstreamWants;
    optional = cfg.optionalUpstreamUnits;
    suppressed = cfg.suppressedSystemUnits;
    user = cfg.upstreamUserUnits;
    userOptional = cfg.optionalUpstreamUserUnits;
    userWants = cfg.upstreamUserWants;
    aliases = cfg.upstreamAliases // { "default.target" = cfg.defaultUnit; };
  };
in
{
  options.systemd = {
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.systemd;
      defaultText = lib.literalExpression "pkgs.systemd";
      description = "Programs of systemd. PID 1 is always the host's.";
    };
    services = unitsOption "service" "Services.";
    sockets = unitsOption "socket" "Sockets.";
    timers = unitsOption "timer" "Timers.";
    paths = unitsOption "path" "Paths that are watched.";
    targets = unitsOption "target" "Targets.";
    slices = unitsOption "slice" "Slices.";

    globalEnvironment = lib.mkOption {
      type = lib.types.attrsOf (lib.types.nullOr (lib.types.oneOf [ lib.types.str lib.types.path lib.types.package ]));
      default = { };
      description = "Environment of every service.";
    };
    defaultUnit = lib.mkOption {
      type = lib.types.str;
      default = "multi-user.target";
      description = "Unit that boot starts.";
    };
    extraConfig = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Lines for the section [Manager] of system.conf.";
    };
    suppressedSystemUnits = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Units of systemd itself to leave out.";
    };
    tmpfiles.rules = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "d /srv/data 0750 root root -" ];
      description = "Files and folders that boot makes (tmpfiles.d(5)).";
    };
    tmpfiles.settings = lib.mkOption {
      type = lib.types.attrsOf (lib.types.attrsOf (lib.types.attrsOf (lib.types.submodule ({ name, ... }: {
        options = lib.mapAttrs
          (_: description: lib.mkOption { type = lib.types.str; default = "-"; inherit description; })
          { mode = "Access mode."; user = "Owner."; group = "Group."; age = "Age at which contents are removed."; }
        // {
          type = lib.mkOption { type = lib.types.str; default = name; description = "Kind of the rule."; };
          argument = lib.mkOption { type = lib.types.str; default = ""; description = "Argument of the rule."; };
        };
      }))));
      default = { };
      description = "Rules as attribute sets: file, path, kind.";
    };

    units = lib.mkOption {
      type = lib.types.attrsOf (lib.types.submodule {
        options = {
          enable = lib.mkOption { type = lib.types.bool; default = true; description = "Whether the unit exists; a disabled one is masked."; };
          text = lib.mkOption { type = lib.types.lines; description = "Text of the unit."; };
          overrideStrategy = lib.mkOption { type = lib.types.str; default = "asDropinIfExists"; description = "See `systemd.services`."; };
        } // lib.genAttrs [ "wantedBy" "requiredBy" "upheldBy" "aliases" ]
          (key: lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; description = "See `systemd.services`."; });
      });
      default = { };
      internal = true;
      description = "Units as text.";
    };
    upstreamUnits = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = "Units of the host's systemd that the system uses.";
    };
    optionalUpstreamUnits = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = "The same, where the host's systemd has them.";
    };
    upstreamWants = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default = { };
      internal = true;
      description = "Which of them a unit wants.";
    };
    upstreamAliases = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      internal = true;
      description = "Further names of units of systemd.";
    };
    upstreamUserUnits = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = "Units of the users' systemd.";
    };
    optionalUpstreamUserUnits = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      internal = true;
      description = "The same, where the host has them.";
    };
    upstreamUserWants = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf lib.types.str);
      default = { };
      internal = true;
      description = "Which of them a unit wants.";
    };
  };

  config = {
    systemd.units = lib.listToAttrs (
      unitsOf "service" serviceSection cfg.services
      ++ unitsOf "socket" (_: socketSection) cfg.sockets
      ++ unitsOf "timer" (_: unit: sectionText "Timer" (settingLines unit.timerConfig)) cfg.timers
      ++ unitsOf "path" (_: unit: sectionText "Path" (settingLines unit.pathConfig)) cfg.paths
      ++ unitsOf "slice" (_: unit: sectionText "Slice" (settingLines unit.sliceConfig)) cfg.slices
      ++ unitsOf "target" (_: _: "") cfg.targets
    );

    systemd.timers = lib.mapAttrs
      (_: service: {
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = service.startAt;
      })
      timed;

    system.build.units = pkgs.runCommand "units"
      { manifest = builtins.toJSON manifest; passAsFile = [ "manifest" ]; }
      ''exec python3 -I -S ${../system/make-units.py} "$manifestPath"'';

    environment.etc = {
      "systemd/system".source = "${config.system.build.units}/system";
      "systemd/user".source = "${config.system.build.units}/user";
      "systemd/system.conf".text = "[Manager]\n${cfg.extraConfig}";
      "systemd/user.conf".text = "[Manager]\n";
      "tmpfiles.d/00-nixos.conf".text = lib.concatMapStrings (rule: "${rule}\n") cfg.tmpfiles.rules;
    } // lib.mapAttrs'
      (file: paths: lib.nameValuePair "tmpfiles.d/${file}.conf" {
        text = lib.concatStrings (lib.concatLists (lib.mapAttrsToList
          (path: kinds: lib.mapAttrsToList
            (_: rule: "'${rule.type}' '${path}' '${rule.mode}' '${rule.user}' '${rule.group}' '${rule.age}' ${rule.argument}\n")
            kinds)
          paths));
      })
      cfg.tmpfiles.settings;
  };
}
