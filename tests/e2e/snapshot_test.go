package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/container"
)

// The steps of making a snapshot, and of bringing one back, in their order.
var (
	snapshotSteps = []string{container.StepHold, container.StepCopy, container.StepRelease}
	restoreSteps  = []string{container.StepStop, container.StepCopy, container.StepSwap, container.StepRecord}
)

type snapshot struct {
	Name, State, Way, System string
	Automatic                bool
}

func (h *host) snapshots(name string) []snapshot {
	h.t.Helper()
	var found []snapshot
	h.decode(&found, "snapshot", "list", name, "--json")
	return found
}

// TestSnapshot goes back and forth between two systems.
func TestSnapshot(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	text := readFile(t, filepath.Join(example(t, "minimal"), "provision.nix"))
	one, two := withFile(t, text, "extra", "one"), withFile(t, text, "extra", "two")
	look := func(name string) string { return h.inside(name, "cat /root/file /etc/extra") }
	h.must("ensure", "box", "--channel", offline(t), "--provision", one, "--alias", "www")
	h.inside("box", "echo first >/root/file")
	first := h.status("box")
	if output := h.must("snapshot", "create", "box", "first"); !strings.Contains(output, "box: snapshot first, by ") || !strings.Contains(output, "frozen") {
		t.Errorf("snapshot create says %q", output)
	}
	h.must("ensure", "box", "--provision", two, "--alias", "www", "--alias", "api")
	h.inside("box", "echo second >/root/file")
	second := h.status("box")
	if output := h.must("snapshot", "create", "box", "second", "--stop"); !strings.Contains(output, "stopped") {
		t.Errorf("snapshot create says %q", output)
	}
	h.must("snapshot", "restore", "box", "first")
	if found := look("box"); found != "first\none" {
		t.Errorf("after the restore there is %q", found)
	}
	status := h.status("box")
	if status.System != first.System || status.IPv4 != first.IPv4 || len(status.Aliases) != 2 || status.Status != "running" {
		t.Errorf("after the restore it is %+v", status)
	}
	h.checkConsistent("box")
	found := h.snapshots("box")
	if len(found) != 3 || found[0].Name != "first" || found[1].Name != "second" || !found[2].Automatic || found[2].System != second.System {
		t.Fatalf("the snapshots are %+v", found)
	}
	// A later ensure knows what the provision was.
	if output := h.must("ensure", "box"); !strings.HasPrefix(output, "box: unchanged") {
		t.Errorf("ensure says %q", output)
	}
	// What was there before can be brought back, while the container is stopped.
	h.must("stop", "box")
	h.must("snapshot", "restore", "box", found[2].Name)
	if status := h.status("box"); status.Status != "stopped" || status.System != second.System {
		t.Errorf("a stopped one is %+v", status)
	}
	h.must("start", "box")
	if found := look("box"); found != "second\ntwo" {
		t.Errorf("after going back there is %q", found)
	}
	h.checkConsistent("box")
	// Snapshots are not cloned, move with a renaming, and can be removed.
	h.must("clone", "box", "copy", "--no-start")
	if found := h.snapshots("copy"); len(found) != 0 {
		t.Errorf("the clone has %+v", found)
	}
	h.must("rename", "box", "crate")
	h.must("snapshot", "restore", "crate", "first")
	if found := look("crate"); found != "first\none" {
		t.Errorf("after a renaming there is %q", found)
	}
	for _, one := range h.snapshots("crate") {
		h.must("snapshot", "remove", "crate", one.Name)
	}
	if left, _ := os.ReadDir(h.layout.Snapshots("crate")); len(left) != 0 || len(h.snapshots("crate")) != 0 {
		t.Errorf("left: %v", left)
	}
	if roots, _ := filepath.Glob(filepath.Join(h.layout.GCRoots(), "*", "snapshot.*")); len(roots) != 0 {
		t.Errorf("left: %v", roots)
	}
	h.must("ssh", "crate", "true")
}

func TestSnapshotRefuses(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "box", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.must("snapshot", "create", "box", "one")
	for _, test := range []struct {
		status int
		text   string
		args   []string
	}{
		{4, "there is no container none", []string{"create", "none"}},
		{2, "has one of that name", []string{"create", "box", "one"}},
		{2, "cannot be a snapshot's name", []string{"create", "box", "../one"}},
		{2, "cannot be a snapshot's name", []string{"create", "box", "one.new"}},
		{2, "cannot be a snapshot's name", []string{"restore", "box", "../../other/root"}},
		{2, "cannot be a snapshot's name", []string{"remove", "box", "."}},
		{4, "has no snapshot two", []string{"restore", "box", "two"}},
		{4, "has no snapshot two", []string{"remove", "box", "two"}},
		{2, "devhost snapshot restore NAME SNAPSHOT", []string{"restore", "box"}},
		{2, "has no command", []string{"crate"}},
		{2, "has no option --stopp; did you mean --stop?", []string{"create", "box", "--stopp"}},
	} {
		h.fails(test.status, []string{test.text}, append([]string{"snapshot"}, test.args...)...)
	}
	// A damaged one is listed, and can only be removed.
	if err := os.WriteFile(filepath.Join(h.layout.Snapshots("box"), "one/snapshot.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if result := h.run("snapshot", "list", "box"); result.status != 0 || !strings.Contains(result.stdout, "broken") {
		t.Errorf("list ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
	}
	h.fails(1, []string{"devhost snapshot remove box one"}, "snapshot", "restore", "box", "one")
	h.must("snapshot", "remove", "box", "one")
	h.checkConsistent("box")
}

func TestSnapshotKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	text := readFile(t, filepath.Join(example(t, "minimal"), "provision.nix"))
	one, two := withFile(t, text, "extra", "one"), withFile(t, text, "extra", "two")
	h.must("ensure", "box", "--channel", offline(t), "--provision", one)
	h.inside("box", "echo kept >/root/file; echo first >/root/state")
	h.must("snapshot", "create", "box", "base")
	h.must("ensure", "box", "--provision", two)
	h.inside("box", "echo second >/root/state")
	for _, args := range [][]string{{"snapshot", "create", "box", "new"}, {"snapshot", "create", "box", "new", "--stop"}} {
		for _, step := range snapshotSteps {
			t.Run(strings.Join(args, " ")+" at "+step, func(t *testing.T) {
				h := h.with(t)
				h.killAt(step, args...)
				h.must("start", "box")
				h.awake("box")
				h.checkConsistent("box")
				if found := h.snapshots("box"); len(found) == 2 {
					// It was whole already.
					h.must("snapshot", "remove", "box", "new")
				} else {
					h.must(args...)
					h.must("snapshot", "remove", "box", "new")
				}
			})
		}
	}
	for _, state := range []string{"running", "stopped"} {
		for _, step := range restoreSteps {
			for _, signal := range []string{killAtVariable, interruptAtVariable} {
				t.Run("restore of a "+state+" one at "+step+" by "+signal, func(t *testing.T) {
					h := h.with(t)
					h.must("ensure", "box", "--provision", two)
					h.inside("box", "echo second >/root/state")
					if state == "stopped" {
						h.must("stop", "box")
					}
					h.finish(h.atCommand(signal, step, "snapshot", "restore", "box", "base"))
					if state == "stopped" {
						h.must("snapshot", "create", "box", "probe")
						h.must("snapshot", "remove", "box", "probe")
						if status := h.status("box"); status.Status != "stopped" {
							t.Errorf("it is %+v", status)
						}
					}
					h.must("start", "box")
					h.awake("box")
					h.checkConsistent("box")
					found := h.inside("box", "cat /root/state /etc/extra")
					snapshots := h.snapshots("box")
					switch {
					case found == "second\ntwo" && len(snapshots) == 1:
						if step == container.StepRecord {
							t.Error("it went back behind the point of no return")
						}
					case found == "first\none" && len(snapshots) == 2:
						if step != container.StepRecord {
							t.Error("it went on before the point of no return")
						}
						h.must("snapshot", "restore", "box", snapshots[1].Name)
						if found := h.inside("box", "cat /root/state /etc/extra"); found != "second\ntwo" {
							t.Errorf("what was there before is %q", found)
						}
					default:
						t.Errorf("there is %q, with the snapshots %+v", found, snapshots)
					}
					for _, one := range h.snapshots("box") {
						if one.Automatic {
							h.must("snapshot", "remove", "box", one.Name)
						}
					}
				})
			}
		}
	}
	t.Run("remove", func(t *testing.T) {
		h := h.with(t)
		h.killAt(container.StepRemove, "snapshot", "remove", "box", "base")
		if found := h.snapshots("box"); len(found) != 0 {
			t.Errorf("the snapshots are %+v", found)
		}
		h.must("snapshot", "remove", "box", "base")
		if left, _ := os.ReadDir(h.layout.Snapshots("box")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}
