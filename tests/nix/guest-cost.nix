# The system of a container, with devhost's guest module or of NixOS alone: what a container pays
# for it in time of evaluation is the difference. { tree, guest } -> the path of its derivation.
{ tree, guest }:
(import (tree + "/nixos") {
  system = "x86_64-linux";
  configuration =
    if guest then ../../modules/container-guest
    else { boot.isContainer = true; system.stateVersion = "24.05"; };
}).system.drvPath
