# What every development container imports, whatever channel its NixOS comes from
# (NixOS 21.05 to current, Flying Circus' platform, channels/offline).
#
# The host hands over one folder, bound read-only at /run/devhost:
#   name                        the container's name, also its host name
#   hosts                       names that change while it runs (hosts(5)): its own, and those of its peers
#   resolv.conf                 the host's resolvers
#   network/                    systemd-networkd's files for the interface host0; none in the host's network
#   sshd.conf                   where sshd listens in the host's network; missing in one of its own
#   authorized_keys/USER        public keys that may log in as USER
#   ssh/ssh_host_ed25519_key    the host key
#   notice                      what people are told at login; missing where there is nothing to say
#   bin/devhost                 devhost itself, which is fc-manage inside
{
  imports = [
    ./options.nix
    ./certificate.nix
    ./container.nix
    ./fc-manage.nix
    ./motd.nix
    ./names.nix
    ./nesting.nix
    ./network.nix
    ./nix-ld.nix
    ./ssh.nix
    ./users.nix
  ];
}
