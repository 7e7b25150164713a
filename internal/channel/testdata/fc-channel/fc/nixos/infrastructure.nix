# What kind of machine the platform runs on, and what its directory says about it.
{ config, lib, ... }:
{
  options.flyingcircus = {
    enc = lib.mkOption {
      type = lib.types.attrs;
      default = { };
      description = "What the directory says about this machine.";
    };
    infrastructureModule = lib.mkOption {
      type = lib.types.enum [ "testing" "flyingcircus" "container" ];
      default = "testing";
      description = "Kind of machine.";
    };
    passwordlessSudoRules = lib.mkOption {
      type = lib.types.listOf lib.types.attrs;
      default = [ ];
      description = "Rules of sudo that ask for no password.";
    };
  };

  config = lib.mkMerge [
    {
      environment.etc."local/platform".text = "fixture ${config.flyingcircus.infrastructureModule}\n";
      security.sudo.extraRules = map
        (rule: rule // {
          commands = map (command: { inherit command; options = [ "NOPASSWD" ]; }) rule.commands;
        })
        config.flyingcircus.passwordlessSudoRules;
    }

    (lib.mkIf (config.flyingcircus.infrastructureModule == "container") {
      boot.isContainer = true;
      # The platform's own priority, between mkDefault and a plain definition.
      networking.hostName = lib.mkOverride 900 config.flyingcircus.enc.name;
      networking.firewall.allowedTCPPorts = [ 80 ];

      flyingcircus.users.userData = [
        {
          uid = "developer";
          id = 1000;
          class = "human";
          home_directory = "/home/developer";
          # The private half of this pair is in nobody's hands: a login with it must not work.
          ssh_pubkey = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPlatformKeyThatMustNotCountInAContainer0000 platform" ];
        }
        {
          uid = "s-dev";
          id = 1001;
          class = "service";
          home_directory = "/srv/s-dev";
          ssh_pubkey = [ ];
        }
      ];
      users.users.developer.extraGroups = [ "service" "login" ];
      flyingcircus.passwordlessSudoRules = [
        { users = [ "developer" ]; commands = [ "ALL" ]; }
      ];
    })
  ];
}
