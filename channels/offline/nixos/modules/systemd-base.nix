# What systemd itself runs in a container: journal, logins, D-Bus, network, temporary files.
# The units are those of the host's systemd, so they fit its version; where Debian's or
# Ubuntu's would read configuration from /usr/lib, a unit of ours takes its place.
{ config, lib, ... }:
let
  cfg = config.systemd;

  boolOption = default: description: lib.mkOption {
    type = lib.types.bool;
    inherit default description;
  };
  linesOption = description: lib.mkOption {
    type = lib.types.lines;
    default = "";
    inherit description;
  };

  # Without arguments, these programs would also read what the host's packages installed below /usr/lib.
  ownFiles = command: folder: "/bin/sh -c 'exec ${command} /etc/${folder}/*.conf'";

  sysctls = lib.filterAttrs (_: value: value != null) config.boot.kernel.sysctl;
in
{
  options = {
    services.journald = {
      storage = lib.mkOption {
        type = lib.types.enum [ "persistent" "volatile" "auto" "none" ];
        default = "persistent";
        description = "Where the journal is kept.";
      };
      extraConfig = linesOption "Lines for the section [Journal] of journald.conf.";
      rateLimitBurst = lib.mkOption {
        type = lib.types.int;
        default = 10000;
        description = "Messages of one service that are kept per interval.";
      };
      rateLimitInterval = lib.mkOption {
        type = lib.types.str;
        default = "30s";
        description = "The interval.";
      };
    };
    services.logind.extraConfig = linesOption "Lines for the section [Login] of logind.conf.";
    services.dbus.enable = boolOption true "Whether the system bus runs. It always does.";
    services.nscd.enable = boolOption false "Accepted without effect: names are looked up without a cache.";
    services.timesyncd.enable = boolOption false "Accepted without effect: a container's clock is the host's.";
    services.udev.enable = boolOption false "Accepted without effect: a container has no devices.";
    system.nssModules = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      description = "Accepted without effect: names come from files and DNS.";
    };

    systemd.coredump.enable = boolOption false "Accepted without effect: core dumps are the host's business.";
    systemd.oomd.enable = boolOption false "Accepted without effect: memory pressure is the host's business.";
    systemd.enableEmergencyMode = boolOption false "Accepted without effect: a container has no console.";

    systemd.network = {
      enable = boolOption true "Whether networkd runs.";
      wait-online = {
        enable = boolOption true "Whether network-online.target waits for an address.";
        anyInterface = boolOption false "Whether one interface is enough.";
        timeout = lib.mkOption {
          type = lib.types.ints.unsigned;
          default = 120;
          description = "Seconds to wait at most.";
        };
        ignoredInterfaces = lib.mkOption {
          type = lib.types.listOf lib.types.str;
          default = [ ];
          description = "Interfaces not to wait for.";
        };
      };
    };
  };

  config = {
    systemd.upstreamUnits = [
      # targets and slices
      "basic.target" "exit.target" "final.target" "getty.target" "graphical.target" "halt.target" "kexec.target"
      "local-fs-pre.target" "local-fs.target" "multi-user.target" "network-online.target" "network-pre.target"
      "network.target" "nss-lookup.target" "nss-user-lookup.target" "paths.target" "poweroff.target" "reboot.target"
      "remote-fs-pre.target" "remote-fs.target" "shutdown.target" "sigpwr.target" "sleep.target"
      "slices.target" "sockets.target" "swap.target" "sysinit.target" "time-set.target" "time-sync.target"
      "timers.target" "umount.target" "user.slice"
      # journal
      "systemd-journald.service" "systemd-journald.socket" "systemd-journald-dev-log.socket"
      "systemd-journal-flush.service"
      # power
      "systemd-exit.service" "systemd-halt.service" "systemd-poweroff.service" "systemd-reboot.service"
      # logins
      "systemd-logind.service" "systemd-user-sessions.service" "user-runtime-dir@.service" "user@.service"
      # D-Bus
      "dbus.service" "dbus.socket"
    ] ++ lib.optionals cfg.network.enable [
      "systemd-networkd.service" "systemd-networkd.socket" "systemd-networkd-wait-online.service"
    ];

    systemd.optionalUpstreamUnits = [ "container-getty@.service" "first-boot-complete.target" "systemd-bsod.service" "soft-reboot.target" "systemd-soft-reboot.service" ];

    systemd.upstreamWants = {
      "sysinit.target" = [ "systemd-journald.service" "systemd-journal-flush.service" ];
      "sockets.target" = [ "systemd-journald.socket" "systemd-journald-dev-log.socket" "dbus.socket" ]
        ++ lib.optional cfg.network.enable "systemd-networkd.socket";
      "multi-user.target" = [ "dbus.service" "systemd-logind.service" "systemd-user-sessions.service" ]
        ++ lib.optional cfg.network.enable "systemd-networkd.service";
      "network-online.target" = lib.optional (cfg.network.enable && cfg.network.wait-online.enable)
        "systemd-networkd-wait-online.service";
    };

    systemd.upstreamAliases = {
      "ctrl-alt-del.target" = "reboot.target";
      # The names under which D-Bus starts them.
      "dbus-org.freedesktop.login1.service" = "systemd-logind.service";
    } // lib.optionalAttrs cfg.network.enable {
      "dbus-org.freedesktop.network1.service" = "systemd-networkd.service";
    };

    systemd.upstreamUserUnits = [
      "app.slice" "background.slice" "basic.target" "default.target" "exit.target" "paths.target" "session.slice"
      "shutdown.target" "sockets.target" "systemd-exit.service" "timers.target"
    ];
    # Debian has these in a package of their own (dbus-user-session).
    systemd.optionalUpstreamUserUnits = [ "dbus.service" "dbus.socket" ];
    systemd.upstreamUserWants."sockets.target" = [ "dbus.socket" ];

    # nspawn made these mounts and keeps them; to unmount them at shutdown can only fail.
    systemd.units = lib.genAttrs [ "nix-store.mount" "run-devhost.mount" "tmp.mount" ] (_: {
      overrideStrategy = "asDropin";
      text = "[Unit]\nDefaultDependencies=no\n";
    });

    systemd.services = {
      systemd-tmpfiles-setup = {
        description = "Create system files and directories";
        wantedBy = [ "sysinit.target" ];
        after = [ "local-fs.target" "systemd-journald.service" "systemd-journal-flush.service" ];
        before = [ "sysinit.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig.DefaultDependencies = false;
        # Some rules are for boot only; a switch runs the others itself.
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = ownFiles "systemd-tmpfiles --create --remove --boot --exclude-prefix=/dev" "tmpfiles.d";
          # A rule about a user or file that does not exist is a warning.
          SuccessExitStatus = "DATAERR CANTCREAT";
        };
      };

      systemd-tmpfiles-clean = {
        description = "Remove old temporary files";
        unitConfig.DefaultDependencies = false;
        after = [ "local-fs.target" ];
        before = [ "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        serviceConfig = {
          Type = "oneshot";
          ExecStart = ownFiles "systemd-tmpfiles --clean" "tmpfiles.d";
          SuccessExitStatus = "DATAERR";
        };
      };

      systemd-sysctl = lib.mkIf (sysctls != { }) {
        description = "Apply kernel settings";
        wantedBy = [ "sysinit.target" ];
        before = [ "sysinit.target" "shutdown.target" ];
        conflicts = [ "shutdown.target" ];
        unitConfig = {
          DefaultDependencies = false;
          ConditionPathIsReadWrite = "/proc/sys/net/";
        };
        restartTriggers = [ (builtins.toJSON sysctls) ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-nixos.conf";
        };
      };

      # These lose their state, or everybody's session, when they restart.
      dbus = { restartIfChanged = false; environment.PATH = lib.mkForce null; };
      systemd-logind = { restartIfChanged = false; environment.PATH = lib.mkForce null; };
      systemd-journald = { restartIfChanged = false; environment.PATH = lib.mkForce null; };
      "user@" = {
        restartIfChanged = false;
        environment.PATH = lib.mkForce null;
        # Like PID 1, the users' systemd does not look into /usr/lib; their homes it does.
        serviceConfig.ExecStart = [
          ""
          ("/bin/sh -c 'SYSTEMD_UNIT_PATH=$$HOME/.config/systemd/user:/run/user/%i/systemd/transient:/etc/systemd/user:/run/user/%i/systemd/user"
            + " SYSTEMD_GENERATOR_PATH=/etc/systemd/user-generators exec /usr/lib/systemd/systemd --user'")
        ];
      };
      systemd-networkd = lib.mkIf cfg.network.enable { environment.PATH = lib.mkForce null; stopIfChanged = false; };
      systemd-networkd-wait-online = lib.mkIf (cfg.network.enable && cfg.network.wait-online.enable) {
        environment.PATH = lib.mkForce null;
        serviceConfig.ExecStart = [
          ""
          ("/usr/lib/systemd/systemd-networkd-wait-online --timeout=${toString cfg.network.wait-online.timeout}"
            + lib.optionalString cfg.network.wait-online.anyInterface " --any"
            + lib.concatMapStrings (interface: " --ignore=${interface}") cfg.network.wait-online.ignoredInterfaces)
        ];
      };
    };

    systemd.timers.systemd-tmpfiles-clean = {
      description = "Remove old temporary files daily";
      wantedBy = [ "timers.target" ];
      timerConfig = { OnBootSec = "15min"; OnUnitActiveSec = "1d"; };
    };

    environment.etc = {
      "systemd/journald.conf".text = ''
        [Journal]
        Storage=${config.services.journald.storage}
        RateLimitIntervalSec=${config.services.journald.rateLimitInterval}
        RateLimitBurst=${toString config.services.journald.rateLimitBurst}
        ForwardToSyslog=no
        ${config.services.journald.extraConfig}'';
      "systemd/logind.conf".text = "[Login]\nKillUserProcesses=no\n${config.services.logind.extraConfig}";
      "systemd/networkd.conf".text = "[Network]\n";
      "tmpfiles.d/00-base.conf".text = ''
        d /run/user 0755 root root -
        d /run/lock 0755 root root -
        d /run/log 0755 root root -
        f+! /run/utmp 0664 root utmp -
        d /run/systemd/ask-password 0755 root root -
        d /run/systemd/machines 0755 root root -
        d /run/systemd/seats 0755 root root -
        d /run/systemd/sessions 0755 root root -
        d /run/systemd/shutdown 0755 root root -
        d /run/systemd/users 0755 root root -
        d /var/log 0755 root root -
        d /var/cache 0755 root root -
        d /var/lib 0755 root root -
        d /var/spool 0755 root root -
        d /var/lib/private 0700 root root -
        d /var/log/private 0700 root root -
        d /var/cache/private 0700 root root -
        d /var/lib/systemd 0755 root root -
        f /var/log/wtmp 0664 root utmp -
        f /var/log/btmp 0660 root utmp -
        f /var/log/lastlog 0664 root utmp -
        z /var/log/journal 2755 root systemd-journal - -
        z /var/log/journal/%m 2755 root systemd-journal - -
        z /var/log/journal/%m/system.journal 0640 root systemd-journal - -
        q /tmp 1777 root root 10d
        q /var/tmp 1777 root root 30d
      '' + lib.optionalString cfg.network.enable ''
        d /run/systemd/netif 0755 systemd-network systemd-network -
        d /run/systemd/netif/links 0755 systemd-network systemd-network -
        d /run/systemd/netif/leases 0755 systemd-network systemd-network -
        d /run/systemd/netif/lldp 0755 systemd-network systemd-network -
      '';
    } // lib.optionalAttrs (sysctls != { }) {
      "sysctl.d/60-nixos.conf".text = lib.concatStrings (lib.mapAttrsToList
        (name: value: "${name}=${if value == true then "1" else if value == false then "0" else toString value}\n")
        sysctls);
    };

    users.users = {
      messagebus = { uid = 4; isSystemUser = true; group = "messagebus"; description = "System bus"; };
      systemd-network = { uid = 152; isSystemUser = true; group = "systemd-network"; description = "Network configuration"; };
    };
    users.groups = {
      systemd-journal.gid = 62;
      systemd-network.gid = 152;
    };
  };
}
