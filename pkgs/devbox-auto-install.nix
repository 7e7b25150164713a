# What installs a devbox, inside of the installer ISO. It is built from the same modules as devhost.
{ lib, devhost }:

devhost.overrideAttrs (old: {
  pname = "devbox-auto-install";
  subPackages = [ "cmd/devbox-auto-install" ];
  ldflags = [ "-s" "-w" ];
  # The ISO's unit says where its programs are.
  postInstall = "";

  meta = old.meta // {
    description = "Installs a devbox from its installer ISO";
    mainProgram = "devbox-auto-install";
    platforms = lib.platforms.linux;
  };
})
