# services.redis.servers: the host's redis-server; "" is redis.service, NAME is redis-NAME.service.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.redis;

  enabled = lib.filterAttrs (_: server: server.enable) cfg.servers;

  serviceName = name: "redis" + lib.optionalString (name != "") "-${name}";

  valueText = value:
    if value == true then "yes"
    else if value == false then "no"
    else if value == "" then "\"\""
    else toString value;

  configFile = name: server: pkgs.writeText "${serviceName name}.conf" (lib.generators.toKeyValue
    {
      listsAsDuplicateKeys = true;
      mkKeyValue = key: value: "${key} ${valueText value}";
    }
    (lib.filterAttrs (_: value: value != null) server.settings));

  nullOr = type: default: description: lib.mkOption {
    type = lib.types.nullOr type;
    inherit default description;
  };
  plain = type: default: description: lib.mkOption { inherit type default description; };

  serverType = lib.types.submodule ({ name, config, ... }: {
    options = {
      enable = lib.mkEnableOption "this Redis server";
      user = plain lib.types.str (serviceName name) "Account and group of the server.";
      port = plain lib.types.port (if name == "" then 6379 else 0) "TCP port; 0 is none.";
      openFirewall = plain lib.types.bool false "Accepted without effect: the host filters.";
      bind = nullOr lib.types.str "127.0.0.1" "Addresses to listen on; `null` is all.";
      unixSocket = nullOr lib.types.path "/run/${serviceName name}/redis.sock" "Socket to listen on.";
      unixSocketPerm = plain lib.types.int 660 "Access mode of the socket, as decimal digits.";
      logLevel = plain lib.types.str "notice" "How much is logged.";
      databases = plain lib.types.int 16 "Number of databases.";
      maxclients = plain lib.types.int 10000 "Clients at the same time.";
      save = plain (lib.types.listOf (lib.types.listOf lib.types.int)) [ [ 900 1 ] [ 300 10 ] [ 60 10000 ] ]
        "When data are written to disk: after so many seconds if there were so many changes.";
      requirePass = nullOr lib.types.str null "Password of clients; everybody can read it in the store.";
      requirePassFile = nullOr lib.types.path null "File with the password of clients.";
      appendOnly = plain lib.types.bool false "Whether every change is logged to disk.";
      appendFsync = plain lib.types.str "everysec" "How often that log is synced.";
      extraParams = plain (lib.types.listOf lib.types.str) [ ] "Further arguments.";
      settings = lib.mkOption {
        type = lib.types.attrsOf (lib.types.nullOr (lib.types.oneOf [
          lib.types.bool
          lib.types.int
          lib.types.str
          (lib.types.listOf lib.types.str)
        ]));
        default = { };
        description = "Settings of redis.conf.";
      };
    };

    config.settings = lib.mkMerge [
      {
        port = config.port;
        daemonize = false;
        supervised = "systemd";
        loglevel = config.logLevel;
        logfile = lib.mkDefault "";
        databases = config.databases;
        maxclients = config.maxclients;
        save =
          if config.save == [ ] then ""
          else map (rule: lib.concatMapStringsSep " " toString rule) config.save;
        dbfilename = "dump.rdb";
        dir = "/var/lib/${serviceName name}";
        appendonly = config.appendOnly;
        appendfsync = config.appendFsync;
      }
      (lib.mkIf (config.bind != null) { inherit (config) bind; })
      (lib.mkIf (config.bind == null) { protected-mode = lib.mkDefault false; })
      (lib.mkIf (config.unixSocket != null) {
        unixsocket = toString config.unixSocket;
        unixsocketperm = toString config.unixSocketPerm;
      })
      (lib.mkIf (config.requirePass != null) { requirepass = config.requirePass; })
    ];
  });

  renamed = option: lib.mkRenamedOptionModule [ "services" "redis" option ] [ "services" "redis" "servers" "" option ];
in
{
  imports = map renamed [
    "enable" "port" "bind" "unixSocket" "unixSocketPerm" "logLevel" "databases" "maxclients" "save" "requirePass"
    "requirePassFile" "appendOnly" "appendFsync" "settings"
  ];

  options.services.redis = {
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.redis;
      defaultText = lib.literalExpression "pkgs.redis";
      description = "Programs of Redis.";
    };
    vmOverCommit = plain lib.types.bool true "Accepted without effect: the kernel is the host's.";
    servers = lib.mkOption {
      type = lib.types.attrsOf serverType;
      default = { };
      description = "Redis servers.";
    };
  };

  config = lib.mkIf (enabled != { }) {
    environment.systemPackages = [ cfg.package ];

    users.users = lib.mapAttrs' (name: server: lib.nameValuePair server.user {
      isSystemUser = true;
      group = server.user;
      description = "Redis";
    }) enabled;
    users.groups = lib.mapAttrs' (_: server: lib.nameValuePair server.user { }) enabled;

    assertions = lib.mapAttrsToList
      (name: server: {
        assertion = server.requirePass == null || server.requirePassFile == null;
        message = "services.redis.servers.\"${name}\" sets both requirePass and requirePassFile.";
      })
      enabled;

    systemd.services = lib.mapAttrs' (name: server: lib.nameValuePair (serviceName name) {
      description = "Redis server ${serviceName name}";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      script = ''
        ${lib.optionalString (server.requirePassFile != null) ''
          set -- --requirepass "$(cat ${lib.escapeShellArg server.requirePassFile})"
        ''}
        exec ${cfg.package}/bin/redis-server ${configFile name server} "$@" ${lib.escapeShellArgs server.extraParams}
      '';
      serviceConfig = {
        Type = "notify";
        User = server.user;
        Group = server.user;
        RuntimeDirectory = serviceName name;
        RuntimeDirectoryMode = "0750";
        StateDirectory = serviceName name;
        StateDirectoryMode = "0700";
        UMask = "0077";
        LimitNOFILE = toString (server.maxclients + 32);
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectHome = true;
        Restart = "on-failure";
      };
    }) enabled;
  };
}
