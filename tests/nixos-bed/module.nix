# What only the machine's own programs need (Debian's, with systemd 252), never the product.
{ config, lib, pkgs, ... }:
let
  # Debian's systemd reads these, NixOS' does not: units of whatever the machine has installed.
  hidden = [
    "/usr/lib/systemd/system" "/usr/lib/systemd/user" "/usr/lib/systemd/system-generators" "/usr/lib/systemd/user-generators"
    "/usr/lib/systemd/system-environment-generators" "/usr/lib/systemd/user-environment-generators" "/usr/lib/systemd/network"
    "/usr/lib/tmpfiles.d" "/usr/lib/sysusers.d" "/usr/lib/sysctl.d" "/usr/lib/environment.d"
  ];
in
{
  # /bin and /usr are the machine's.
  system.activationScripts.usrbinenv = lib.mkForce "";
  system.activationScripts.binsh = lib.mkForce "";
  environment.stub-ld.enable = false;
  # It looks for accounts that builders do not have.
  services.logrotate.checkConfig = false;
  programs.nano.enable = false;
  # Names are looked up by the machine's libc.
  services.nscd.enable = false;
  # The machine has no other.
  i18n.defaultLocale = lib.mkForce "C.UTF-8";
  i18n.supportedLocales = lib.mkForce [ "C.UTF-8/UTF-8" ];
  system.nssModules = lib.mkForce [ ];
  networking.resolvconf.enable = lib.mkForce false;
  systemd.coredump.enable = false;
  systemd.oomd.enable = false;
  systemd.shutdownRamfs.enable = false;
  system.switch.enable = true;
  system.disableInstallerTools = true;
  documentation.enable = lib.mkForce false;
  security.polkit.enable = lib.mkForce false;

  # Debian's sudo -i and su -l ask PAM by other names.
  security.pam.services.sudo-i = { };
  security.pam.services.su-l.rootOK = true;

  # Debian's own has this folder from its package.
  systemd.services.sshd.serviceConfig.RuntimeDirectory = "sshd";

  # Debian's nginx opens /var/lib/nginx before it reads its configuration.
  systemd.services.nginx = lib.mkIf config.services.nginx.enable { serviceConfig.StateDirectory = "nginx"; };

  boot.postBootCommands = ''
    for folder in ${toString hidden}; do
      [ ! -d "$folder" ] || ${pkgs.util-linux}/bin/mount --bind ${pkgs.emptyDirectory} "$folder"
    done
  '';
  boot.systemdExecutable = "/usr/lib/systemd/systemd";

  # The host binds its /usr for such systems.
  system.extraSystemBuilderCmds = ''
    printf '%s\n' '{"version":1,"hostUsr":true}' > $out/devhost-system.json
  '';
}
