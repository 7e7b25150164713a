# system.activationScripts: what runs, as root, before systemd starts and at every switch.
{ config, lib, pkgs, ... }:
let
  scriptType = lib.types.submodule {
    options = {
      text = lib.mkOption {
        type = lib.types.lines;
        description = "Bash commands. They must be repeatable and fast.";
      };
      deps = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "Scripts that run before this one.";
      };
      supportsDryActivation = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Accepted for NixOS' sake; `dry-activate` runs no activation script here.";
      };
    };
  };

  scripts = config.system.activationScripts;

  # The names in an order in which every script follows its dependencies.
  visit = state: path: name:
    if state.seen ? ${name} then state
    else if lib.elem name path then
      throw "system.activationScripts depend on each other: ${lib.concatStringsSep " -> " (path ++ [ name ])}"
    else if !(scripts ? ${name}) then
      throw "system.activationScripts.${lib.last path}.deps names `${name}', which does not exist"
    else
      let
        before = lib.foldl' (result: dependency: visit result (path ++ [ name ]) dependency) state scripts.${name}.deps;
      in
      { seen = before.seen // { ${name} = true; }; order = before.order ++ [ name ]; };

  order = (lib.foldl' (state: name: visit state [ ] name) { seen = { }; order = [ ]; } (lib.attrNames scripts)).order;

  snippet = name: ''
    # ${name}
    failed=0
    ${scripts.${name}.text}
    if [ "$failed" != 0 ]; then
      echo "activation script ${name} failed (status $failed)" >&2
    fi
  '';
in
{
  options.system.activationScripts = lib.mkOption {
    type = lib.types.attrsOf (lib.types.coercedTo lib.types.str (text: { inherit text; }) scriptType);
    default = { };
    description = "Scripts that run at boot, before systemd, and at every switch.";
  };

  config = {
    system.build.activate = pkgs.writeShellScript "activate" ''
      # The system is the first argument; without one, the running system is activated again.
      export PATH=${lib.makeBinPath [ pkgs.coreutils pkgs.gnugrep pkgs.findutils pkgs.gnused ]}
      systemConfig=$(readlink -e "''${1:-/run/current-system}") || exit
      status=0
      failed=0
      trap 'failed=$?; status=1' ERR
      umask 0022

      ${lib.concatMapStringsSep "\n" snippet order}

      ln -sfn "$systemConfig" /run/current-system
      exit $status
    '';

    system.activationScripts = {
      # Folders that every program expects; nspawn has made the mount points.
      specialfs = ''
        mkdir -p /bin /etc /home /root /run/lock /srv /tmp /var/cache /var/empty /var/lib/nixos /var/log /var/tmp
        chmod 0700 /root
        chmod 1777 /tmp /var/tmp
        chmod 0555 /var/empty
        [ -L /var/run ] || ln -s /run /var/run
        [ -L /var/lock ] || ln -s /run/lock /var/lock
        # Without an id of its own systemd would take this boot for the first one, and enable every unit that it finds.
        if [ ! -s /etc/machine-id ]; then
          if [ -n "''${container_uuid-}" ]; then
            printf '%s\n' "''${container_uuid//-/}" > /etc/machine-id
          else
            tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
          fi
        fi
      '';
      # Other modules of NixOS name these as dependencies.
      var.text = "";
      var.deps = [ "specialfs" ];
      binsh.text = "";
      usrbinenv.text = "";
      stdio.text = "";
    };
  };
}
