# The NixOS configuration of the containers of {{.Name}}. No secrets here: everybody on
# the dev host can read what is built from it. Other *.nix files of this folder, and
# all of a folder provision/, can be imported from here.
{ lib, pkgs, ... }:
{
  # services.postgresql.enable = true;
  # services.nginx.enable = true;
}
