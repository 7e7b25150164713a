# What the hypervisor cannot do, each with what to do about it.
{ config, lib, pkgs, ... }:
let
  cfg = config.devbox;
  hypervisors = import ./hypervisors.nix;
  hypervisor = hypervisors.${cfg.hypervisor};
  inherit (pkgs.stdenv.hostPlatform) system;

  able = which: lib.concatStringsSep " or " (map (name: "devbox.hypervisor = \"${name}\"")
    (lib.filter (name: lib.elem system hypervisors.${name}.${which}) (lib.attrNames hypervisors)));
  orElse = which: instead: if able which == "" then instead else "set ${able which}, or ${instead}";

  check = assertion: message: { inherit assertion; message = "devbox: ${message}"; };
in
{
  config.assertions = [
    (check (lib.elem system hypervisor.systems) ''
      ${cfg.hypervisor} runs no ${system}; ${orElse "systems" "build for ${lib.concatStringsSep " or " hypervisor.systems}"}'')
    (check (!cfg.vm.nested || ! lib.elem system hypervisor.systems || lib.elem system hypervisor.nested) ''
      ${cfg.hypervisor} lets no machines run in one of ${system}; ${orElse "nested" "set devbox.vm.nested = false"}'')
  ];
}
