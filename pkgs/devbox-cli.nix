# What makes and runs devboxes.
{ lib, devhost, gitMinimal, openssh, qemu }:

import ./client.nix {
  inherit lib devhost;
  name = "devbox-cli";
  package = "devbox";
  runtime = [ gitMinimal openssh qemu ];
  description = "Development machines of one's own, by Tart or QEMU";
}
