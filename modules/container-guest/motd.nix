# What the host has to say to people who log in: that the container is about to be stopped or
# deleted. Commands, rsync and the like do not see it: it is for shells on a terminal, once a login.
{ lib, options, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) hostFolder;
in
{
  config.environment.interactiveShellInit = ''
    if [ -t 1 ] && [ -z "''${DEVHOST_NOTICE_SHOWN-}" ] && [ -s ${hostFolder}/notice ]; then
      export DEVHOST_NOTICE_SHOWN=1
      cat ${hostFolder}/notice
    fi
  '';
}
