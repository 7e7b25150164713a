# What building, testing and the demo need where there is Nix.
{ mkShell
, bash
, coreutils
, curl
, dbus
, git
, gnumake
, go
, iproute2
, jq
, nftables
, nginx
, nix
, openssh
, openssl
, postgresql
, python3
, redis
, rsync
, systemd
, util-linux
}:

mkShell {
  packages = [
    bash
    coreutils
    curl
    dbus
    git
    gnumake
    go
    iproute2
    jq
    nftables
    nginx
    nix
    openssh
    openssl
    postgresql
    python3
    redis
    rsync
    systemd
    util-linux
  ];
  # Not in `env`: old releases do not know that.
  CGO_ENABLED = "0";
}
