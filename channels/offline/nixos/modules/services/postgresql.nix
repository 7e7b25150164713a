# services.postgresql: the host's PostgreSQL.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.postgresql;

  settingType = lib.types.nullOr (lib.types.oneOf [ lib.types.bool lib.types.int lib.types.float lib.types.str ]);

  settingText = value:
    if value == true then "yes"
    else if value == false then "no"
    else if lib.isString value then "'${lib.replaceStrings [ "'" ] [ "''" ] value}'"
    else toString value;

  configFile = pkgs.writeText "postgresql.conf" (lib.concatStrings (lib.mapAttrsToList
    (name: value: lib.optionalString (value != null) "${name} = ${settingText value}\n")
    cfg.settings));

  # An SQL identifier and an SQL string, for shell text in single quotes.
  identifier = name: "\"${lib.replaceStrings [ "\"" ] [ "\"\"" ] name}\"";
  literal = text: "'${lib.replaceStrings [ "'" ] [ "''" ] text}'";
  run = sql: "query ${lib.escapeShellArg sql}\n";
  unless = test: sql: "[ \"$(query ${lib.escapeShellArg test})\" = 1 ] || ${run sql}";

  clauseOptions = [ "superuser" "createrole" "createdb" "inherit" "login" "replication" "bypassrls" ];

  userType = lib.types.submodule {
    options = {
      name = lib.mkOption {
        type = lib.types.str;
        description = "Name of the role.";
      };
      ensureDBOwnership = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether the role owns the database of the same name.";
      };
      ensureClauses = lib.genAttrs clauseOptions (clause: lib.mkOption {
        type = lib.types.nullOr lib.types.bool;
        default = if clause == "login" then true else null;
        description = "Whether the role has ${clause}; `null` leaves it.";
      });
    };
  };

  ensureUser = user: lib.concatStrings [
    (unless "SELECT 1 FROM pg_roles WHERE rolname = ${literal user.name}" "CREATE ROLE ${identifier user.name}")
    (lib.concatMapStrings
      (clause: lib.optionalString (user.ensureClauses.${clause} != null)
        (run "ALTER ROLE ${identifier user.name} ${lib.optionalString (!user.ensureClauses.${clause}) "NO"}${clause}"))
      clauseOptions)
    (lib.optionalString user.ensureDBOwnership
      (run "ALTER DATABASE ${identifier user.name} OWNER TO ${identifier user.name}"))
  ];
in
{
  imports = [
    (lib.mkRenamedOptionModule [ "services" "postgresql" "port" ] [ "services" "postgresql" "settings" "port" ])
  ];

  options.services.postgresql = {
    enable = lib.mkEnableOption "PostgreSQL";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.postgresql;
      defaultText = lib.literalExpression "pkgs.postgresql";
      description = "Programs of PostgreSQL: `pkgs.postgresql` is the newest that the host has.";
    };
    enableTCPIP = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether other machines can connect; `authentication` says which.";
    };
    enableJIT = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether queries are compiled.";
    };
    checkConfig = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Accepted without effect: the server checks its settings when it starts.";
    };
    dataDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/postgresql/${cfg.package.psqlSchema}";
      defaultText = lib.literalExpression ''"/var/lib/postgresql/''${config.services.postgresql.package.psqlSchema}"'';
      description = "Folder of the data.";
    };
    authentication = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Lines of pg_hba.conf; the first that fits counts.";
    };
    identMap = lib.mkOption {
      type = lib.types.lines;
      default = "";
      description = "Lines of pg_ident.conf.";
    };
    initdbArgs = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Arguments of initdb.";
    };
    initialScript = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "SQL that runs once, when the data folder is new.";
    };
    ensureDatabases = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Databases that every start makes where they are missing.";
    };
    ensureUsers = lib.mkOption {
      type = lib.types.listOf userType;
      default = [ ];
      description = "Roles that every start makes where they are missing.";
    };
    settings = lib.mkOption {
      type = lib.types.submodule {
        freeformType = lib.types.attrsOf settingType;
        options.port = lib.mkOption {
          type = lib.types.port;
          default = 5432;
          description = "Port to listen on.";
        };
      };
      default = { };
      description = "Settings of postgresql.conf.";
    };
    superUser = lib.mkOption {
      type = lib.types.str;
      default = "postgres";
      internal = true;
      readOnly = true;
      description = "Role that owns everything.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = map
      (user: {
        assertion = !user.ensureDBOwnership || lib.elem user.name cfg.ensureDatabases;
        message = "services.postgresql.ensureUsers gives ${user.name} a database of that name, which services.postgresql.ensureDatabases does not have.";
      })
      cfg.ensureUsers;

    services.postgresql = {
      settings = {
        hba_file = "${pkgs.writeText "pg_hba.conf" cfg.authentication}";
        ident_file = "${pkgs.writeText "pg_ident.conf" cfg.identMap}";
        listen_addresses = lib.mkDefault (if cfg.enableTCPIP then "*" else "localhost");
        log_destination = lib.mkDefault "stderr";
        log_line_prefix = lib.mkDefault "[%p] ";
        unix_socket_directories = lib.mkDefault "/run/postgresql";
        jit = lib.mkDefault cfg.enableJIT;
      };
      authentication = lib.mkAfter ''
        local all postgres         peer map=postgres
        local all all              peer
        host  all all 127.0.0.1/32 md5
        host  all all ::1/128      md5
      '';
      identMap = ''
        postgres root     postgres
        postgres postgres postgres
      '';
    };

    users.users.postgres = {
      uid = 71;
      isSystemUser = true;
      group = "postgres";
      description = "PostgreSQL";
      home = cfg.dataDir;
      useDefaultShell = true;
    };
    users.groups.postgres.gid = 71;

    environment.systemPackages = [ cfg.package ];

    systemd.targets.postgresql = {
      description = "PostgreSQL with its databases and roles";
      wantedBy = [ "multi-user.target" ];
      requires = [ "postgresql.service" ];
      after = [ "postgresql.service" ];
    };

    systemd.services.postgresql = {
      description = "PostgreSQL server";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      path = [ cfg.package ];
      environment.PGDATA = cfg.dataDir;
      preStart = ''
        if [ ! -e "$PGDATA/PG_VERSION" ]; then
          rm -f "$PGDATA"/*.conf
          initdb -U postgres ${lib.escapeShellArgs cfg.initdbArgs}
          touch "$PGDATA/.first_startup"
        fi
        ln -sfn ${configFile} "$PGDATA/postgresql.conf"
      '';
      # systemd waits for the server's own word that it is ready.
      postStart = ''
        query() {
          psql --no-psqlrc --host=/run/postgresql --port=${toString cfg.settings.port} --dbname=postgres -v ON_ERROR_STOP=1 -tAc "$1"
        }
        if [ -e "$PGDATA/.first_startup" ]; then
          ${lib.optionalString (cfg.initialScript != null) ''
            psql --no-psqlrc --host=/run/postgresql --port=${toString cfg.settings.port} --dbname=postgres -f ${cfg.initialScript}
          ''}
          rm -f "$PGDATA/.first_startup"
        fi
        ${lib.concatMapStrings
          (database: unless "SELECT 1 FROM pg_database WHERE datname = ${literal database}" "CREATE DATABASE ${identifier database}")
          cfg.ensureDatabases}
        ${lib.concatMapStrings ensureUser cfg.ensureUsers}
      '';
      serviceConfig = {
        Type = "notify";
        ExecStart = "${cfg.package}/bin/postgres";
        ExecReload = "/bin/sh -c 'kill -HUP $MAINPID'";
        User = "postgres";
        Group = "postgres";
        RuntimeDirectory = "postgresql";
        RuntimeDirectoryMode = "0755";
        # Fast shutdown: clients are cut off, data are written.
        KillSignal = "SIGINT";
        KillMode = "mixed";
        TimeoutSec = 120;
      } // lib.optionalAttrs (lib.hasPrefix "/var/lib/" cfg.dataDir) {
        StateDirectory = lib.concatStringsSep " " (lib.unique [ "postgresql" (lib.removePrefix "/var/lib/" cfg.dataDir) ]);
        StateDirectoryMode = "0750";
      };
    };
  };
}
