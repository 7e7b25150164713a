# `developer`, who logs in and administers, and the account that runs the application.
{ config, lib, options, pkgs, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault isFlyingCircus;
  inherit (config.devhost.guest) serviceUser;

  # No password fits, and yet the account is not locked: key logins and sudo work.
  noPassword = "*";

  serviceAccount = {
    uid = 1001;
    isNormalUser = true;
    description = "Application";
    group = "service";
    home = "/srv/${serviceUser}";
    createHome = true;
    hashedPassword = noPassword;
  };
in
{
  config = lib.mkMerge [
    {
      security.sudo.enable = true;
      security.sudo.extraRules = lib.mkAfter [
        {
          users = [ "developer" ];
          commands = [{ command = "ALL"; options = [ "NOPASSWD" "SETENV" ]; }];
        }
      ];

      environment.systemPackages = [ pkgs.python3 pkgs.rsync ];

      systemd.tmpfiles.rules = [
        "d /etc/local 0755 root root -"
        "d /etc/local/nixos 2775 root service -"
        "d /srv 0755 root root -"
        "d /srv/${serviceUser} 0755 ${serviceUser} service -"
      ];
    }

    # With users.mutableUsers = false NixOS asks for a way in; ours are the host's keys.
    (lib.optionalAttrs (options.users ? allowNoPasswordLogin) {
      users.allowNoPasswordLogin = guestDefault true;
    })

    # Flying Circus' platform makes both accounts itself, the second as s-dev.
    (lib.mkIf (!isFlyingCircus) {
      users.groups = {
        login = { };
        service = { };
      };
      users.users.developer = {
        uid = 1000;
        isNormalUser = true;
        description = "Developer";
        group = "users";
        extraGroups = [ "login" "service" ];
        hashedPassword = noPassword;
      };
    })
    (lib.mkIf (!isFlyingCircus || serviceUser != "s-dev") {
      users.users.${serviceUser} = serviceAccount // lib.optionalAttrs isFlyingCircus { uid = 1002; };
    })
  ];
}
