# sudo and PAM. Programs with the setuid bit are the host's own below /usr, which the
# container sees with root as their owner; nothing is copied.
{ config, lib, pkgs, ... }:
let
  cfg = config.security;

  commandType = lib.types.either lib.types.str (lib.types.submodule {
    options = {
      command = lib.mkOption {
        type = lib.types.either lib.types.str lib.types.path;
        description = "Command with its arguments; ALL is any.";
      };
      options = lib.mkOption {
        type = lib.types.listOf (lib.types.enum [ "NOPASSWD" "PASSWD" "NOEXEC" "EXEC" "SETENV" "NOSETENV" "LOG_INPUT" "NOLOG_INPUT" "LOG_OUTPUT" "NOLOG_OUTPUT" "MAIL" "NOMAIL" "FOLLOW" "NOFLLOW" "INTERCEPT" "NOINTERCEPT" ]);
        default = [ ];
        description = "Tags.";
      };
    };
  });

  ruleType = lib.types.submodule {
    options = {
      users = lib.mkOption {
        type = lib.types.listOf (lib.types.either lib.types.str lib.types.int);
        default = [ ];
        description = "Accounts that the rule is for.";
      };
      groups = lib.mkOption {
        type = lib.types.listOf (lib.types.either lib.types.str lib.types.int);
        default = [ ];
        description = "Groups that the rule is for.";
      };
      host = lib.mkOption {
        type = lib.types.str;
        default = "ALL";
        description = "Host that the rule is for.";
      };
      runAs = lib.mkOption {
        type = lib.types.str;
        default = "ALL:ALL";
        description = "Accounts that commands may run as.";
      };
      commands = lib.mkOption {
        type = lib.types.listOf commandType;
        description = "Commands that may run.";
      };
    };
  };

  commandText = command:
    if lib.isString command then command
    else "${lib.concatMapStrings (option: "${option}: ") command.options}${toString command.command}";

  ruleText = rule: lib.concatMapStrings
    (who: "${who} ${rule.host}=(${rule.runAs}) ${lib.concatMapStringsSep ", " commandText rule.commands}\n")
    (map (user: if lib.isInt user then "#${toString user}" else user) rule.users
      ++ map (group: "%${if lib.isInt group then "#" else ""}${toString group}") rule.groups);

  # Every service alike: accounts of /etc/passwd, the environment of the login, a session.
  pamText = { rootOk ? false, session ? true, login ? false }: ''
    account required pam_unix.so
    ${lib.optionalString rootOk "auth sufficient pam_rootok.so"}
    auth sufficient pam_unix.so likeauth try_first_pass nullok
    auth required pam_deny.so
    password sufficient pam_unix.so nullok yescrypt
    session required pam_env.so conffile=/etc/pam/environment readenv=0
    session required pam_unix.so
    ${lib.optionalString login "session optional pam_loginuid.so"}
    ${lib.optionalString session "-session optional pam_systemd.so"}
    ${lib.optionalString (login && config.users.motd != null) "session optional pam_motd.so motd=/etc/motd"}
    ${lib.optionalString (login && cfg.pam.loginLimits != [ ]) "session required pam_limits.so conf=/etc/security/limits.conf"}
  '';
in
{
  options.security = {
    sudo = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether sudo works.";
      };
      wheelNeedsPassword = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether members of wheel are asked for their password.";
      };
      extraRules = lib.mkOption {
        type = lib.types.listOf ruleType;
        default = [ ];
        description = "Rules of the sudoers file; the last one that fits counts.";
      };
      extraConfig = lib.mkOption {
        type = lib.types.lines;
        default = "";
        description = "Further lines of the sudoers file.";
      };
      defaultOptions = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ "SETENV" ];
        description = "Tags of the rules for root and wheel.";
      };
    };

    pam = {
      services = lib.mkOption {
        type = lib.types.attrsOf (lib.types.submodule {
          options.text = lib.mkOption {
            type = lib.types.lines;
            description = "Text of the file in /etc/pam.d.";
          };
        });
        default = { };
        description = "PAM services.";
      };
      loginLimits = lib.mkOption {
        type = lib.types.listOf (lib.types.submodule {
          options = {
            domain = lib.mkOption { type = lib.types.str; description = "Whom the limit is for."; };
            type = lib.mkOption { type = lib.types.enum [ "-" "hard" "soft" ]; default = "-"; description = "Kind of the limit."; };
            item = lib.mkOption { type = lib.types.str; description = "What is limited."; };
            value = lib.mkOption { type = lib.types.oneOf [ lib.types.str lib.types.int ]; description = "The limit."; };
          };
        });
        default = [ ];
        description = "Limits of sessions (limits.conf(5)).";
      };
    };

    audit.enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Accepted without effect: the audit log is the host's.";
    };
  };

  config = {
    security.pam.services = lib.mapAttrs (_: options: { text = lib.mkDefault (pamText options); }) {
      login = { login = true; };
      other = { session = false; };
      passwd = { session = false; };
      runuser = { rootOk = true; session = false; };
      runuser-l = { rootOk = true; session = false; };
      sshd = { login = true; };
      su = { rootOk = true; session = false; };
      su-l = { rootOk = true; session = false; };
      sudo = { session = false; };
      sudo-i = { session = false; };
      systemd-user = { };
    };

    security.sudo.extraRules =
      let
        tags = cfg.sudo.defaultOptions;
      in
      lib.mkBefore [
        { users = [ "root" ]; commands = [{ command = "ALL"; options = tags; }]; }
        {
          groups = [ "wheel" ];
          commands = [{ command = "ALL"; options = tags ++ lib.optional (!cfg.sudo.wheelNeedsPassword) "NOPASSWD"; }];
        }
      ];

    environment.etc = lib.mapAttrs' (name: service: lib.nameValuePair "pam.d/${name}" { inherit (service) text; }) cfg.pam.services
    // {
      "login.defs".text = ''
        DEFAULT_HOME yes
        SYS_UID_MIN 400
        SYS_UID_MAX 999
        UID_MIN 1000
        UID_MAX 29999
        SYS_GID_MIN 400
        SYS_GID_MAX 999
        GID_MIN 1000
        GID_MAX 29999
        UMASK 077
        ENCRYPT_METHOD YESCRYPT
      '';
      "security/pam_env.conf".text = "";
      "security/limits.conf".text = lib.concatMapStrings
        (limit: "${limit.domain} ${limit.type} ${limit.item} ${toString limit.value}\n")
        cfg.pam.loginLimits;
    } // lib.optionalAttrs cfg.sudo.enable {
      sudoers = {
        # Checked when the system is built: with a broken file nobody could become root.
        source = pkgs.runCommand "sudoers"
          {
            text = ''
              Defaults env_keep+=SSH_AUTH_SOCK
              ${lib.concatMapStrings ruleText cfg.sudo.extraRules}
              ${cfg.sudo.extraConfig}
            '';
            passAsFile = [ "text" ];
          }
          ''
            ${pkgs.sudo}/bin/visudo -q -c -f - < "$textPath" || { cat "$textPath" >&2; exit 1; }
            cp "$textPath" "$out"
          '';
        mode = "0440";
      };
    };

    environment.systemPackages = lib.optional cfg.sudo.enable pkgs.sudo;

    # Where NixOS keeps its setuid programs.
    system.activationScripts.wrappers = {
      deps = [ "specialfs" ];
      text = ''
        mkdir -p /run/wrappers/bin
        for program in ${lib.optionalString cfg.sudo.enable "sudo"} su mount umount passwd newgrp; do
          [ -x "/usr/bin/$program" ] && ln -sfn "/usr/bin/$program" "/run/wrappers/bin/$program"
        done
        true
      '';
    };
  };
}
