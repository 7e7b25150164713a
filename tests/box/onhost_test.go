package box_test

import (
	"strings"
	"testing"

	"devhost/tests/box"
)

// TestDeclaredOnHost: a declared container in the host's network, as a unit of
// systemd: it is found by ssh, also after the host's own start, and its root
// cannot change the network.
func TestDeclaredOnHost(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	declare := func(containers string) {
		t.Helper()
		h.Must("root", "cat >/etc/devhost-containers.json <<'EOF'\n{\"version\": 1, \"containers\": ["+containers+"]}\nEOF\ndevhost host apply")
	}
	channel := strings.Fields(minimal)[1]
	declare(`{"name": "ci", "channel": "` + channel + `", "network": "host"}`)
	works := func() {
		t.Helper()
		if found := strings.TrimSpace(h.Must("alice", "sudo devhost ssh ci hostname")); found != "ci" {
			t.Errorf("by ssh it is %q", found)
		}
		// No program of the guest's is on that port before.
		h.Must("alice", `sudo devhost exec ci -- sh -c 'mkdir -p /srv/www && echo from the container >/srv/www/index.html &&
  (systemctl is-active --quiet web || systemd-run --quiet --unit=web /run/current-system/sw/bin/python3 -m http.server --bind 127.0.0.1 --directory /srv/www 18080)'`)
		eventually(t, func() string {
			if said := h.Run("bob", "curl --silent http://127.0.0.1:18080/").Stdout; said != "from the container\n" {
				return "the host's port says " + said
			}
			return ""
		})
	}
	works()
	if said := h.Must("alice", "sudo devhost status ci"); !strings.Contains(said, "the host's; ssh on port") {
		t.Errorf("status says:\n%s", said)
	}
	for _, command := range []string{"ip link set lo down", "ip address add 127.3.2.1/32 dev lo"} {
		if result := h.Run("alice", "sudo devhost exec ci -- "+command); result.Status == 0 || !strings.Contains(result.Stderr, "Operation not permitted") {
			t.Errorf("%s inside: %d\n%s", command, result.Status, result.Stderr)
		}
	}
	if found := h.Must("alice", "sudo devhost exec ci -- systemctl --failed --plain --no-legend"); found != "" {
		t.Errorf("failed inside:\n%s", found)
	}

	before := h.Must("root", "machinectl show --property Leader --value ci")
	h.Run("alice", "sudo devhost exec ci -- systemctl reboot")
	eventually(t, func() string {
		result := h.Run("root", "machinectl show --property Leader --value ci")
		if result.Status != 0 || result.Stdout == before || status(h)["ci"] != "running" {
			return "it has not rebooted: " + result.Stdout + result.Stderr
		}
		return ""
	})
	h.Must("alice", "sudo devhost start ci")
	works()
	h.Must("alice", "sudo devhost restart ci")
	works()
	h.RestartBox()
	eventually(t, func() string {
		if status(h)["ci"] != "running" {
			return status(h)["ci"]
		}
		return ""
	})
	h.Must("alice", "sudo devhost start ci")
	works()

	// Back in a network of its own, from its next start on.
	declare(`{"name": "ci", "channel": "` + channel + `"}`)
	works()
	h.Must("alice", "sudo devhost restart ci")
	if found := h.Must("alice", "sudo devhost exec ci -- ls /sys/class/net"); !strings.Contains(found, "host0") {
		t.Errorf("its interfaces are %s", found)
	}
	if found := strings.TrimSpace(h.Must("alice", "sudo devhost ssh ci hostname")); found != "ci" {
		t.Errorf("by ssh it is %q", found)
	}
	declare("")
}
