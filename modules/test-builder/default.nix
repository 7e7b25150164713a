# What a builder needs to run NixOS tests whose machines are containers: each test gets a
# range of user ids and a cgroup of its own.
{ config, lib, ... }:
let
  cfg = config.devhost.testBuilder;
in
{
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    nix.settings = {
      experimental-features = [ "auto-allocate-uids" "cgroups" ];
      auto-allocate-uids = true;
      use-cgroups = true;
      # Added to those that the host has.
      extra-system-features = [ "uid-range" ] ++ lib.optional cfg.network.enable "devnet";
      extra-sandbox-paths = lib.mkIf cfg.network.enable [ "/dev/net" ];
    };

    assertions = [
      {
        assertion = lib.versionAtLeast config.nix.package.version "2.12";
        message = ''
          devhost.testBuilder: Nix ${config.nix.package.version} cannot allocate user ids; set nix.package
          to Nix 2.12 or newer'';
      }
    ];
  };
}
