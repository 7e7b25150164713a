# services.openssh: the host's sshd.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.openssh;

  # Lists of names are separated by spaces, lists of algorithms by commas.
  nameLists = [ "AcceptEnv" "AllowGroups" "AllowUsers" "DenyGroups" "DenyUsers" "PermitOpen" ];

  valueText = key: value:
    if value == true then "yes"
    else if value == false then "no"
    else if lib.isList value then lib.concatStringsSep (if lib.elem key nameLists then " " else ",") value
    else toString value;

  settingsText = settings: lib.concatStrings (lib.mapAttrsToList
    (key: value: lib.optionalString (value != null) "${key} ${valueText key value}\n")
    settings);

  settingType = lib.types.nullOr (lib.types.oneOf [
    lib.types.bool
    lib.types.int
    lib.types.str
    lib.types.path
    (lib.types.listOf lib.types.str)
  ]);

  setting = default: description: lib.mkOption {
    type = settingType;
    inherit default description;
  };

  usersWithKeys = lib.filter
    (user: user.openssh.authorizedKeys.keys != [ ] || user.openssh.authorizedKeys.keyFiles != [ ])
    (lib.attrValues config.users.users);
in
{
  imports = [
    (lib.mkRenamedOptionModule [ "services" "openssh" "passwordAuthentication" ] [ "services" "openssh" "settings" "PasswordAuthentication" ])
    (lib.mkRenamedOptionModule [ "services" "openssh" "permitRootLogin" ] [ "services" "openssh" "settings" "PermitRootLogin" ])
    (lib.mkRenamedOptionModule [ "services" "openssh" "forwardX11" ] [ "services" "openssh" "settings" "X11Forwarding" ])
    (lib.mkRenamedOptionModule [ "services" "openssh" "logLevel" ] [ "services" "openssh" "settings" "LogLevel" ])
  ];

  options.services.openssh = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether sshd runs.";
    };
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.openssh;
      defaultText = lib.literalExpression "pkgs.openssh";
      description = "Programs of OpenSSH.";
    };
    ports = lib.mkOption {
      type = lib.types.listOf lib.types.port;
      default = [ 22 ];
      description = "Ports to listen on.";
    };
    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Accepted without effect: the host filters.";
    };
    listenAddresses = lib.mkOption {
      type = lib.types.listOf (lib.types.submodule {
        options = {
          addr = lib.mkOption { type = lib.types.nullOr lib.types.str; default = null; description = "Address."; };
          port = lib.mkOption { type = lib.types.nullOr lib.types.int; default = null; description = "Port."; };
        };
      });
      default = [ ];
      description = "Addresses to listen on; none means all.";
    };
    hostKeys = lib.mkOption {
      type = lib.types.listOf (lib.types.attrsOf lib.types.unspecified);
      default = [
        { type = "ed25519"; path = "/etc/ssh/ssh_host_ed25519_key"; }
      ];
      description = "Host keys (`path`, `type`); missing ones are made at first start.";
    };
    authorizedKeysFiles = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Files of public keys that may log in.";
    };
    authorizedKeysInHomedir = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether ~/.ssh/authorized_keys counts.";
    };
    allowSFTP = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether sftp works.";
    };
    banner = lib.mkOption {
      type = lib.types.nullOr lib.types.lines;
      default = null;
      description = "Message shown before a login.";
    };
    extraConfig = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Further lines of sshd_config.";
    };
    settings = lib.mkOption {
      type = lib.types.submodule {
        freeformType = lib.types.attrsOf settingType;
        options = {
          LogLevel = setting "INFO" "How much is logged.";
          PasswordAuthentication = setting true "Whether passwords are accepted.";
          KbdInteractiveAuthentication = setting true "Whether keyboard-interactive logins are accepted.";
          PermitRootLogin = setting "prohibit-password" "How root may log in.";
          StrictModes = setting true "Whether files that others can write are refused.";
          UseDns = setting false "Whether names of clients are looked up.";
          UsePAM = setting true "Whether PAM decides about accounts and sessions.";
          X11Forwarding = setting false "Whether graphical programs are forwarded.";
        };
      };
      default = { };
      description = "Settings of sshd_config.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.openssh.authorizedKeysFiles =
      lib.optional cfg.authorizedKeysInHomedir "%h/.ssh/authorized_keys" ++ [ "/etc/ssh/authorized_keys.d/%u" ];

    users.users.sshd = { uid = 497; isSystemUser = true; group = "sshd"; description = "SSH privilege separation"; };
    users.groups.sshd.gid = 497;

    environment.etc = {
      "ssh/sshd_config".source = pkgs.runCommand "sshd_config"
        {
          text = ''
            ${lib.concatMapStrings (port: "Port ${toString port}\n") cfg.ports}
            ${lib.concatMapStrings (address: "ListenAddress ${address.addr}${lib.optionalString (address.port != null) ":${toString address.port}"}\n") cfg.listenAddresses}
            ${lib.concatMapStrings (key: "HostKey ${key.path}\n") cfg.hostKeys}
            AuthorizedKeysFile ${toString cfg.authorizedKeysFiles}
            ${lib.optionalString cfg.allowSFTP "Subsystem sftp ${cfg.package}/libexec/sftp-server"}
            ${lib.optionalString (cfg.banner != null) "Banner ${pkgs.writeText "ssh-banner" cfg.banner}"}
            PrintMotd no
            ${settingsText cfg.settings}
            ${cfg.extraConfig}
          '';
          passAsFile = [ "text" ];
        }
        ''
          # sshd -t wants a host key; one for the check is enough.
          ${cfg.package}/bin/ssh-keygen -q -t ed25519 -N "" -f key
          # Since 9.8 sshd shuts out an address that fails to log in a few times, and all
          # people of a host come from one; older ones refuse the setting. The first line
          # of a setting holds, so this one comes before any Match block.
          {
            if ! grep -qi '^PerSourcePenalties ' "$textPath" && ${cfg.package}/bin/sshd -t -h "$PWD/key" -f /dev/null -o PerSourcePenalties=no 2>/dev/null; then
              echo "PerSourcePenalties no"
            fi
            cat "$textPath"
          } > complete
          grep -v '^HostKey ' complete > config
          ${cfg.package}/bin/sshd -t -h "$PWD/key" -f "$PWD/config"
          cp complete "$out"
        '';
      "ssh/ssh_config".text = "Host *\n  ForwardX11 no\n";
    } // lib.listToAttrs (map
      (user: lib.nameValuePair "ssh/authorized_keys.d/${user.name}" {
        mode = "0444";
        source = pkgs.concatText "authorized_keys" (
          [ (pkgs.writeText "keys" (lib.concatMapStrings (key: "${key}\n") user.openssh.authorizedKeys.keys)) ]
          ++ user.openssh.authorizedKeys.keyFiles
        );
      })
      usersWithKeys);

    systemd.services.sshd = {
      description = "SSH daemon";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      stopIfChanged = false;
      restartTriggers = [ config.environment.etc."ssh/sshd_config".source ];
      preStart = lib.concatMapStrings
        (key: ''
          if [ ! -s ${lib.escapeShellArg key.path} ]; then
            mkdir -p "$(dirname ${lib.escapeShellArg key.path})"
            ${cfg.package}/bin/ssh-keygen -q -t ${lib.escapeShellArg key.type} -N "" -f ${lib.escapeShellArg key.path}
          fi
        '')
        cfg.hostKeys;
      serviceConfig = {
        # sshd starts itself again for every connection, so it wants an absolute path.
        ExecStart = "/usr/sbin/sshd -D -e -f /etc/ssh/sshd_config";
        ExecReload = "/bin/sh -c 'kill -HUP $MAINPID'";
        KillMode = "process";
        Restart = "always";
        RuntimeDirectory = "sshd";
        RuntimeDirectoryMode = "0755";
        RuntimeDirectoryPreserve = true;
      };
    };

    assertions = [
      {
        assertion = cfg.hostKeys != [ ];
        message = "services.openssh.hostKeys is empty, but sshd needs a host key.";
      }
    ];
  };
}
