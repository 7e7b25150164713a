# A real NixOS, evaluated with nixpkgs' own module system and with ours: both
# must come to the same derivation. It says more than any list of cases, but
# needs a nixpkgs tree.
#
# What ours has replaces what nixpkgs' lib has; NixOS also uses functions that
# ours lacks.
{ nixpkgs
, ours
}:
let
  inherit (builtins) isAttrs mapAttrs;

  theirs = import (nixpkgs + "/lib");
  isSet = value: isAttrs value && !(value ? _type) && !(value ? __functor);
  mixed = (import ../lib).extend (_: own:
    theirs
    // mapAttrs (name: value: if isSet value && isSet (theirs.${name} or null) then theirs.${name} // value else value) own
    # The release is a part of the system.
    // { inherit (theirs) trivial version; });
  lib = if ours then mixed else theirs;
in
(import (nixpkgs + "/nixos/lib/eval-config.nix") {
  inherit lib;
  system = "x86_64-linux";
  modules = [
    {
      nixpkgs.pkgs = import nixpkgs { system = "x86_64-linux"; };
      boot.isContainer = true;
      documentation.enable = false;
      system.stateVersion = "24.05";

      services.nginx.enable = true;
      services.nginx.virtualHosts.site = {
        root = "/srv/site";
        forceSSL = true;
        sslCertificate = "/srv/certificate";
        sslCertificateKey = "/srv/key";
        locations."/api".proxyPass = "http://127.0.0.1:8080";
      };
      services.postgresql.enable = true;
      services.postgresql.ensureDatabases = [ "app" ];
      services.redis.servers."".enable = true;
      services.openssh.enable = true;
      users.users.developer = {
        isNormalUser = true;
        extraGroups = [ "wheel" ];
      };
    }
    ({ config, lib, pkgs, ... }: {
      systemd.services.app = lib.mkIf config.services.nginx.enable {
        wantedBy = [ "multi-user.target" ];
        after = lib.mkBefore [ "network.target" ];
        serviceConfig.ExecStart = lib.mkForce "${pkgs.hello}/bin/hello";
      };
      environment.systemPackages = lib.mkAfter [ pkgs.hello ];
      networking.firewall.allowedTCPPorts = lib.mkMerge [ [ 80 ] (lib.mkIf config.services.nginx.enable [ 443 ]) ];
    })
  ];
}).config.system.build.toplevel.drvPath
