# The client of a dev host.
{ lib, devhost, bash, gitMinimal, openssh, rsync }:

import ./client.nix {
  inherit lib devhost;
  name = "devhost-deploy";
  package = "deploy";
  runtime = [ bash gitMinimal openssh rsync ];
  description = "From an environment of a project to a running development container";
}
