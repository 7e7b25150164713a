# The system of a small host, with services.devhost or without: what a host pays for it in time
# of evaluation is the difference. { tree, enable } -> the path of its derivation.
{ tree, enable }:
let
  host = {
    boot.loader.grub.device = "/dev/vda";
    fileSystems."/" = { device = "/dev/vda"; fsType = "xfs"; };
    services.openssh.enable = true;
    system.stateVersion = "24.05";
  };
  # The real package, with what a tree without real ones lacks for it.
  devhost = { lib, pkgs, ... }: {
    imports = [ ../../modules/devhost ];
    services.devhost = {
      enable = true;
      publicAddress = "dev.example.org";
      package = lib.callPackageWith
        (pkgs // {
          buildGoModule = arguments: pkgs.stdenv.mkDerivation (removeAttrs arguments [ "env" ]);
          installShellFiles = pkgs.installShellFiles or pkgs.hello;
        })
        ../../pkgs/devhost.nix
        { };
    };
  };
in
(import (tree + "/nixos") {
  system = "x86_64-linux";
  configuration.imports = [ host ] ++ (if enable then [ devhost ] else [ ]);
}).system.drvPath
