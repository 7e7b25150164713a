# Roles: one switch each, as a provision of the platform sets them.
{ config, lib, pkgs, ... }:
let
  cfg = config.flyingcircus.roles;

  role = name: {
    enable = lib.mkEnableOption "the role ${name}";
    supportsContainers = lib.mkOption {
      type = lib.types.bool;
      default = true;
      internal = true;
      description = "Whether the role works in containers.";
    };
  };

  majors = [ "13" "14" "15" "16" "17" "18" ];

  enabledMajors = lib.filter (major: cfg."postgresql${major}".enable) majors;
in
{
  options.flyingcircus.roles = {
    redis = role "redis";
    webgateway = role "webgateway";
  } // lib.genAttrs (map (major: "postgresql${major}") majors) role;

  config = lib.mkMerge [
    {
      assertions = [
        {
          assertion = lib.length enabledMajors <= 1;
          message = "Only one of the roles postgresqlXX can be enabled; enabled are ${toString enabledMajors}.";
        }
      ];
    }
    (lib.mkIf cfg.webgateway.enable {
      services.nginx.enable = true;
      services.nginx.recommendedProxySettings = true;
    })
    (lib.mkIf cfg.redis.enable {
      services.redis.servers."" = {
        enable = true;
        bind = lib.mkForce "0.0.0.0 ::";
        settings.protected-mode = false;
      };
    })
    (lib.mkIf (enabledMajors != [ ]) {
      services.postgresql = {
        enable = true;
        package = pkgs."postgresql_${lib.head enabledMajors}";
      };
    })
  ];
}
