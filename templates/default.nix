# nix flake init -t DEVHOST#NAME
{
  host = {
    path = ./host;
    description = "A NixOS host whose users make development containers";
    welcomeText = ''
      - In `configuration.nix`, set your host's own disks, boot loader, name and users, and a domain
        whose `*` points to it.
      - Switch to it: `nixos-rebuild switch --flake .#dev`
    '';
  };
  environment = {
    path = ./environment;
    description = "What a project's development container needs, for devhost ensure";
    welcomeText = ''
      Say in `provision.nix` what your project needs, then, on the dev host:
      `sudo devhost ensure NAME --channel github:NixOS/nixpkgs/nixos-26.05 --provision .`
    '';
  };
}
