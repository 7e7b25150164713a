#!/bin/busybox sh
# shellcheck shell=dash
# Stands in for NixOS' program: records how it is called, and makes the users.
set -e
echo "test: nixos-install $*"
[ "$1" = --root ]
if [ -n "$TEST_FILL" ]; then
  echo 'test: filling the disk'
  free=$(df -k "$2" | awk 'END { print $4 }')
  fallocate -l "$((free - 20000))k" "$2/fill"
  cat /dev/zero >"$2/rest"
fi
mkdir -p "$2/etc" "$2/home/alice"
echo 'alice:x:1000:100::/home/alice:/bin/sh' >"$2/etc/passwd"
sed 's/^/test: configuration: /' "$2/etc/nixos/configuration.nix"
