# security.pki: the certificates that programs trust.
{ config, lib, pkgs, ... }:
let
  cfg = config.security.pki;
in
{
  options.security.pki = {
    certificateFiles = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      description = "Files of certificates that programs trust.";
    };
    certificates = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Certificates (PEM) that programs trust.";
    };
  };

  config.environment.etc = {
    "ssl/certs/ca-certificates.crt".source = pkgs.runCommand "ca-certificates.crt"
      {
        files = map toString cfg.certificateFiles;
        text = lib.concatMapStrings (certificate: "${certificate}\n") cfg.certificates;
        passAsFile = [ "text" ];
      }
      ''
        cat ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt $files "$textPath" > "$out"
      '';
    # Where other distributions look.
    "ssl/cert.pem".source = "/etc/ssl/certs/ca-certificates.crt";
    "ssl/openssl.cnf".text = ''
      [req]
      distinguished_name = name
      [name]
    '';
  };
}
