package box_test

import (
	"strings"
	"testing"

	"devhost/tests/box"
)

// TestDeclared: a declared container is a unit of systemd as others are; its root
// folder is emptied when it reboots, what is bound into it is not, and it comes
// back with the host.
func TestDeclared(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	const file = "/etc/devhost-containers.json"
	declare := func(containers string) {
		t.Helper()
		h.Must("root", "cat >"+file+" <<'EOF'\n{\"version\": 1, \"containers\": ["+containers+"]}\nEOF\ndevhost host apply")
	}
	inside := func(script string) string {
		t.Helper()
		return strings.TrimSpace(h.Must("alice", "sudo devhost exec ci -- sh -c '"+script+"'"))
	}
	h.Must("root", "install -d -o alice -g alice /srv/shared")
	channel := strings.Fields(minimal)[1]
	declare(`{"name": "ci", "channel": "` + channel + `", "ephemeral": true,
  "bindMounts": [{"guestPath": "/srv/shared", "hostPath": "/srv/shared", "isReadOnly": false, "owner": 1000}]}`)
	if result := h.Run("alice", "devhost host apply || sudo devhost host apply"); result.Status != 7 {
		t.Errorf("a developer applied it: %d\n%s%s", result.Status, result.Stdout, result.Stderr)
	}
	if result := h.Run("alice", "sudo devhost destroy ci --force"); result.Status != 7 || !strings.Contains(result.Stderr, file) {
		t.Errorf("a developer destroyed it: %d\n%s", result.Status, result.Stderr)
	}
	inside("sudo -u developer touch /srv/shared/kept; touch /srv/lost")
	if owner := strings.TrimSpace(h.Must("root", "stat -c %U /srv/shared/kept")); owner != "alice" {
		t.Errorf("on the host the file is %s's", owner)
	}
	before := h.Must("root", "machinectl show --property Leader --value ci")
	inside("systemctl reboot")
	eventually(t, func() string {
		result := h.Run("root", "machinectl show --property Leader --value ci")
		if result.Status != 0 || result.Stdout == before || status(h)["ci"] != "running" {
			return "it has not rebooted: " + result.Stdout + result.Stderr
		}
		return ""
	})
	if found := inside("ls /srv/shared /srv/lost 2>&1 || true"); !strings.Contains(found, "kept") || !strings.Contains(found, "No such file") {
		t.Errorf("after a reboot: %s", found)
	}
	h.Must("root", "systemctl kill --signal KILL devhost@ci")
	eventually(t, func() string {
		if status(h)["ci"] != "failed" {
			return status(h)["ci"]
		}
		return ""
	})
	if text := h.Must("root", "devhost host apply"); text != "ci: started\n" {
		t.Errorf("host apply says %q", text)
	}
	declare("")
	if mounts := h.Must("root", "cat /proc/self/mountinfo"); strings.Contains(mounts, "ci.binds") {
		t.Errorf("left behind:\n%s", mounts)
	}
}
