# What the hypervisor or the installer cannot do, each with what to do about it.
{ config, lib, options, pkgs, ... }:
let
  cfg = config.devbox;
  hypervisors = import ./hypervisors.nix;
  hypervisor = hypervisors.${cfg.hypervisor};
  inherit (pkgs.stdenv.hostPlatform) system;

  able = which: lib.concatStringsSep " or " (map (name: "devbox.hypervisor = \"${name}\"")
    (lib.filter (name: lib.elem system hypervisors.${name}.${which}) (lib.attrNames hypervisors)));
  orElse = which: instead: if able which == "" then instead else "set ${able which}, or ${instead}";

  # Where the installer puts the key by which devbox-cli knows the machine: internal/install/keys.go.
  hostKey = "/etc/ssh/ssh_host_ed25519_key";
  sshd = config.services.openssh;

  check = assertion: message: { inherit assertion; message = "devbox: ${message}"; };
in
{
  config.assertions = [
    (check (lib.elem system hypervisor.systems) ''
      ${cfg.hypervisor} runs no ${system}; ${orElse "systems" "build for ${lib.concatStringsSep " or " hypervisor.systems}"}'')
    (check (!cfg.vm.nested || ! lib.elem system hypervisor.systems || lib.elem system hypervisor.nested) ''
      ${cfg.hypervisor} lets no machines run in one of ${system}; ${orElse "nested" "set devbox.vm.nested = false"}'')
    (check (!sshd.enable || lib.any (key: key.path == hostKey) sshd.hostKeys) ''
      devbox-cli knows the machine by ${hostKey}, which the installer makes; add { type = "ed25519"; path = "${hostKey}"; } to services.openssh.hostKeys'')
    (check (!sshd.enable || ! options.system ? etc.overlay || !config.system.etc.overlay.enable) ''
      devbox-cli knows the machine by ${hostKey}, which the installer makes and an overlay on /etc hides; set system.etc.overlay.enable = false'')
  ];
}
