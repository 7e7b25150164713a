# system.build.devboxInstaller: an ISO that installs this system (or, in the mode bootstrap, one
# that can build it) on a machine's disk, unattended. system.build.devboxImage: the disk as it is
# then, ready to start.
{ config, lib, modulesPath, pkgs, ... }:
let
  cfg = config.devbox;
  inherit (pkgs.stdenv.hostPlatform) system;
  hypervisor = (import ../hypervisors.nix).${cfg.hypervisor};
  # Where a hypervisor does not run such a guest, assertions.nix says so.
  console = hypervisor.console.${system} or "hvc0";
  direct = cfg.install.mode == "direct";

  # What devbox-auto-install reads: internal/install/config.go.
  facts = {
    version = 1;
    system = lib.optionalString direct "${config.system.build.toplevel}";
    inherit console;
    stateVersion = lib.optionalString (!direct) config.system.stateVersion;
  };
  factsFile = pkgs.runCommand "devbox-installer.json"
    { facts = builtins.toJSON facts; passAsFile = [ "facts" ]; }
    ''
      cp $factsPath $out
      ${cfg.install.package}/bin/devbox-auto-install --config $out --check
    '';

  installer = import (modulesPath + "/../lib/eval-config.nix") {
    inherit system;
    modules = [
      ./iso.nix
      {
        _file = ./default.nix;
        # Both systems share what they have in common.
        nixpkgs.pkgs = pkgs;
        system.stateVersion = config.system.stateVersion;
        devboxInstaller = {
          inherit console direct factsFile;
          inherit (cfg.install) package;
          inherit (cfg.nix) substituters trustedPublicKeys;
          contents = lib.optional direct config.system.build.toplevel;
        };
      }
    ] ++ lib.optional (!direct) (modulesPath + "/installer/cd-dvd/channel.nix");
  };

  image = import (modulesPath + "/../lib/make-disk-image.nix") {
    inherit config lib pkgs;
    name = "devbox-image";
    format = "raw";
    partitionTableType = "efi";
    bootSize = "512M";
    additionalSpace = "1G";
    copyChannel = false;
    # Its boot partition, from 8 to 512 MiB, has the label ESP.
    postVM = ''
      dd if=$diskImage of=esp bs=1M skip=8 count=504
      ${pkgs.dosfstools}/bin/fatlabel esp boot
      dd if=esp of=$diskImage bs=1M seek=8 conv=notrunc
      rm esp
    '' + lib.optionalString (hypervisor.image == "qcow2") ''
      ${pkgs.qemu-utils or pkgs.qemu}/bin/qemu-img convert -f raw -O qcow2 $diskImage $out/nixos.qcow2
      rm $diskImage
    '';
  };
in
{
  config = {
    system.build = {
      devboxInstaller = installer.config.system.build.isoImage;
      # What the ISO is made of, to look at.
      devboxInstallerSystem = installer;
      devboxInstallerFacts = factsFile;
      devboxImage = image;
    };

    # devbox-auto-install writes the keys of the seed disk there. The file is root's: it does not
    # matter whether the account is made at installation or at boot.
    services.openssh.authorizedKeysFiles = [ "/var/lib/devbox/authorized_keys.d/%u" ];
  };
}
