package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/container"
)

// The steps of a renaming of a running container, in their order.
var renameSteps = []string{
	container.StepStop, container.StepMove, container.StepRecord, container.StepProfile, container.StepFiles, container.StepPublish, container.StepStart,
}

// checkName looks whether a container goes by a name everywhere, and none by
// another one.
func (h *host) checkName(name, old string) {
	h.t.Helper()
	h.checkConsistent(name)
	ip := h.ip(name)
	if output, err := exec.Command("getent", "ahostsv4", name).CombinedOutput(); err != nil || !strings.HasPrefix(string(output), ip+" ") {
		h.t.Errorf("%s is %s (%v), not %s", name, output, err, ip)
	}
	if output, err := exec.Command("getent", "ahostsv4", old).CombinedOutput(); err == nil {
		h.t.Errorf("%s resolves to %s", old, output)
	}
	if found := h.inside(name, "hostname; cat /run/devhost/name"); found != name+"\n"+name {
		h.t.Errorf("inside it is called %q", found)
	}
	if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
		h.t.Errorf("by ssh it is %q", found)
	}
	for _, pattern := range []string{
		h.layout.Container(old), h.layout.ProfileFolder(old), filepath.Join(h.layout.GCRoots(), old), filepath.Join(h.layout.Published(), old+".json"),
		filepath.Join(h.layout.Published(), "vm-configs", old+".json"), h.layout.RuntimeRecord(old), "/sys/fs/cgroup/*/devhost-" + h.layout.Instance() + "/" + old,
	} {
		if found, _ := filepath.Glob(pattern); len(found) != 0 {
			h.t.Errorf("still there: %v", found)
		}
	}
	for _, path := range []string{filepath.Join(h.layout.Published(), name+".json"), filepath.Join(h.layout.GCRoots(), name, "system"), h.layout.Profile(name)} {
		if _, err := os.Stat(path); err != nil {
			h.t.Error(err)
		}
	}
}

func TestRename(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	instance := h.layout.Instance()
	old, name := "old"+instance, "new"+instance
	text := readFile(t, filepath.Join(example(t, "minimal"), "provision.nix"))
	h.must("ensure", old, "--channel", offline(t), "--provision", withFile(t, text, "extra", "one"), "--alias", "www")
	h.must("ensure", old, "--provision", withFile(t, text, "extra", "two"))
	h.inside(old, "echo kept >/root/file")
	before := h.status(old)
	if output := h.must("rename", old, name); output != old+": is called "+name+" now\n" {
		t.Errorf("rename says %q", output)
	}
	h.checkName(name, old)
	h.awake(name)
	if after := h.status(name); after.IPv4 != before.IPv4 || after.System != before.System || len(after.Aliases) != 1 || after.Status != "running" {
		t.Errorf("it was %+v\nand is %+v", before, after)
	}
	h.fails(4, []string{"there is no container " + old}, "start", old)
	// Its generations came with it, and its old name is free.
	h.must("rollback", name)
	if found := h.inside(name, "cat /etc/extra"); found != "one" {
		t.Errorf("after rollback there is %q", found)
	}
	h.must("ensure", old, "--channel", offline(t), "--provision", example(t, "minimal"))
	if h.ip(old) == h.ip(name) {
		t.Error("both have one address")
	}
	h.must("ssh", old, "true")
	h.must("ssh", name, "true")
	for _, test := range []struct {
		status int
		text   string
		args   []string
	}{
		{1, "already", []string{name, old}},
		{1, "already", []string{name, name}},
		{4, "there is no container none", []string{"none", "new"}},
		{2, "cannot be a container's name", []string{name, "../new"}},
		{2, "localhost", []string{name, "localhost"}},
		{2, "devhost rename NAME NEW", []string{name}},
	} {
		h.fails(test.status, []string{test.text}, append([]string{"rename"}, test.args...)...)
	}
	// A stopped one stays stopped.
	h.must("destroy", old)
	h.must("stop", name)
	h.must("rename", name, old)
	if status := h.status(old); status.Status != "stopped" || status.IPv4 != before.IPv4 {
		t.Errorf("it is %+v", status)
	}
	h.must("start", old)
	h.checkName(old, name)
}

func TestRenameKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	instance := h.layout.Instance()
	old, name := "old"+instance, "new"+instance
	h.must("ensure", old, "--channel", offline(t), "--provision", example(t, "minimal"))
	h.inside(old, "echo kept >/root/file")
	h.must("snapshot", "create", old, "kept")
	for i, step := range renameSteps {
		for j, by := range []string{killAtVariable, interruptAtVariable} {
			for k, next := range []string{"old", "new", "ensure"} {
				if by == interruptAtVariable && k != (i+j)%3 {
					// What follows is the same.
					continue
				}
				t.Run(by+" "+step+", then "+next, func(t *testing.T) {
					h := h.with(t)
					result := h.finish(h.atCommand(by, step, "rename", old, name))
					if result.status == 0 {
						t.Errorf("rename was not interrupted:\n%s", result.stderr)
					}
					if listed := h.run("list"); listed.status != 0 || strings.Contains(listed.stdout, "broken") {
						t.Errorf("list ended with %d:\n%s%s", listed.status, listed.stdout, listed.stderr)
					}
					now, gone := old, name
					if step != container.StepStop && step != container.StepMove {
						now, gone = name, old
					}
					switch next {
					case "old":
						h.run("start", old)
					case "new":
						h.run("start", name)
					case "ensure":
						// Another container of the name that is not used.
						h.must("ensure", gone, "--channel", offline(t), "--provision", example(t, "minimal"))
						h.must("ssh", gone, "true")
						h.must("start", now)
						h.must("ssh", gone, "true")
						h.checkConsistent(gone)
						h.must("destroy", gone)
					}
					h.must("start", now)
					h.checkListed(now)
					h.checkName(now, gone)
					h.awake(now)
					if found := h.snapshots(now); len(found) != 1 {
						t.Errorf("the snapshots are %+v", found)
					}
					h.checkTemporaryEmpty()
					if now == name {
						h.must("rename", name, old)
					}
				})
			}
		}
	}
	for _, step := range renameSteps {
		t.Run("killed at "+step+", then destroyed", func(t *testing.T) {
			h := h.with(t)
			h.must("ensure", old, "--channel", offline(t), "--provision", example(t, "minimal"))
			h.killAt(step, "rename", old, name)
			h.must("destroy", "--missing-ok", name, old)
			h.checkGone()
		})
	}
}
