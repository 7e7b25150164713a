package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNixOS is about what differs between channels/offline and NixOS itself:
// the other tests that run with channelVariable are the same for both.
func TestNixOS(t *testing.T) {
	if os.Getenv(channelVariable) == "" {
		t.Skip("needs a channel of NixOS' own modules: make e2e-nixos")
	}
	h := newHost(t)
	healthy := func(name string) {
		h.t.Helper()
		// A job that still runs, such as a timer's, is no failure.
		h.inside(name, "systemctl is-system-running --wait || true")
		failed := strings.Fields(h.inside(name, "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1"))
		if state := h.inside(name, "systemctl is-system-running || true"); state != "running" || len(failed) != 0 {
			h.t.Errorf("%s is %s; failed units: %d %v", name, state, len(failed), failed)
		}
	}

	for _, name := range []string{"minimal", "demo", "redis"} {
		began := time.Now()
		h.must("ensure", name, "--channel", offline(t), "--provision", example(t, name))
		t.Logf("%s was made in %s", name, time.Since(began).Round(100*time.Millisecond))
		healthy(name)
	}
	if version := h.inside("minimal", "cat /run/current-system/nixos-version"); version == "" || strings.Contains(version, "offline") {
		t.Errorf("that is not NixOS: %q", version)
	}

	t.Run("several containers of one system", func(t *testing.T) {
		h := h.with(t)
		for _, name := range []string{"second", "third"} {
			h.must("ensure", name, "--channel", offline(t), "--provision", example(t, "minimal"))
			healthy(name)
			if one, other := h.status("minimal").System, h.status(name).System; one != other {
				t.Errorf("minimal has system %s, %s has %s", one, name, other)
			}
			if found := h.inside(name, "cat /proc/sys/kernel/hostname"); found != name {
				t.Errorf("%s is called %q inside", name, found)
			}
		}
	})
	t.Run("user namespaces", func(t *testing.T) {
		h := h.with(t)
		if ids := strings.Fields(h.inside("minimal", "cat /proc/1/uid_map")); len(ids) != 3 || ids[1] == "0" {
			t.Errorf("root inside is root outside: uid_map is %v", ids)
		}
	})
	t.Run("ssh", func(t *testing.T) {
		h := h.with(t)
		if modes := h.inside("minimal", "sshd -T -f /etc/ssh/sshd_config | grep -i strictmodes"); modes != "strictmodes yes" {
			t.Errorf("sshd has %q", modes)
		}
		if got := h.must("ssh", "minimal", "--", "sudo -n -i id -un"); got != "root\n" {
			t.Errorf("sudo -i in an ssh login is %q", got)
		}
	})
	t.Run("services", func(t *testing.T) {
		h := h.with(t)
		if got := h.inside("redis", "redis-cli ping; redis-cli -p 6380 ping"); got != "PONG\nPONG" {
			t.Errorf("redis says %q", got)
		}
		if got := h.inside("demo", "cd /; runuser -u s-dev -- psql -Atc 'select greeting from greetings order by language'"); got != "Guten Tag\nHello\nBonjour" {
			t.Errorf("PostgreSQL says %q", got)
		}
		if got := h.inside("demo", "curl -sk https://localhost/"); !strings.Contains(got, "<b>demo</b>") {
			t.Errorf("nginx says %q", got)
		}
	})
	t.Run("switch and back", func(t *testing.T) {
		h := h.with(t)
		before := h.inside("demo", "systemctl show -P ActiveEnterTimestampMonotonic postgresql")
		// The demo with one more unit and one more account.
		folder := t.TempDir()
		tool(t, "cp", filepath.Join(example(t, "demo"), "provision.nix"), filepath.Join(folder, "demo.nix"))
		writeFile(t, filepath.Join(folder, "provision.nix"), `{ imports = [ ./demo.nix ];
  environment.etc.marker.text = "two";
  users.users.guest = { isSystemUser = true; group = "users"; };
  systemd.services.marker = { wantedBy = [ "multi-user.target" ]; script = "exec sleep infinity"; };
}`)
		h.must("ensure", "demo", "--provision", folder)
		healthy("demo")
		if got := h.inside("demo", "cat /etc/marker; id -gn guest; systemctl is-active marker"); got != "twousers\nactive" {
			t.Errorf("after the switch: %q", got)
		}
		h.must("rollback", "demo")
		healthy("demo")
		if got := h.inside("demo", "test -e /etc/marker || echo gone; systemctl is-active marker || true"); got != "gone\ninactive" {
			t.Errorf("after the roll-back: %q", got)
		}
		if after := h.inside("demo", "systemctl show -P ActiveEnterTimestampMonotonic postgresql"); after != before {
			t.Error("PostgreSQL was started anew by a switch that is not about it")
		}
	})
	t.Run("a system that cannot be switched to", func(t *testing.T) {
		h := h.with(t)
		system := h.status("redis").System
		result := h.run("ensure", "redis", "--provision", provision(t, `{ system.activationScripts.broken = "exit 7"; }`))
		if result.status == 0 {
			t.Error("a failing activation is no failure")
		}
		if after := h.status("redis"); after.System != system || after.Status != "running" {
			t.Errorf("redis is %s with %s, was %s", after.Status, after.System, system)
		}
		healthy("redis")
	})
	t.Run("reboot", func(t *testing.T) {
		h := h.with(t)
		h.must("restart", "demo")
		healthy("demo")
		if got := h.inside("demo", "cd /; runuser -u s-dev -- psql -Atc 'select count(*) from greetings'"); got != "3" {
			t.Errorf("after a restart, PostgreSQL says %q", got)
		}
	})
}
