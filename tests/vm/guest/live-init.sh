#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the live system, in place of the unit that NixOS has.
export PATH=/bin:/sbin HOME=/root
/bin/busybox --install -s /sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
# As udev makes it.
mkdir -p /dev/disk/by-id
ln -s ../../vda /dev/disk/by-id/virtio-test
# Nix would look for the group of its build users; nothing is built here.
export NIX_CONFIG='build-users-group ='
config=direct wait=1m
read -r words </proc/cmdline
for word in $words; do
  case $word in
    test.config=*) config=${word#*=} ;;
    test.wait=*) wait=${word#*=} ;;
    test.fill) export TEST_FILL=1 ;;
  esac
done
devbox-auto-install --config "/etc/devbox/$config.json" --wait "$wait"
echo "devbox-auto-install ended with $?"
poweroff -f
