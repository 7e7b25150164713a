# Each option of a declared container at a value that is not its default.
{
  channel.channel = "/srv/other";
  flake = { channel = null; flake = "github:NixOS/nixpkgs"; };
  config = { channel = null; config = { }; };
  provision.provision = [ ../../examples/minimal/provision.nix ];
  autoStart.autoStart = false;
  ephemeral.ephemeral = true;
  expiry.expiry = true;
  aliases.aliases = [ "www" ];
  environment.environment = "shop";
  authorizedKeys.authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
  nesting.nesting = true;
  network.network = "host";
  forwardPorts.forwardPorts = [{ hostPort = 8080; guestPort = 80; }];
  bindMounts.bindMounts."/srv/shop" = { hostPath = "/home/alice/shop"; };
  "limits.memory".limits.memory = "4G";
  "limits.cpus".limits.cpus = 2;
  "limits.tasks".limits.tasks = 4096;
  "limits.ioWeight".limits.ioWeight = 50;
  "limits.disk".limits.disk = "20G";
}
