# services.devhost: makes a NixOS host a dev host. devhost itself does all the work;
# this module writes its settings, and prepares what only the host's configuration can.
{
  imports = [
    ./options.nix
    ./assertions.nix
    ./commands.nix
    ./containers.nix
    ./expiry.nix
    ./ingress.nix
    ./names.nix
    ./network.nix
    ./settings.nix
    ./sudo.nix
    ./units.nix
  ];
}
