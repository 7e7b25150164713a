# Redis, a second server for tests, and an account of its own for a worker.
{ config, lib, pkgs, ... }:
{
  services.redis.servers."" = {
    enable = true;
    appendOnly = lib.mkDefault true;
  };
  services.redis.servers.test = {
    enable = true;
    port = 6380;
    save = [ ];
    settings.maxmemory = "64mb";
  };

  users.groups.worker = { };
  users.users.worker = {
    isSystemUser = true;
    group = "worker";
    extraGroups = [ config.services.redis.servers."".user ];
  };

  # Counts its starts in Redis, once a minute and at boot.
  systemd.services.worker = {
    description = "Worker that counts";
    wantedBy = [ "multi-user.target" ];
    after = [ "redis.service" ];
    startAt = "minutely";
    path = [ config.services.redis.package ];
    script = "redis-cli -s ${config.services.redis.servers."".unixSocket} incr starts";
    serviceConfig = {
      Type = "oneshot";
      User = "worker";
    };
  };

  networking.hosts."192.0.2.10" = [ "upstream.example.org" ];
  environment.etc."worker.conf".text = "queue = default\n";
  environment.systemPackages = [ pkgs.jq ];
}
