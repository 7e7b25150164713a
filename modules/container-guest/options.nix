{ config, lib, ... }:
{
  options.devhost.guest = {
    serviceUser = lib.mkOption {
      type = lib.types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "s-dev";
      description = "Account that runs the application. Its home is `/srv/<name>`.";
    };

    nixLd.enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether programs that were made for other distributions find a loader, by NixOS'
        `programs.nix-ld` (22.05 and newer), whose options say which libraries they find. On
        channels/offline they do in any case: its programs are the host's own.
      '';
    };

    selfSignedCertificate = {
      enable = lib.mkEnableOption "a TLS certificate that the container signs itself at first start, for services behind the host's ingress";

      certificate = lib.mkOption {
        type = lib.types.str;
        readOnly = true;
        default = "/var/lib/devhost-certificate/certificate.pem";
        description = "Where the certificate is.";
      };

      key = lib.mkOption {
        type = lib.types.str;
        readOnly = true;
        default = "/var/lib/devhost-certificate/key.pem";
        description = "Where the private key is. Root and `group` can read it.";
      };

      group = lib.mkOption {
        type = lib.types.str;
        default = if config.services.nginx.enable then config.services.nginx.group else "root";
        defaultText = "nginx' group where nginx is enabled, else root";
        description = "Group that can read the private key.";
      };
    };
  };
}
