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
  devbox = {
    path = ./devbox;
    description = "A NixOS virtual machine of one's own, on Tart or QEMU";
    welcomeText = ''
      - In `flake.nix`, say what runs it and how large it is; in `configuration.nix`, who works on it
        and what it has.
      - On Linux, try it: `nix build .#nixosConfigurations.dev.config.system.build.vm && ./result/bin/run-dev-vm`
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
