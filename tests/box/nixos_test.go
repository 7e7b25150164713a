package box_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devhost/tests/box"
)

// connectionLost is the status of ssh where the command did not end by itself.
const connectionLost = 255

// TestNixOSHost makes a NixOS host of the box, and a dev host of that by
// services.devhost. The channel is one of NixOS' own modules, see
// scripts/e2e-nixos.
func TestNixOSHost(t *testing.T) {
	channel := os.Getenv("DEVHOST_TEST_CHANNEL")
	if channel == "" {
		t.Skip("needs a channel of NixOS' own modules: make e2e-nixos")
	}
	h := box.StartBare(t)
	var figures []string
	h.Copy(channel, "/srv/nixos")
	for _, part := range []string{"modules", "lib", "packaging"} {
		h.Copy(filepath.Join(box.Sources(), part), "/srv/devhost/"+part)
	}
	h.Must("root", "cp /root/devhost /srv/devhost/devhost")

	// must is h.Must, but for a connection that a switch or a boot cuts: those
	// may do so, and each command here can be repeated.
	must := func(login, line string) string {
		t.Helper()
		result := h.Run(login, line)
		for range 3 {
			if result.Status != connectionLost {
				break
			}
			time.Sleep(time.Second)
			t.Logf("%s@box: the connection was cut: %s\n%s", login, line, h.Run("root", "journalctl -n 40 --no-pager -u sshd -u systemd-logind -u user@0").Stdout)
			result = h.Run(login, line)
		}
		if result.Status != 0 {
			t.Fatalf("%s@box: %s ended with %d:\n%s%s", login, line, result.Status, result.Stdout, result.Stderr)
		}
		return result.Stdout
	}

	// build makes a system with these services.devhost, and the box' profile
	// lead to it.
	build := func(services string) {
		t.Helper()
		must("root", fmt.Sprintf("nix-build --quiet /srv/nixos/nixos -A system -o /root/system --argstr system $(uname -m)-linux --arg configuration %s 2>&1 && nix-env -p %s --set \"$(readlink -f /root/system)\"",
			box.Quote("import /srv/nixos/bed/host.nix { devhost = /srv/devhost; services = "+services+"; }"), box.SystemProfile))
	}
	healthy := func() {
		t.Helper()
		units := strings.Fields(must("root", "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1"))
		if len(units) != 0 {
			t.Errorf("units that failed: %d %v", len(units), units)
		}
	}
	change := func() {
		t.Helper()
		must("root", box.SystemProfile+"/bin/switch-to-configuration switch 2>&1")
		figures = append(figures, "box: switched to its new system (the host)")
		healthy()
	}
	started := func() string {
		t.Helper()
		return must("root", "systemctl show -P ActiveEnterTimestampMonotonic devhost@one.service")
	}

	build("null")
	h.RestartBox()
	figures = append(figures, "box: started (the host)")
	healthy()
	if release := must("root", "cat /etc/os-release"); !strings.Contains(release, "ID=nixos") {
		t.Fatalf("the box is not NixOS: %s", release)
	}

	const settings = `enable = true; publicAddress = "box.example"; `
	build("{ " + settings + "}")
	change()
	must("alice", "sudo -n devhost ensure one --channel /srv/nixos --provision /srv/examples/demo --alias www 2>&1")
	figures = append(figures, "one: created (in the box)")
	if got := must("alice", "sudo -n devhost exec one -- systemctl is-system-running"); got != "running\n" {
		t.Errorf("the container is %q", got)
	}
	if got := must("alice", "sudo -n devhost ssh one -- sudo -n id -un"); got != "root\n" {
		t.Errorf("ssh into the container says %q", got)
	}
	address := strings.TrimSpace(must("alice", "sudo -n devhost ip one"))
	if got := must("alice", "getent ahostsv4 one"); !strings.HasPrefix(got, address+" ") {
		t.Errorf("on the host, one is %q, not %s", got, address)
	}

	began := started()
	build("{ " + settings + `defaults.memory = "1G"; expiry.stopAfter = "20d"; }`)
	change()
	if after := started(); after != began {
		t.Error("a switch of the host has started the container anew")
	}
	if got := must("alice", "getent ahostsv4 one"); !strings.HasPrefix(got, address+" ") {
		t.Errorf("after a switch of the host, one is %q, not %s", got, address)
	}
	must("alice", "sudo -n devhost ensure one --alias www --alias shop 2>&1")

	h.RestartBox()
	figures = append(figures, "box: started (the host)", "one: started (in the box)")
	healthy()
	if got := must("alice", "sudo -n devhost exec one -- systemctl is-system-running --wait"); got != "running\n" {
		t.Errorf("after a reboot of the host, the container is %q", got)
	}
	if got := must("alice", "getent ahostsv4 one"); !strings.HasPrefix(got, address+" ") {
		t.Errorf("after a reboot of the host, one is %q, not %s", got, address)
	}
	must("alice", "sudo -n devhost destroy one --missing-ok 2>&1")
	if path := os.Getenv("DEVHOST_TEST_FIGURES"); path != "" {
		if err := os.WriteFile(path, []byte(strings.Join(figures, "\n")+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
}
