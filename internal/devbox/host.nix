# What devbox-cli asks a flake about a host: name -> nixosConfigurations -> answer.
name: hosts:
if !(hosts ? ${name}) then { names = builtins.attrNames hosts; } else
let
  host = hosts.${name};
  inherit (host) config;
in
{
  names = [ name ];
  system = host.pkgs.stdenv.hostPlatform.system or config.nixpkgs.hostPlatform.system;
  hostName = config.networking.hostName or name;
  installer = config.system.build.devboxInstaller.drvPath or "";
  devbox = if !(config ? devbox) then null else {
    inherit (config.devbox) hypervisor;
    inherit (config.devbox.user) login;
    inherit (config.devbox.vm) nested memoryMB diskGB;
    cpus = config.devbox.vm.cpus or null;
    inherit (config.devbox.nix) substituters trustedPublicKeys;
    mode = config.devbox.install.mode or "direct";
    disk = config.devbox.install.disk or "/dev/vda";
  };
}
