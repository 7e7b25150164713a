# environment.*: the system's packages, and the variables of shells and logins.
{ config, lib, pkgs, ... }:
let
  cfg = config.environment;

  variablesType = lib.types.attrsOf (lib.types.nullOr (lib.types.oneOf [
    (lib.types.listOf (lib.types.oneOf [ lib.types.int lib.types.str lib.types.path ]))
    lib.types.int
    lib.types.str
    lib.types.path
  ]));

  toText = value: if lib.isList value then lib.concatMapStringsSep ":" toString value else toString value;

  present = lib.filterAttrs (_: value: value != null);

  path = [
    "/run/wrappers/bin"
    "/etc/profiles/per-user/$USER/bin"
    "/run/current-system/sw/bin"
  ];

  linesOption = description: lib.mkOption {
    type = lib.types.lines;
    default = "";
    inherit description;
  };
in
{
  options = {
    environment = {
      systemPackages = lib.mkOption {
        type = lib.types.listOf lib.types.package;
        default = [ ];
        description = "Packages on everybody's PATH.";
      };
      defaultPackages = lib.mkOption {
        type = lib.types.listOf lib.types.package;
        default = [ ];
        description = "Packages that a system has unless it says otherwise.";
      };
      pathsToLink = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Folders of packages that show in /run/current-system/sw.";
      };
      extraOutputsToInstall = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Accepted without effect: packages have one output.";
      };
      variables = lib.mkOption {
        type = variablesType;
        default = { };
        description = "Variables of login shells.";
      };
      sessionVariables = lib.mkOption {
        type = variablesType;
        default = { };
        description = "Variables of every login, shell or not.";
      };
      shellAliases = lib.mkOption {
        type = lib.types.attrsOf (lib.types.nullOr (lib.types.either lib.types.str lib.types.path));
        default = { };
        description = "Aliases of interactive shells.";
      };
      shellInit = linesOption "Commands of every login shell.";
      loginShellInit = linesOption "Commands of login shells.";
      interactiveShellInit = linesOption "Commands of interactive shells.";
      extraInit = linesOption "Commands that set up the environment.";
      shells = lib.mkOption {
        type = lib.types.listOf (lib.types.either lib.types.shellPackage lib.types.path);
        default = [ ];
        description = "Shells that people may choose (/etc/shells).";
      };
    };

    programs.bash = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Accepted without effect: bash is always there.";
      };
      completion.enable = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Accepted without effect: there is no completion.";
      };
      shellAliases = lib.mkOption {
        type = lib.types.attrsOf (lib.types.nullOr (lib.types.either lib.types.str lib.types.path));
        default = { };
        description = "Aliases of bash.";
      };
      interactiveShellInit = linesOption "Commands of interactive bash shells.";
      loginShellInit = linesOption "Commands of bash login shells.";
      shellInit = linesOption "Commands of every bash shell that reads /etc/profile.";
      promptInit = lib.mkOption {
        type = lib.types.lines;
        default = ''PS1='[\u@\h:\w]\$ '
        '';
        description = "Commands that set the prompt.";
      };
    };
    programs.command-not-found.enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Accepted without effect: there is no package database.";
    };

    system.path = lib.mkOption {
      type = lib.types.package;
      internal = true;
      description = "Everything on everybody's PATH in one folder.";
    };
  };

  config = {
    environment.systemPackages = cfg.defaultPackages ++ [
      pkgs.bash
      pkgs.coreutils
      pkgs.diffutils
      pkgs.findutils
      pkgs.gawk
      pkgs.getent
      pkgs.gnugrep
      pkgs.gnused
      pkgs.gnutar
      pkgs.gzip
      pkgs.hostname
      pkgs.iproute2
      pkgs.less
      pkgs.locale
      pkgs.ncurses
      pkgs.openssh
      pkgs.procps
      pkgs.shadow
      pkgs.util-linux
      pkgs.which
      config.systemd.package
    ];

    environment.pathsToLink = [ "/bin" "/sbin" "/etc" "/lib" "/libexec" "/share" ];

    environment.variables = lib.mkMerge [
      cfg.sessionVariables
      {
        EDITOR = lib.mkOptionDefault "vi";
        PAGER = lib.mkOptionDefault "less -R";
      }
    ];

    system.path = pkgs.buildEnv {
      name = "system-path";
      paths = cfg.systemPackages;
      inherit (cfg) pathsToLink;
      ignoreCollisions = true;
    };

    environment.etc = {
      profile.text = ''
        # Read by login shells.
        [ -n "''${OFFLINE_ENVIRONMENT_DONE-}" ] || . /etc/set-environment
        ${cfg.shellInit}
        ${cfg.loginShellInit}
        if [ -n "''${BASH_VERSION-}" ]; then
          ${config.programs.bash.shellInit}
          ${config.programs.bash.loginShellInit}
          case $- in *i*) . /etc/bashrc ;; esac
        fi
      '';
      bashrc.text = ''
        # Read by interactive shells.
        [ -n "''${OFFLINE_BASHRC_DONE-}" ] && return
        OFFLINE_BASHRC_DONE=1
        [ -n "''${OFFLINE_ENVIRONMENT_DONE-}" ] || . /etc/set-environment
        case $- in
          *i*)
            ${config.programs.bash.promptInit}
            ${lib.concatStrings (lib.mapAttrsToList
              (name: value: lib.optionalString (value != null) "alias -- ${name}=${lib.escapeShellArg (toString value)}\n")
              (cfg.shellAliases // config.programs.bash.shellAliases))}
            ${cfg.interactiveShellInit}
            ${config.programs.bash.interactiveShellInit}
            ;;
        esac
      '';
      set-environment.text = ''
        export OFFLINE_ENVIRONMENT_DONE=1
        export PATH="${lib.concatStringsSep ":" path}"
        ${lib.concatStrings (lib.mapAttrsToList
          (name: value: "export ${name}=\"${lib.replaceStrings [ "\"" ] [ "\\\"" ] (toText value)}\"\n")
          (present cfg.variables))}
        ${cfg.extraInit}
      '';
      # pam_env(8): what a program has that sshd or sudo starts without a login shell.
      "pam/environment".text = lib.concatStrings (lib.mapAttrsToList
        (name: value: "${name} DEFAULT=\"${lib.replaceStrings [ "$HOME" "$USER" ] [ "@{HOME}" "@{PAM_USER}" ] (toText value)}\"\n")
        (present cfg.sessionVariables // { PATH = path; }));
      shells.text = lib.concatMapStrings (shell: "${shell}\n") ([
        "/bin/sh"
        "/run/current-system/sw/bin/bash"
        "/run/current-system/sw/bin/sh"
      ] ++ map (shell: if lib.isAttrs shell then lib.getExe shell else shell) cfg.shells);
      inputrc.text = "set completion-ignore-case off\n";
    };
  };
}
