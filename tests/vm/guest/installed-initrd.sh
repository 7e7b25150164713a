#!/bin/busybox sh
# shellcheck shell=dash
# Mounts the installed disk and starts the system of its profile.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
# By label: what is mounted is what the installer has formatted.
until device=$(findfs LABEL=nixos 2>/dev/null); do usleep 100000; done
mount -t ext4 "$device" /root
mount --move /dev /root/dev
exec switch_root /root /nix/var/nix/profiles/system/init
