#!/bin/busybox sh
# shellcheck shell=dash
# Mounts the ISO and starts what is on it, with a layer of memory to write to.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
until mount -t iso9660 -o ro /dev/sr0 /iso 2>/dev/null; do usleep 100000; done
mount -t tmpfs rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/iso,upperdir=/rw/upper,workdir=/rw/work overlay /root
mount --move /dev /root/dev
exec switch_root /root /sbin/init
