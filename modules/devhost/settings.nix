# The one file that devhost reads, /etc/devhost-settings.json. It is checked by devhost
# itself while it is built.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.devhost;

  values = {
    version = 1;
    inherit (cfg)
      publicAddress domains allowedGroups adminGroups allowedChannels allowedURIs authorizedKeys
      defaults maximum allowNesting defaultNesting expiry batou;
    network = cfg.network // { forwardPorts = map toString cfg.network.forwardPorts; };
    ingress = {
      inherit (cfg.ingress) httpPort httpsPort tls certificates;
      acme = cfg.ingress.acme // { caFile = "${cfg.ingress.acme.caFile}"; };
    };
  };

  canCheck = import ./can-check.nix pkgs;
in
{
  config = lib.mkIf cfg.enable {
    environment.etc."devhost-settings.json".source = pkgs.writeTextFile {
      name = "devhost-settings.json";
      text = builtins.toJSON values;
      checkPhase = lib.optionalString canCheck ''
        ${cfg.package}/bin/devhost host check "$out"
      '';
    };
  };
}
