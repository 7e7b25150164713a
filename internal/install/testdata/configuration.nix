# Written by devbox-auto-install: enough to log in and to build the machine's own configuration,
# which takes the place of this one.
{ options, ... }:
{
  imports = [ ./hardware-configuration.nix ];

  boot.loader.systemd-boot.enable = true;
  boot.loader.timeout = 1;
  boot.kernelParams = [ "console=tty0" "console=ttyS0" ];

  networking.hostName = "dev";

  users.users."alice" = {
    isNormalUser = true;
    extraGroups = [ "wheel" ];
    openssh.authorizedKeys.keys = [
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo own"
      "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBar a \"quoted\" \${comment} \\ of mine"
    ];
  };
  security.sudo.wheelNeedsPassword = false;

  services.openssh = { enable = true; } // (
    if options.services.openssh ? settings then { settings.PasswordAuthentication = false; }
    else { passwordAuthentication = false; }
  );

  nix =
    if options.nix ? settings then {
      settings = {
        experimental-features = [ "nix-command" "flakes" ];
        substituters = [ "https://cache.example.org" ];
        trusted-public-keys = [ "cache.example.org-1:0000000000000000000000000000000000000000000=" ];
      };
    } else {
      extraOptions = "extra-experimental-features = nix-command flakes";
      binaryCaches = [ "https://cache.example.org" ];
      binaryCachePublicKeys = [ "cache.example.org-1:0000000000000000000000000000000000000000000=" ];
    };

  system.stateVersion = "24.05";
}
