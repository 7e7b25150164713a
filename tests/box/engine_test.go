package box_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/tests/box"
)

// TestEngineConformance runs the tests of the engine systemd, with those that
// every engine passes, where PID 1 is systemd.
func TestEngineConformance(t *testing.T) {
	needsFullRun(t)
	h := box.StartBare(t)
	// nspawn binds it.
	h.Must("root", "mkdir -p /nix/store")
	h.GoTest("devhost/internal/engine/systemd")
}

// TestMachinectl drives containers by the tools of systemd.
func TestMachinectl(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	const name = "my-demo"
	h.Must("alice", "sudo devhost ensure "+name+" "+minimal)
	is := func(wanted string) {
		t.Helper()
		eventually(t, func() string { return cmp.Diff(wanted, status(h)[name]) })
	}
	leader := func() string {
		t.Helper()
		return h.Must("root", "machinectl show --property Leader --value "+name)
	}
	rebooted := func(before string) {
		t.Helper()
		eventually(t, func() string {
			if result := h.Run("root", "machinectl show --property Leader --value "+name); result.Status != 0 || result.Stdout == before {
				return "it has not rebooted: " + result.Stdout + result.Stderr
			}
			return ""
		})
		is("running")
	}
	if unit := strings.TrimSpace(h.Must("root", "machinectl show --property Unit --value "+name)); unit != "devhost@"+name+".service" {
		t.Errorf("its unit is %s", unit)
	}
	if text := h.Must("root", "machinectl status --no-pager "+name); !strings.Contains(text, "sshd") {
		t.Errorf("machinectl status says %s", text)
	}
	if changed := h.Must("root", "systemctl show --property NeedDaemonReload --value devhost@"+name); changed != "no\n" {
		t.Error("systemd asks for a daemon-reload")
	}

	h.Must("root", "machinectl poweroff "+name)
	is("stopped")
	h.Must("alice", "sudo devhost start "+name)
	before := leader()
	h.Must("root", "machinectl reboot "+name)
	rebooted(before)
	before = leader()
	h.Must("alice", "sudo devhost exec "+name+" -- systemctl reboot")
	rebooted(before)

	h.Must("root", "systemctl stop devhost@"+name)
	is("stopped")
	h.Must("root", "systemctl start devhost@"+name)
	is("running")
	h.Must("root", "systemctl restart devhost@"+name)
	is("running")
	h.Must("root", "systemctl kill --signal KILL devhost@"+name)
	is("failed")
	h.Must("bob", "sudo devhost start "+name)

	// Root has no password inside, so it is the question that is waited for.
	pause := 1
	eventually(t, func() string {
		pause *= 2
		prompt := h.Must("root", fmt.Sprintf("(sleep %d; printf '\\035\\035\\035') | script -qc 'machinectl login %s' /dev/null", pause, name))
		if !strings.Contains(prompt, name+" login:") {
			return fmt.Sprintf("machinectl login says %q", prompt)
		}
		return ""
	})
	console := h.Must("alice", "sudo devhost logs --console "+name)
	for _, text := range []string{"Reached target", "starting"} {
		if !strings.Contains(console, text) {
			t.Errorf("the console lacks %q:\n%s", text, console)
		}
	}
	h.Must("alice", "sudo devhost stop "+name)
	if stopped := h.Must("alice", "sudo devhost logs -n 5 "+name); strings.Count(stopped, "\n") != 5 {
		t.Errorf("of a stopped container, logs shows %q", stopped)
	}
}

// TestLimitsOfUnits gives limits, changes them, and takes them away.
func TestLimitsOfUnits(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	limits := func() string {
		return h.Must("root", "systemctl show devhost@demo --property MemoryMax,CPUQuotaPerSecUSec,TasksMax,IOWeight")
	}
	h.Must("alice", "sudo devhost ensure demo --memory 512M --cpus 1.5 --tasks 1000 --io-weight 50 "+minimal)
	if diff := cmp.Diff("CPUQuotaPerSecUSec=1.500000s\nIOWeight=50\nMemoryMax=536870912\nTasksMax=1000\n", limits()); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	h.Must("alice", "sudo devhost ensure demo --memory 0 --cpus 0 --tasks 500 --io-weight 0")
	want := "CPUQuotaPerSecUSec=infinity\nIOWeight=[not set]\nMemoryMax=infinity\nTasksMax=500\n"
	if diff := cmp.Diff(want, limits()); diff != "" {
		t.Errorf("changed limits (-want +got):\n%s", diff)
	}
	h.Must("alice", "sudo devhost restart demo")
	if diff := cmp.Diff(want, limits()); diff != "" {
		t.Errorf("limits after a restart (-want +got):\n%s", diff)
	}
}

// TestResolversAreKeptCurrent changes the host's resolvers under a guest.
func TestResolversAreKeptCurrent(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure demo "+minimal)
	h.Must("root", "rm -f /etc/resolv.conf && echo nameserver 192.0.2.53 >/etc/resolv.conf")
	eventually(t, func() string {
		text := h.Must("alice", "sudo devhost exec demo -- cat /etc/resolv.conf")
		if !strings.Contains(text, "192.0.2.53") {
			return "the guest asks others:\n" + text
		}
		return ""
	})
}

// TestBootWithFailures starts what can be started.
func TestBootWithFailures(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	for _, name := range []string{"well", "broken"} {
		h.Must("alice", "sudo devhost ensure "+name+" "+minimal)
	}
	// Its record names a system that is not there any more.
	h.Must("root", "systemctl stop devhost@well devhost@broken && cd /var/lib/devhost/containers/broken && sed -i 's|/nix/store/[a-z0-9]*-|/nix/store/00000000000000000000000000000000-|' container.json")
	result := h.Fails("root", "devhost boot", 1, "broken", "1 of 2 containers did not start")
	if !strings.Contains(result.Stdout, "well: started") {
		t.Errorf("boot says %q", result.Stdout)
	}
	if diff := cmp.Diff("running", status(h)["well"]); diff != "" {
		t.Errorf("the other one (-want +got):\n%s", diff)
	}
	if again := h.Fails("root", "devhost boot --json", 1); !strings.Contains(again.Stdout, `"runs already"`) {
		t.Errorf("once more, boot says %q", again.Stdout)
	}
}

// TestBootRepairs ends what a crash of the host cut short, in the sandbox of the
// unit.
func TestBootRepairs(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure half "+minimal)
	h.Must("alice", "sudo devhost ensure whole "+minimal)
	// As if the host had gone down in the middle of its first ensure. systemd
	// makes some folders immutable.
	h.Must("root", `systemctl stop devhost@half devhost-boot && cd /var/lib/devhost/containers/half &&
		chattr +i root/var/empty && echo '{"version":1,"operation":"create","step":"ready"}' >journal.json`)
	h.RestartBox()
	if diff := cmp.Diff(map[string]string{"whole": "running"}, status(h)); diff != "" {
		t.Errorf("after the start, there are other containers (-want +got):\n%s\n%s", diff, h.Must("root", "journalctl --unit devhost-boot --no-pager"))
	}
	if left := h.Must("root", "ls /var/lib/devhost/containers"); left != "whole\n" {
		t.Errorf("there are folders of %q", left)
	}
}
