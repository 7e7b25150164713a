# The role of Flying Circus' platform, by its own names.
{
  imports = [ ../../../modules/flyingcircus.nix ];
  flyingcircus.roles.devhost = {
    enable = true;
    publicAddress = "dev.fcio.example";
    cleanupContainers = false;
  };
}
