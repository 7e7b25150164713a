#!/bin/sh
# Switches this machine to the system $1, as root. Someone must confirm within
# $2 seconds after the switch that the machine still answers, by stopping the
# timer devbox-rollback: else it goes back. The switch is a unit of its own, so
# that it survives the loss of the connection that started it.
set -eu
new=$1 patience=$2
profile=/nix/var/nix/profiles/system
state=/run/devbox-update
old=$(readlink -f /run/current-system)

if systemctl --quiet is-active devbox-switch.service; then
  echo "another update switches this machine just now" >&2
  exit 1
fi
systemctl stop devbox-rollback.timer devbox-rollback.service 2>/dev/null || true
systemctl reset-failed devbox-switch.service devbox-rollback.timer devbox-rollback.service 2>/dev/null || true
rm -rf "$state"
mkdir -m 0755 "$state"

cat > "$state/back" <<EOF
#!/bin/sh
nix-env --profile $profile --set $old
$old/bin/switch-to-configuration switch
EOF
cat > "$state/switch" <<EOF
#!/bin/sh
nix-env --profile $profile --set $new && $new/bin/switch-to-configuration switch
status=\$?
case \$status in
  # 4: the new system runs, and some of its units failed.
  0 | 4)
    systemd-run --quiet --collect --unit=devbox-rollback --on-active=$patience --timer-property=AccuracySec=1s \
      --setenv=PATH="\$PATH" /bin/sh $state/back || { status=1; /bin/sh $state/back; }
    ;;
  *) /bin/sh $state/back ;;
esac
echo \$status > $state/status.new
mv $state/status.new $state/status
EOF

: > "$state/log"
systemd-run --quiet --collect --unit=devbox-switch --setenv=PATH="$PATH:/run/current-system/sw/bin" \
  --property=StandardOutput=append:"$state/log" --property=StandardError=append:"$state/log" /bin/sh "$state/switch"

tail -n +1 -f "$state/log" &
shown=$!
while [ ! -e "$state/status" ] && systemctl --quiet is-active devbox-switch.service; do
  sleep 1
done
sleep 1
kill "$shown" 2>/dev/null || true
