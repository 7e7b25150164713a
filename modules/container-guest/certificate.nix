{ config, lib, pkgs, ... }:
let
  cfg = config.devhost.guest.selfSignedCertificate;

  # openssl wants these sections even where the command line says everything.
  opensslConfig = pkgs.writeText "openssl.cnf" ''
    [req]
    distinguished_name = name
    [name]
  '';
in
{
  config = lib.mkIf cfg.enable {
    systemd.services = {
      devhost-certificate = {
        description = "Self-signed TLS certificate of the container";
        wantedBy = [ "multi-user.target" ];
        before = [ "nginx.service" ];
        path = [ pkgs.openssl ];
        # Made inside, once: a key in the store could be read by every container.
        script = ''
          name=$(cat /proc/sys/kernel/hostname)
          if [ ! -s ${cfg.key} ]; then
            umask 0077
            openssl req -config ${opensslConfig} -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
              -subj "/CN=''${name:0:64}" -addext "subjectAltName=DNS:$name" \
              -keyout ${cfg.key}.new -out ${cfg.certificate} 2>&1
            chmod 0644 ${cfg.certificate}
            mv ${cfg.key}.new ${cfg.key}
          fi
          chown root:${cfg.group} ${cfg.key}
          chmod 0640 ${cfg.key}
        '';
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          StateDirectory = "devhost-certificate";
        };
      };
      nginx = lib.mkIf config.services.nginx.enable {
        requires = [ "devhost-certificate.service" ];
        after = [ "devhost-certificate.service" ];
      };
    };
  };
}
