# A web page behind the ingress and a database: what `make demo` runs. The same file
# works with channels/offline and with NixOS.
{ config, lib, pkgs, ... }:
let
  certificate = config.devhost.guest.selfSignedCertificate;

  # nginx fills in the name when it answers: the system does not know it.
  page = pkgs.writeTextDir "index.html" ''
    <!doctype html>
    <html lang="en">
      <head><meta charset="utf-8"><title>devhost demo</title></head>
      <body>
        <h1>It works</h1>
        <p>This page comes from the container <b><!--# echo var="hostname" --></b>.</p>
      </body>
    </html>
  '';

  seed = pkgs.writeText "seed.sql" ''
    CREATE TABLE IF NOT EXISTS greetings (language text PRIMARY KEY, greeting text NOT NULL);
    INSERT INTO greetings VALUES ('de', 'Guten Tag'), ('en', 'Hello'), ('fr', 'Bonjour')
      ON CONFLICT (language) DO NOTHING;
  '';
in
{
  devhost.guest.selfSignedCertificate.enable = true;

  services.nginx = {
    enable = true;
    recommendedGzipSettings = lib.mkDefault true;
    recommendedOptimisation = lib.mkDefault true;
    virtualHosts.demo = {
      default = true;
      forceSSL = true;
      sslCertificate = certificate.certificate;
      sslCertificateKey = certificate.key;
      root = page;
      locations."/".extraConfig = "ssi on;";
    };
  };

  # The service user reaches its database over the local socket; nobody else can connect.
  services.postgresql = {
    enable = true;
    ensureDatabases = [ config.devhost.guest.serviceUser ];
    ensureUsers = [
      { name = config.devhost.guest.serviceUser; ensureDBOwnership = true; }
    ];
  };

  systemd.services.demo-seed = {
    description = "First rows of the demo's database";
    wantedBy = [ "multi-user.target" ];
    requires = [ "postgresql.service" ];
    # NixOS since 25.11 makes databases and roles in a unit of its own, before this target.
    after = [ "postgresql.service" "postgresql.target" ];
    path = [ config.services.postgresql.package ];
    script = "psql --no-psqlrc -v ON_ERROR_STOP=1 -f ${seed}";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      User = config.devhost.guest.serviceUser;
    };
  };
}
