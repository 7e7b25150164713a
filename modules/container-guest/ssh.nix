# sshd, with the keys that the host hands over.
{ config, lib, options, ... }:
let
  inherit (import ./lib.nix { inherit lib options; }) guestDefault hostFolder isFlyingCircus;

  # In the host's network sshd has a port of its own. Without such a file nothing is included.
  place = "Include ${hostFolder}/sshd.conf";

  # Tools open many connections at once; sshd's own limit drops some of them at random.
  maxStartups = "100:30:200";

  # Since 9.8 sshd shuts out an address that fails to log in a few times. All people of a
  # host come from one address, and devhost itself only looks whether sshd answers.
  hasPenalties = lib.versionAtLeast (config.services.openssh.package.version or "") "9.8";
in
{
  config = lib.mkMerge [
    {
      services.openssh = {
        enable = true;
        startWhenNeeded = guestDefault false;
        hostKeys = lib.mkForce [
          { type = "ed25519"; path = "${hostFolder}/ssh/ssh_host_ed25519_key"; }
        ];
        # The platform of Flying Circus declares a published key pair for its containers;
        # the host alone decides whether that one counts.
        authorizedKeysFiles = lib.mkForce (
          [ "${hostFolder}/authorized_keys/%u" ]
          ++ lib.optional (!isFlyingCircus) "/etc/ssh/authorized_keys.d/%u"
        );
      };
    }
    (
      if options.services.openssh ? settings then {
        services.openssh.settings = {
          PasswordAuthentication = guestDefault false;
          KbdInteractiveAuthentication = guestDefault false;
          MaxStartups = guestDefault maxStartups;
          PerSourcePenalties = lib.mkIf hasPenalties (guestDefault false);
        };
        # Before what ends in a Match block.
        services.openssh.extraConfig = lib.mkBefore place;
      } else {
        services.openssh.passwordAuthentication = guestDefault false;
        # Before the platform's own lines: those end in a Match block.
        services.openssh.extraConfig = lib.mkBefore "MaxStartups ${maxStartups}\n${place}";
      }
    )
    (lib.optionalAttrs (!(options.services.openssh ? settings)) (
      if options.services.openssh ? kbdInteractiveAuthentication
      then { services.openssh.kbdInteractiveAuthentication = guestDefault false; }
      else { services.openssh.challengeResponseAuthentication = guestDefault false; }
    ))
  ];
}
