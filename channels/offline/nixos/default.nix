# The entry point of the channel: what a dev host evaluates to get a container's
# system. Same arguments and result as nixpkgs' nixos/default.nix.
{ configuration
, system ? builtins.currentSystem
, specialArgs ? { }
, ...
}:
let
  eval = import ./lib/eval-config.nix {
    inherit system specialArgs;
    modules = [ configuration ];
  };
in
{
  inherit (eval) pkgs config options;
  system = eval.config.system.build.toplevel;
}
