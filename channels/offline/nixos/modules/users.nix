# users.users and users.groups. Activation makes them (system/activate-users.py) and keeps
# the ids that it gave out in /var/lib/nixos, so they survive a change of the configuration.
{ config, lib, pkgs, ... }:
let
  cfg = config.users;

  nullOrStr = lib.types.nullOr lib.types.str;

  secretOption = description: lib.mkOption {
    type = nullOrStr;
    default = null;
    inherit description;
  };

  shellPath = shell: if lib.isAttrs shell then "${shell}${shell.shellPath or "/bin/${baseNameOf (lib.getExe shell)}"}" else shell;

  userType = lib.types.submodule ({ name, config, ... }: {
    options = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether the account exists.";
      };
      name = lib.mkOption {
        type = lib.types.passwdEntry lib.types.str;
        default = name;
        description = "Name of the account.";
      };
      description = lib.mkOption {
        type = lib.types.passwdEntry lib.types.str;
        default = "";
        description = "Who or what the account is for.";
      };
      uid = lib.mkOption {
        type = lib.types.nullOr lib.types.int;
        default = null;
        description = "User id; `null` takes a free one, once and for all.";
      };
      isSystemUser = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the account belongs to a service (ids below 1000).";
      };
      isNormalUser = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the account belongs to a person: group users, a home below /home, a shell.";
      };
      group = lib.mkOption {
        type = lib.types.str;
        default = "";
        description = "Primary group.";
      };
      extraGroups = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Further groups.";
      };
      home = lib.mkOption {
        type = lib.types.passwdEntry lib.types.path;
        default = "/var/empty";
        description = "Home folder.";
      };
      homeMode = lib.mkOption {
        type = lib.types.strMatching "[0-7]{1,5}";
        default = "700";
        description = "Access mode of the home folder.";
      };
      createHome = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether activation makes the home folder.";
      };
      shell = lib.mkOption {
        type = lib.types.nullOr (lib.types.either lib.types.shellPackage (lib.types.passwdEntry lib.types.path));
        default = "/run/current-system/sw/bin/nologin";
        description = "Login shell.";
      };
      useDefaultShell = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the shell is `users.defaultUserShell`.";
      };
      linger = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the user's own systemd starts at boot.";
      };
      packages = lib.mkOption {
        type = lib.types.listOf lib.types.package;
        default = [ ];
        description = "Packages on this user's PATH.";
      };
      hashedPassword = secretOption "Hash of the password, as in /etc/shadow.";
      initialHashedPassword = secretOption "Hash of the password that a new account gets.";
      password = secretOption "Password in clear text; everybody can read it in the store.";
      initialPassword = secretOption "Password in clear text that a new account gets.";
      hashedPasswordFile = secretOption "File with the hash of the password.";
      passwordFile = secretOption "Older name of `hashedPasswordFile`.";
      openssh.authorizedKeys = {
        keys = lib.mkOption {
          type = lib.types.listOf lib.types.singleLineStr;
          default = [ ];
          description = "Public keys that may log in.";
        };
        keyFiles = lib.mkOption {
          type = lib.types.listOf lib.types.path;
          default = [ ];
          description = "Files of public keys that may log in.";
        };
      };
    };

    config = lib.mkMerge [
      (lib.mkIf config.isNormalUser {
        group = lib.mkDefault "users";
        createHome = lib.mkDefault true;
        home = lib.mkDefault "/home/${config.name}";
        useDefaultShell = lib.mkDefault true;
        isSystemUser = lib.mkDefault false;
      })
      (lib.mkIf config.useDefaultShell { shell = lib.mkDefault cfg.defaultUserShell; })
    ];
  });

  groupType = lib.types.submodule ({ name, ... }: {
    options = {
      name = lib.mkOption {
        type = lib.types.passwdEntry lib.types.str;
        default = name;
        description = "Name of the group.";
      };
      gid = lib.mkOption {
        type = lib.types.nullOr lib.types.int;
        default = null;
        description = "Group id; `null` takes a free one, once and for all.";
      };
      members = lib.mkOption {
        type = lib.types.listOf (lib.types.passwdEntry lib.types.str);
        default = [ ];
        description = "Members besides those that name the group in their `extraGroups`.";
      };
    };
  });

  users = lib.filter (user: user.enable) (lib.attrValues cfg.users);

  spec = {
    inherit (cfg) mutableUsers;
    users = map
      (user: {
        inherit (user)
          name description uid group home homeMode createHome isSystemUser
          hashedPassword initialHashedPassword password initialPassword;
        passwordFile = if user.hashedPasswordFile != null then user.hashedPasswordFile else user.passwordFile;
        shell = shellPath (if user.shell == null then "/run/current-system/sw/bin/nologin" else user.shell);
      })
      users;
    groups = map
      (group: {
        inherit (group) name gid;
        members = lib.unique (group.members ++ map (user: user.name)
          (lib.filter (user: lib.elem group.name user.extraGroups) users));
      })
      (lib.attrValues cfg.groups);
  };

  groupNames = map (group: group.name) (lib.attrValues cfg.groups);

  uidClashes = lib.filterAttrs (_: names: lib.length names > 1) (lib.groupBy
    (user: toString user.uid)
    (lib.filter (user: user.uid != null) users));
in
{
  options.users = {
    mutableUsers = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether accounts and passwords that were made inside the container stay.";
    };
    defaultUserShell = lib.mkOption {
      type = lib.types.either lib.types.path lib.types.shellPackage;
      default = "/run/current-system/sw/bin/bash";
      description = "Login shell of normal users.";
    };
    users = lib.mkOption {
      type = lib.types.attrsOf userType;
      default = { };
      description = "Accounts.";
    };
    groups = lib.mkOption {
      type = lib.types.attrsOf groupType;
      default = { };
      description = "Groups.";
    };
    allowNoPasswordLogin = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Accepted without effect: developers log in with keys.";
    };
    motd = lib.mkOption {
      type = nullOrStr;
      default = null;
      description = "Message shown to people who log in.";
    };
  };

  config = {
    users.users = {
      root = {
        uid = 0;
        group = "root";
        description = "System administrator";
        home = "/root";
        shell = lib.mkDefault cfg.defaultUserShell;
      };
      nobody = {
        uid = 65534;
        isSystemUser = true;
        group = "nogroup";
        description = "Unprivileged account";
      };
    };

    # The numbers that real NixOS gives them, where Debian's units name the group.
    users.groups = {
      root.gid = 0;
      wheel.gid = 1;
      kmem.gid = 2;
      tty.gid = 3;
      messagebus.gid = 4;
      disk.gid = 6;
      audio.gid = 17;
      adm.gid = 55;
      utmp.gid = 29;
      video.gid = 26;
      users.gid = 100;
      nogroup.gid = 65534;
    };

    assertions =
      map
        (user: {
          assertion = user.isNormalUser != user.isSystemUser || user.uid == 0;
          message = "Exactly one of users.users.${user.name}.isSystemUser and users.users.${user.name}.isNormalUser must be set.";
        })
        users
      ++ map
        (user: {
          assertion = user.group != "";
          message = "users.users.${user.name}.group is unset. Set users.users.${user.name}.group = \"${user.name}\" and users.groups.${user.name} = { }.";
        })
        users
      ++ map
        (user: {
          assertion = user.group == "" || lib.elem user.group groupNames;
          message = "users.users.${user.name}.group names the group `${user.group}', which users.groups does not have.";
        })
        users
      ++ lib.mapAttrsToList
        (uid: clashing: {
          assertion = false;
          message = "The accounts ${lib.concatMapStringsSep ", " (user: user.name) clashing} share the user id ${uid}.";
        })
        uidClashes;

    system.activationScripts = {
      users = {
        deps = [ "specialfs" ];
        text = ''
          ${pkgs.python3}/bin/python3 -I -S ${../system/activate-users.py} ${pkgs.writeText "users-groups.json" (builtins.toJSON spec)}
        '';
      };
      groups = { text = ""; deps = [ "users" ]; };
    };

    environment.etc = lib.mkMerge [
      (lib.listToAttrs (map
        (user: {
          name = "profiles/per-user/${user.name}";
          value.source = pkgs.buildEnv {
            name = "user-environment";
            paths = user.packages;
            pathsToLink = config.environment.pathsToLink;
            ignoreCollisions = true;
          };
        })
        (lib.filter (user: user.packages != [ ]) users)))
      (lib.mkIf (cfg.motd != null && cfg.motd != "") { motd.text = cfg.motd; })
    ];

    systemd.tmpfiles.rules = lib.concatMap
      (user: lib.optional user.linger "f /var/lib/systemd/linger/${user.name} 0644 root root")
      users;
  };
}
