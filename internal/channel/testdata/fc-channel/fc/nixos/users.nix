# Accounts from the directory's data.
{ config, lib, ... }:
let
  group = { human = "users"; service = "service"; };
in
{
  options.flyingcircus.users.userData = lib.mkOption {
    type = lib.types.listOf lib.types.attrs;
    default = [ ];
    description = "Accounts as the directory lists them.";
  };

  config = {
    users.users = lib.listToAttrs (map
      (user: {
        name = user.uid;
        value = {
          uid = user.id;
          isNormalUser = true;
          createHome = false;
          group = group.${user.class};
          home = user.home_directory;
          hashedPassword = "*";
          openssh.authorizedKeys.keys = user.ssh_pubkey;
          shell = "/run/current-system/sw/bin/bash";
        };
      })
      config.flyingcircus.users.userData);
    users.groups = {
      service.gid = 900;
      login.gid = 502;
    };
    system.activationScripts.fc-homes = lib.stringAfter [ "users" ] (lib.concatMapStrings
      (user: "install -d -o ${user.uid} -g ${group.${user.class}} -m 0755 ${user.home_directory}\n")
      config.flyingcircus.users.userData);
  };
}
