# The programs that people call.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.devhost;

  # Where NixOS keeps its own containers depends on when the host was installed.
  nixosContainer =
    let
      overridable = lib.versionAtLeast config.system.nixos.release "22.05";
      old = lib.versionOlder config.system.stateVersion "22.05";
    in
    if overridable && old
    then pkgs.nixos-container.override { stateDirectory = "/var/lib/containers"; configurationDirectory = "/etc/containers"; }
    else pkgs.nixos-container;

  # devhost answers by the name that it is called by, and hands what is not its own to the
  # nixos-container that it finds on its PATH.
  batouCommands = pkgs.runCommand "devhost-batou-commands" { preferLocalBuild = true; } (''
    mkdir -p $out/bin $out/libexec
    for name in fc-build-dev-container fc-devhost nixos-container; do
      ln -s ${cfg.package}/bin/devhost $out/bin/$name
    done
  '' + lib.optionalString config.boot.enableContainers ''
    mv $out/bin/nixos-container $out/libexec/
    cat > $out/bin/nixos-container <<EOF
    #!${pkgs.runtimeShell}
    PATH=${nixosContainer}/bin:\$PATH exec $out/libexec/nixos-container "\$@"
    EOF
    chmod +x $out/bin/nixos-container
  '');
in
{
  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ]
      # Before NixOS' own nixos-container.
      ++ lib.optional cfg.batou.enable (lib.hiPrio batouCommands);
  };
}
