package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devhost/internal/container"
	"devhost/internal/disk/disktest"
	"devhost/internal/registry"
)

// The steps of a clone of a running container, in their order.
var cloneSteps = []string{
	container.StepClone, container.StepHold, container.StepCopy, container.StepRelease, container.StepAllocate,
	container.StepFiles, container.StepProfile, container.StepStart, container.StepReady, container.StepPublish,
}

// awake looks whether a container does what it is told.
func (h *host) awake(name string) {
	h.t.Helper()
	if found := h.inside(name, "cat /root/file"); found != "kept" {
		h.t.Errorf("the file in %s holds %q", name, found)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/devhost-%s/%s/cgroup.freeze", "/sys/fs/cgroup/*/devhost-%s/%s/cgroup.freeze", "/sys/fs/cgroup/*/devhost-%s/%s/freezer.state"} {
		files, _ := filepath.Glob(fmt.Sprintf(pattern, h.layout.Instance(), name))
		for _, file := range files {
			if text := strings.TrimSpace(readFile(h.t, file)); text != "0" && text != "THAWED" {
				h.t.Errorf("%s holds %q", file, text)
			}
		}
	}
}

// TestClone is short enough for every run.
func TestClone(t *testing.T) {
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"), "--alias", "www", "--memory", "700M")
	h.inside("source", "echo kept >/root/file")
	calls, called := poisoned(t, "nix-build", "nix-instantiate")
	quiet := h.with(t)
	quiet.env = []string{"PATH=" + calls + ":" + os.Getenv("PATH")}
	if output := quiet.must("clone", "source", "copy"); !strings.Contains(output, "copy: cloned from source by ") || !strings.Contains(output, "frozen meanwhile") {
		t.Errorf("clone says %q", output)
	}
	if built := called(); built != "" {
		t.Errorf("a clone called:\n%s", built)
	}
	source, copied := h.status("source"), h.status("copy")
	if copied.Status != "running" || copied.System != source.System || copied.Limits != source.Limits || len(copied.Aliases) != 0 ||
		copied.IPv4 == source.IPv4 || copied.IPv6 == source.IPv6 && source.IPv6 != "" {
		t.Errorf("the source is %+v,\nthe clone is  %+v", source, copied)
	}
	h.awake("source")
	h.awake("copy")
	// Each is a machine of its own.
	for what, script := range map[string]string{"name": "hostname", "machine id": "cat /etc/machine-id", "host key": "cat /run/devhost/ssh/ssh_host_ed25519_key.pub"} {
		if one, other := h.inside("source", script), h.inside("copy", script); one == other || other == "" {
			t.Errorf("the source's %s is %q, the clone's %q", what, one, other)
		}
	}
	if one, other := readFile(t, filepath.Join(h.layout.SSH("source"), "id_ed25519")), readFile(t, filepath.Join(h.layout.SSH("copy"), "id_ed25519")); one == other {
		t.Error("both have one key")
	}
	if found := strings.TrimSpace(h.must("ssh", "copy", "hostname")); found != "copy" {
		t.Errorf("by ssh it is %q", found)
	}
	h.inside("copy", "echo other >/root/file")
	h.awake("source")
	h.checkConsistent("copy")
	h.checkConsistent("source")
	if output := h.must("ensure", "copy"); !strings.HasPrefix(output, "copy: unchanged") {
		t.Errorf("ensure of the clone says %q", output)
	}
	// It lives without its source.
	h.must("destroy", "source")
	h.must("restart", "copy")
	h.must("ssh", "copy", "true")
}

func TestCloneOfAStoppedContainer(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "demo"))
	h.inside("source", "echo kept >/root/file")
	sql := func(name, query string) string {
		var output string
		waitFor(t, "the database answers", func() bool {
			result := h.run("exec", "--user", "s-dev", name, "--", "psql", "-Atc", query)
			output = strings.TrimSpace(result.stdout)
			return result.status == 0
		})
		return output
	}
	sql("source", "CREATE TABLE survivors (n int); INSERT INTO survivors VALUES (7)")
	t.Run("frozen", func(t *testing.T) {
		h := h.with(t)
		h.must("clone", "source", "frozen")
		if rows := sql("frozen", "SELECT n FROM survivors"); rows != "7" {
			t.Errorf("the database's row is %q", rows)
		}
	})
	t.Run("stopped meanwhile", func(t *testing.T) {
		h := h.with(t)
		before := h.status("source").StartedAt
		if output := h.must("clone", "source", "halted", "--stop", "--no-start"); !strings.Contains(output, "stopped meanwhile; it is stopped") {
			t.Errorf("clone says %q", output)
		}
		if status := h.status("source"); status.Status != "running" || status.StartedAt.Equal(before) {
			t.Errorf("the source is %+v", status)
		}
		if status := h.status("halted"); status.Status != "stopped" || status.IPv4 == "" {
			t.Errorf("the clone is %+v", status)
		}
		h.must("start", "halted")
		if rows := sql("halted", "SELECT n FROM survivors"); rows != "7" {
			t.Errorf("the database's row is %q", rows)
		}
	})
	t.Run("of a stopped one", func(t *testing.T) {
		h := h.with(t)
		h.must("stop", "source")
		var result container.CloneResult
		h.decode(&result, "clone", "source", "still", "--json")
		if result.Started || result.State != "stopped" || result.Container.Enabled {
			t.Errorf("%+v", result)
		}
		if status := h.status("still"); status.Status != "stopped" {
			t.Errorf("the clone is %+v", status)
		}
		if status := h.status("source"); status.Status != "stopped" {
			t.Errorf("the source is %+v", status)
		}
		h.must("start", "still")
		h.awake("still")
	})
	// The collector leaves what clones need.
	h.must("destroy", "source", "frozen")
	h.must("stop", "halted")
	system := h.status("halted").System
	if output, err := exec.Command("nix-store", "--query", "--roots", system).CombinedOutput(); err != nil || !strings.Contains(string(output), h.layout.Instance()) {
		t.Errorf("%s is kept by %s (%v)", system, output, err)
	}
	h.must("start", "halted")
}

func TestCloneRefuses(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.must("ensure", "other", "--channel", offline(t), "--provision", example(t, "minimal"))
	for _, test := range []struct {
		status int
		text   string
		args   []string
	}{
		{4, "there is no container none", []string{"none", "new"}},
		{1, "already", []string{"source", "other"}},
		{1, "already", []string{"source", "source"}},
		{2, "cannot be a container's name", []string{"source", "../new"}},
		{2, "cannot be a container's name", []string{"source", "1234"}},
		{2, "cannot be a container's name", []string{"../../etc", "new"}},
		{2, "localhost", []string{"source", "localhost"}},
		{2, "devhost clone NAME NEW", []string{"source"}},
		{2, "devhost clone NAME NEW", []string{"source", "a", "b"}},
		{2, "clone has no option --stopp; did you mean --stop?", []string{"source", "new", "--stopp"}},
	} {
		h.fails(test.status, []string{test.text}, append([]string{"clone"}, test.args...)...)
	}
	h.checkListed("other", "source")
	if left, _ := os.ReadDir(h.layout.Containers()); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	h.must("ssh", "other", "true")
}

// TestCloneOfAHostileGuest: links that a guest makes lead nowhere.
func TestCloneOfAHostileGuest(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	victim := filepath.Join(t.TempDir(), "victim")
	for _, script := range []string{
		"rm -rf /etc/machine-id; ln -s " + victim + " /etc/machine-id",
		"rm -rf /etc/ssh; mkfifo /etc/ssh",
		"rm -rf /etc/ssh; ln -s / /etc/ssh",
		"rm -rf /var/lib/systemd; mkdir -p /var/lib; ln -s " + filepath.Dir(victim) + " /var/lib/systemd; touch /root/random-seed",
		"mkdir -p /var/lib; rm -rf /var/lib/dbus; ln -s ../../../../../../../../.." + filepath.Dir(victim) + " /var/lib/dbus",
	} {
		t.Run(script, func(t *testing.T) {
			h := h.with(t)
			for _, name := range []string{"victim", "random-seed", "machine-id"} {
				if err := os.WriteFile(filepath.Join(filepath.Dir(victim), name), []byte("untouched"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
			h.inside("source", script)
			// Whether it works is the guest's own affair.
			h.run("clone", "source", "copy", "--no-start")
			for _, name := range []string{"victim", "random-seed", "machine-id"} {
				if text := readFile(t, filepath.Join(filepath.Dir(victim), name)); text != "untouched" {
					t.Errorf("%s holds %q", name, text)
				}
			}
			h.must("destroy", "--missing-ok", "copy", "source")
		})
	}
}

func TestCloneKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.inside("source", "echo kept >/root/file")
	for _, args := range [][]string{{"clone", "source", "new"}, {"clone", "source", "new", "--stop"}} {
		for i, step := range cloneSteps {
			// Another one for each way of cloning.
			next := []string{"start", "clone", "destroy"}[(i+len(args))%3]
			t.Run(strings.Join(args, " ")+" at "+step+", then "+next, func(t *testing.T) {
				h := h.with(t)
				h.killAt(step, args...)
				if result := h.run("list"); result.status != 0 || !strings.Contains(result.stdout, "source") || strings.Contains(result.stdout, "broken") {
					t.Errorf("list ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
				}
				switch next {
				case "start":
					h.must("start", "source")
				case "clone":
					h.must(args...)
					h.awake("new")
					h.checkConsistent("new")
				case "destroy":
					h.must("destroy", "--missing-ok", "new")
					h.must("start", "source")
				}
				h.awake("source")
				h.checkConsistent("source")
				h.must("destroy", "--missing-ok", "new")
				h.checkListed("source")
				h.checkTemporaryEmpty()
			})
		}
	}
	// A source that is held can be stopped and destroyed.
	for _, end := range [][]string{{"stop", "source"}, {"destroy", "source"}} {
		t.Run("killed, then "+end[0], func(t *testing.T) {
			h := h.with(t)
			h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
			h.killAt(container.StepCopy, "clone", "source", "new")
			h.must(end...)
			h.must("destroy", "--missing-ok", "new")
		})
	}
	h.checkGone()
}

// TestKilledCloneLetsGo: nobody needs to call devhost for what a killed clone
// has frozen.
func TestKilledCloneLetsGo(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
	for range 2 {
		h.killAt(container.StepCopy, "clone", "source", "new")
		if found := strings.TrimSpace(h.must("ssh", "source", "echo alive")); found != "alive" {
			t.Errorf("it says %q", found)
		}
		waitFor(t, "the journal is gone", func() bool { _, err := os.Stat(h.layout.Journal("source")); return err != nil })
	}
	h.must("destroy", "--missing-ok", "new")
}

func TestInterruptedClone(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.inside("source", "echo kept >/root/file")
	const interrupted = 130
	for _, args := range [][]string{{"clone", "source", "new"}, {"clone", "source", "new", "--stop"}} {
		// What is let go is not held up by a Ctrl-C.
		for _, step := range slices.DeleteFunc(slices.Clone(cloneSteps), func(step string) bool { return step == container.StepPublish }) {
			t.Run(strings.Join(args, " ")+" at "+step, func(t *testing.T) {
				h := h.with(t)
				result := h.finish(h.atCommand(interruptAtVariable, step, args...))
				if result.status != interrupted || !strings.Contains(result.stderr, "nothing of it is left") {
					t.Errorf("ended with %d:\n%s", result.status, result.stderr)
				}
				h.awake("source")
				h.checkConsistent("source")
				h.checkListed("source")
				h.checkTemporaryEmpty()
			})
		}
	}
}

// TestCloneOnAFullDisk leaves nothing, and the source goes on.
func TestCloneOnAFullDisk(t *testing.T) {
	needsFullRun(t)
	mount := disktest.Mount(t, disktest.Kind{Name: "ext4", Make: []string{"mkfs.ext4", "-q"}, Options: "defaults"}, 160<<20)
	h := hostAt(t, filepath.Join(mount, "state"))
	h.must("ensure", "source", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.inside("source", "echo kept >/root/file; head -c 80M /dev/urandom >/root/big")
	h.fails(1, []string{"No space left", "nothing of it is left"}, "clone", "source", "new")
	h.fails(1, []string{"No space left", "there is no snapshot full"}, "snapshot", "create", "source", "full")
	h.awake("source")
	h.checkConsistent("source")
	h.checkListed("source")
	if found := h.must("snapshot", "list", "source", "--json"); strings.TrimSpace(found) != "[]" {
		t.Errorf("the snapshots are %s", found)
	}
	h.inside("source", "rm /root/big")
	h.must("clone", "source", "new")
	h.must("destroy", "source", "new")
}

// TestGrowingOfABatouContainer: the system that fc-manage built comes along.
func TestGrowingOfABatouContainer(t *testing.T) {
	needsFullRun(t)
	b := newBatou(t)
	url := fcChannel(t)
	b.expect(0, "fc-build-dev-container", "ensure", "box", url, "app")
	inside := b.login("box")
	deploy := func(text string) string {
		t.Helper()
		module := filepath.Join(t.TempDir(), "provision.nix")
		writeFile(t, module, `{ environment.etc."provisioned".text = "`+text+`"; }`)
		inside.copy(module, "/etc/local/nixos/provision-container.nix")
		inside.must("sudo -i fc-manage -c")
		return inside.must("readlink /run/current-system")
	}
	first := deploy("one")
	b.must("snapshot", "create", "box", "one")
	b.must("clone", "box", "copy")
	if found := b.inside("copy", "readlink /run/current-system; cat /etc/provisioned; echo; hostname"); found != first+"\none\ncopy" {
		t.Errorf("the clone says %q", found)
	}
	second := deploy("two")
	if second == first {
		t.Fatal("fc-manage built nothing")
	}
	b.must("snapshot", "restore", "box", "one")
	if found := b.inside("box", "readlink /run/current-system; cat /etc/provisioned"); found != first+"\none" {
		t.Errorf("after the restore it says %q", found)
	}
	b.must("rename", "box", "crate")
	if found := b.inside("crate", "readlink /run/current-system; cat /etc/provisioned"); found != first+"\none" {
		t.Errorf("after the renaming it says %q", found)
	}
	// The collector follows the links of all of them.
	roots := tool(t, "env", "NIX_REMOTE=daemon", "nix-store", "--gc", "--print-roots")
	const link = "nix/var/nix/profiles/devhost-system"
	kept := registry.SnapshotRoot(b.layout.Snapshot("crate", b.snapshots("crate")[1].Name))
	for folder, system := range map[string]string{
		b.layout.Root("copy"): first, b.layout.Root("crate"): first, registry.SnapshotRoot(b.layout.Snapshot("crate", "one")): first, kept: second,
	} {
		if !strings.Contains(roots, filepath.Join(folder, link)+" -> "+system) {
			t.Errorf("the collector would take the system of %s:\n%s", folder, grep(roots, b.layout.State))
		}
	}
	// What was a snapshot can be brought back.
	b.must("snapshot", "restore", "crate", b.snapshots("crate")[1].Name)
	if found := b.inside("crate", "readlink /run/current-system; cat /etc/provisioned"); found != second+"\ntwo" {
		t.Errorf("after going forth it says %q", found)
	}
}
