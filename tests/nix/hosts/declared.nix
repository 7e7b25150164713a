# Declared containers: of a channel, of a flake, and of the host's own nixpkgs, with every
# option at a value that is not its default.
{
  services.devhost = {
    enable = true;
    containers.ci = {
      channel = "https://hydra.example.org/nixexprs.tar.xz";
      provision = [ ../../../examples/minimal/provision.nix ../../../modules/test-builder ];
      autoStart = false;
      ephemeral = true;
      expiry = true;
      aliases = [ "www" "api" ];
      environment = "shop";
      authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice" ];
      nesting = true;
      forwardPorts = [{ hostPort = 8080; guestPort = 80; } { hostPort = 5353; guestPort = 53; protocol = "udp"; }];
      bindMounts."/srv/docs".hostPath = "/srv/docs";
      bindMounts."/srv/s-dev/shop" = { hostPath = "/home/alice/shop"; isReadOnly = false; owner = "s-dev"; };
      bindMounts."/srv/numbers" = { hostPath = "/home/alice/numbers"; owner = 1234; };
      limits = { memory = "4G"; cpus = 1.5; tasks = 4096; ioWeight = 50; disk = "20G"; };
    };
    containers.nightly.flake = "github:NixOS/nixpkgs/nixos-26.05";
    containers.probe = { flake = "github:NixOS/nixpkgs"; network = "host"; };
    containers.web.config = {
      environment.etc.proof.text = "there";
      users.users.shop = { isSystemUser = true; uid = 4711; group = "service"; };
    };
    containers.web.bindMounts."/srv/shop" = { hostPath = "/home/alice/shop"; isReadOnly = false; owner = "shop"; };
  };
}
