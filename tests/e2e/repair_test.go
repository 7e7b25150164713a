package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/container"
	"devhost/internal/engine/supervisor"
)

// The steps of each change, in their order.
var (
	createSteps = []string{
		container.StepResolve, container.StepBuild, container.StepAllocate, container.StepFiles,
		container.StepProfile, container.StepStart, container.StepReady, container.StepPublish,
	}
	switchSteps = []string{
		container.StepFiles, container.StepProfile, container.StepRecord, container.StepSwitch, container.StepReady, container.StepPublish,
	}
	updateStoppedSteps = []string{
		container.StepFiles, container.StepProfile, container.StepRecord, container.StepStart, container.StepReady, container.StepPublish,
	}
	rollbackSteps = []string{container.StepProfile, container.StepRecord, container.StepSwitch}
	destroySteps  = []string{container.StepStop, container.StepRemove}
)

const killed = 128 + int(syscall.SIGKILL)

// killAt runs a command that is killed at a step.
func (h *host) killAt(step string, args ...string) {
	h.t.Helper()
	if result := h.finish(h.atCommand(killAtVariable, step, args...)); result.status != killed {
		h.t.Fatalf("%v never got to step %s: it ended with %d:\n%s", args, step, result.status, result.stderr)
	}
}

// checkConsistent looks whether record, profile and guest agree, and whether
// nothing is left of a change.
func (h *host) checkConsistent(name string) {
	h.t.Helper()
	status := h.status(name)
	all, current := h.generations(name)
	index := slices.IndexFunc(all, func(one generation) bool { return one.Number == current })
	if index < 0 || all[index].Path != status.System {
		h.t.Errorf("the record says %s, the generations are %+v", status.System, all)
	}
	if status.Status == "running" {
		if found := h.inside(name, "readlink -f /run/current-system"); found != status.System {
			h.t.Errorf("the guest runs %s, the record says %s", found, status.System)
		}
	}
	if _, err := os.Stat(h.layout.Journal(name)); err == nil {
		h.t.Error("there is still a journal")
	}
	h.checkTemporaryEmpty()
}

func (h *host) checkTemporaryEmpty() {
	h.t.Helper()
	if left, err := os.ReadDir(h.layout.Temporary()); err != nil || len(left) != 0 {
		h.t.Errorf("the temporary folder holds %v (%v)", left, err)
	}
}

// checkListed looks whether list still works.
func (h *host) checkListed(names ...string) {
	h.t.Helper()
	if found := strings.Fields(h.must("list", "--names")); !slices.Equal(found, names) {
		h.t.Errorf("list shows %v, not %v", found, names)
	}
}

// checkGone looks whether nothing is left of any container.
func (h *host) checkGone() {
	h.t.Helper()
	h.checkListed()
	if left, _ := os.ReadDir(h.layout.Containers()); len(left) != 0 {
		h.t.Errorf("left behind: %v", left)
	}
	h.checkTemporaryEmpty()
	h.checkNothingLeft()
}

func TestCreateKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	other := []string{"ensure", "other", "--channel", offline(t), "--provision", example(t, "minimal")}
	h.must(other...)
	for _, step := range createSteps {
		for _, next := range []string{"ensure", "destroy"} {
			t.Run(step+", then "+next, func(t *testing.T) {
				h := h.with(t)
				args := []string{"ensure", "new", "--channel", offline(t), "--provision", example(t, "minimal")}
				h.killAt(step, args...)
				if result := h.run("list"); result.status != 0 || !strings.Contains(result.stdout, "other") || strings.Contains(result.stdout, "broken") {
					t.Errorf("list ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
				}
				if next == "ensure" {
					if result := h.run(args...); result.status != 0 || !strings.Contains(result.stderr, "repairing") {
						t.Errorf("ensure ended with %d:\n%s", result.status, result.stderr)
					}
					h.checkConsistent("new")
					h.must("ssh", "new", "true")
				}
				h.must("destroy", "new")
				h.checkListed("other")
				h.checkTemporaryEmpty()
			})
		}
	}
	h.must("ssh", "other", "true")
	h.must("destroy", "other")
	h.killAt(container.StepStart, other...)
	h.must("destroy", "other")
	h.checkGone()
}

func TestUpdateKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	text := readFile(t, filepath.Join(example(t, "demo"), "provision.nix"))
	one, two := withFile(t, text, "extra", "one"), withFile(t, text, "extra", "two")
	h.must("ensure", "kept", "--channel", offline(t), "--provision", one)
	sql := func(h *host, query string) string {
		return strings.TrimSpace(h.must("exec", "--user", "s-dev", "kept", "--", "psql", "-Atc", query))
	}
	sql(h, "CREATE TABLE survivors (n int); INSERT INTO survivors VALUES (7)")
	h.inside("kept", "echo kept >/root/file")
	first := h.status("kept")
	// Both systems are built, and there are two generations.
	h.must("ensure", "kept", "--provision", two)
	second := h.status("kept")
	h.must("ensure", "kept", "--provision", one)
	survived := func(t *testing.T, h *host, system, extra string) {
		t.Helper()
		if status := h.status("kept"); status.Status != "running" || status.System != system || len(status.Units) != 0 {
			t.Errorf("status says %+v, not running with %s", status, system)
		}
		h.checkConsistent("kept")
		if found := h.inside("kept", "cat /root/file /etc/extra"); found != "kept\n"+extra {
			t.Errorf("the files hold %q", found)
		}
		var rows string
		waitFor(t, "the database answers", func() bool {
			result := h.run("exec", "--user", "s-dev", "kept", "--", "psql", "-Atc", "SELECT n FROM survivors")
			rows = strings.TrimSpace(result.stdout)
			return result.status == 0
		})
		if rows != "7" {
			t.Errorf("the database's row is %q", rows)
		}
	}
	running := func(h *host) { h.must("ensure", "kept", "--provision", one) }
	stopped := func(h *host) { running(h); h.must("stop", "kept") }
	for _, change := range []struct {
		name    string
		prepare func(h *host)
		steps   []string
		args    []string
	}{
		{"update", running, switchSteps, []string{"ensure", "kept", "--provision", two}},
		{"update of a stopped container", stopped, updateStoppedSteps, []string{"ensure", "kept", "--provision", two}},
		{"rollback", running, rollbackSteps, []string{"rollback", "kept", "--to", "2"}},
	} {
		for _, step := range change.steps {
			t.Run(change.name+" at "+step, func(t *testing.T) {
				h := h.with(t)
				change.prepare(h)
				h.killAt(step, change.args...)
				h.checkListed("kept")
				if result := h.run("status", "kept"); result.status != 0 {
					t.Errorf("status ended with %d:\n%s", result.status, result.stderr)
				}
				h.must("ensure", "kept")
				survived(t, h, first.System, "one")
			})
		}
	}
	t.Run("and the change itself, after a kill", func(t *testing.T) {
		h := h.with(t)
		running(h)
		h.killAt(container.StepSwitch, "ensure", "kept", "--provision", two)
		h.must("ensure", "kept", "--provision", two)
		survived(t, h, second.System, "two")
		// Each of these repairs before it does its own work.
		for _, args := range [][]string{{"stop", "kept"}, {"start", "kept"}, {"restart", "kept"}, {"rollback", "kept", "--to", "2"}} {
			h.must("ensure", "kept", "--provision", two)
			h.killAt(container.StepSwitch, "ensure", "kept", "--provision", one)
			h.must(args...)
			h.checkConsistent("kept")
			if now := h.status("kept").System; now != second.System {
				t.Errorf("after %v, the system is %s, not %s", args, now, second.System)
			}
		}
	})
	t.Run("destroy after a kill", func(t *testing.T) {
		h := h.with(t)
		h.must("ensure", "kept", "--provision", two)
		h.killAt(container.StepSwitch, "ensure", "kept", "--provision", one)
		h.must("destroy", "kept")
		h.checkGone()
	})
}

func TestDestroyKilledAtEveryStep(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	args := []string{"ensure", "doomed", "--channel", offline(t), "--provision", example(t, "minimal")}
	for _, step := range destroySteps {
		t.Run(step, func(t *testing.T) {
			h := h.with(t)
			h.must(args...)
			h.killAt(step, "destroy", "doomed")
			if result := h.run("list"); result.status != 0 {
				t.Errorf("list ended with %d:\n%s", result.status, result.stderr)
			}
			if output := h.must("destroy", "doomed"); output != "doomed: destroyed\n" {
				t.Errorf("destroy says %q", output)
			}
			h.checkGone()
			// A new one of that name is a new one.
			h.must(args...)
			h.inside("doomed", "echo old >/root/file")
			h.killAt(step, "destroy", "doomed")
			if output := h.must(args...); !strings.HasPrefix(output, "doomed: created (") {
				t.Errorf("ensure says %q", output)
			}
			h.checkConsistent("doomed")
			if found := h.inside("doomed", "cat /root/file 2>/dev/null || echo none"); found != "none" {
				t.Errorf("the new container has a file of the old one: %q", found)
			}
			h.must("destroy", "doomed")
		})
	}
	t.Run("folder moved away", func(t *testing.T) {
		h := h.with(t)
		h.must(args...)
		h.must("stop", "doomed")
		// What a kill between the last two steps leaves.
		if err := os.Rename(h.layout.Container("doomed"), filepath.Join(h.layout.Temporary(), "removed.doomed.1")); err != nil {
			t.Fatal(err)
		}
		if output := h.must("destroy", "doomed"); output != "doomed: destroyed\n" {
			t.Errorf("destroy says %q", output)
		}
	})
}

// TestInterrupted sends Ctrl-C at every step, as a terminal does.
func TestInterrupted(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	const interrupted = 130
	create := []string{"ensure", "early", "--channel", offline(t), "--provision", example(t, "minimal")}
	for _, step := range createSteps {
		t.Run("create at "+step, func(t *testing.T) {
			h := h.with(t)
			result := h.finish(h.atCommand(interruptAtVariable, step, create...))
			if result.status != interrupted || !strings.Contains(result.stderr, "devhost: interrupted\n") || !strings.Contains(result.stderr, "nothing of it is left") {
				t.Errorf("ended with %d:\n%s", result.status, result.stderr)
			}
			h.checkGone()
		})
	}
	for moment := time.Duration(0); moment <= 2400*time.Millisecond; moment += 150 * time.Millisecond {
		t.Run("create after "+moment.String(), func(t *testing.T) {
			h := h.with(t)
			// The evaluation is one of the things to be interrupted.
			if err := os.RemoveAll(h.layout.Systems()); err != nil {
				t.Fatal(err)
			}
			command := h.command(create...)
			command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			timer := time.AfterFunc(moment, func() {
				if command.Process != nil {
					_ = syscall.Kill(-command.Process.Pid, syscall.SIGINT)
				}
			})
			defer timer.Stop()
			result := h.finish(command)
			switch result.status {
			case interrupted:
				h.checkGone()
			case 0:
				h.checkConsistent("early")
				h.must("ssh", "early", "true")
				h.must("destroy", "early")
			default:
				t.Errorf("ended with %d:\n%s", result.status, result.stderr)
			}
		})
	}

	one, two := withFile(t, "{ ... }: { }", "extra", "one"), withFile(t, "{ ... }: { }", "extra", "two")
	h.must("ensure", "late", "--channel", offline(t), "--provision", one)
	old := h.status("late").System
	h.must("ensure", "late", "--provision", two)
	h.must("ensure", "late", "--provision", one)
	for _, change := range []struct {
		name, state string
		steps, args []string
	}{
		{"update", "running", switchSteps, []string{"ensure", "late", "--provision", two}},
		{"rollback", "running", rollbackSteps, []string{"rollback", "late", "--to", "2"}},
		{"update of a stopped container", "stopped", updateStoppedSteps, []string{"ensure", "late", "--provision", two}},
	} {
		if change.state == "stopped" {
			h.must("stop", "late")
		}
		for _, step := range change.steps {
			t.Run(change.name+" at "+step, func(t *testing.T) {
				h := h.with(t)
				result := h.finish(h.atCommand(interruptAtVariable, step, change.args...))
				if result.status != interrupted || !strings.Contains(result.stderr, "previous system") && !strings.Contains(result.stderr, "the system that it had") {
					t.Errorf("ended with %d:\n%s", result.status, result.stderr)
				}
				if status := h.status("late"); status.Status != change.state || status.System != old {
					t.Errorf("status says %+v, not %s with %s", status, change.state, old)
				}
				h.checkConsistent("late")
			})
		}
	}
}

// TestKilledProcesses kills what keeps a container running; after that, every
// command works.
func TestKilledProcesses(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	args := []string{"ensure", "hit", "--channel", offline(t), "--provision", example(t, "minimal")}
	h.must(args...)
	h.inside("hit", "echo kept >/root/file")
	for _, victims := range []string{"supervisor", "nspawn", "supervisor and nspawn"} {
		for _, next := range []string{"list", "status", "start", "stop", "restart", "ensure", "exec", "destroy"} {
			t.Run(victims+", then "+next, func(t *testing.T) {
				h := h.with(t)
				record, err := supervisor.ReadRecord(h.layout, "hit")
				if err != nil || record == nil {
					t.Fatalf("no runtime record: %+v, %v", record, err)
				}
				if strings.Contains(victims, "supervisor") {
					kill(t, record.Supervisor.PID)
				}
				if strings.Contains(victims, "nspawn") {
					kill(t, record.Nspawn.PID)
				}
				if victims == "nspawn" {
					// Its supervisor ends the guest, in its own time.
					waitFor(t, "the guest is gone", func() bool { return !record.Leader.Alive() })
				}
				switch next {
				case "list":
					h.checkListed("hit")
				case "exec":
					// A guest whose supervisor alone was killed runs on.
					if result := h.run("exec", "hit", "--", "true"); victims == "supervisor" && result.status != 0 {
						t.Errorf("exec ended with %d:\n%s", result.status, result.stderr)
					}
				default:
					h.must(next, "hit")
				}
				if next == "destroy" {
					h.checkGone()
					h.must(args...)
					h.inside("hit", "echo kept >/root/file")
					return
				}
				h.must("ensure", "hit")
				after := h.status("hit")
				if after.Status != "running" || after.Detail != "" {
					t.Errorf("after ensure, status says %+v", after)
				}
				if now, err := supervisor.ReadRecord(h.layout, "hit"); err != nil || now == nil || !now.Supervisor.Alive() {
					t.Errorf("there is no supervisor: %+v, %v", now, err)
				}
				h.checkConsistent("hit")
				if found := h.inside("hit", "cat /root/file"); found != "kept" {
					t.Errorf("the file holds %q", found)
				}
			})
		}
	}
}

// kill kills one process. Pid 0 would be all of our own.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid < 2 {
		t.Fatalf("%d is nobody's pid", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestSecondEnsure: two commands of one container come one after the other.
func TestSecondEnsure(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	args := []string{"ensure", "busy", "--channel", offline(t), "--provision", example(t, "minimal")}
	first := h.atCommand(pauseAtVariable, container.StepStart, args...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Process.Kill() })
	waitFor(t, "the first ensure pauses", func() bool {
		state := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", first.Process.Pid)))
		return len(state) > 2 && state[2] == "T"
	})
	holder := fmt.Sprintf("container busy is in use by pid %d (ensure, since ", first.Process.Pid)
	h.fails(5, []string{holder, "--lock-timeout"}, append(args, "--lock-timeout", "1s")...)
	h.fails(5, []string{holder}, append(args, "--lock-timeout", "0s")...)
	// Looking needs no lock.
	if result := h.run("list"); result.status != 0 {
		t.Errorf("list ended with %d:\n%s", result.status, result.stderr)
	}
	second := make(chan result, 1)
	go func() { second <- h.run(append(args, "--lock-timeout", "2m")...) }()
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first ensure ended with %v", err)
	}
	if result := <-second; result.status != 0 || !strings.HasPrefix(result.stdout, "busy: unchanged (") {
		t.Errorf("the second ensure ended with %d: %s%s", result.status, result.stdout, result.stderr)
	}
}

// failing is a provision whose service fails.
func failing(t *testing.T, text string) string {
	t.Helper()
	return provision(t, fmt.Sprintf(`{ ... }: {
  systemd.services.trouble = {
    description = "A service that fails";
    wantedBy = [ "multi-user.target" ];
    script = ''echo "%s" >&2; exit 3'';
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
  };
}
`, text))
}

func TestFailedSwitchGoesBack(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "steady", "--channel", offline(t), "--provision", withFile(t, "{ ... }: { }", "extra", "one"))
	h.inside("steady", "echo kept >/root/file")
	before := h.status("steady")
	_, generation := h.generations("steady")

	h.fails(1, []string{"trouble.service", "the reason is this", "container steady runs its previous system again"},
		"ensure", "steady", "--provision", failing(t, "the reason is this"), "--alias", "www", "--memory", "512M")
	after := h.status("steady")
	if after.System != before.System || after.Status != "running" || !after.StartedAt.Equal(before.StartedAt) || len(after.Units) != 0 || len(after.Aliases) != 0 {
		t.Errorf("after the failure: %+v, before: %+v", after, before)
	}
	if found := h.limits("steady").memory; found != "-1" {
		t.Errorf("the memory limit of the failed change holds: %s", found)
	}
	if _, current := h.generations("steady"); current != generation {
		t.Errorf("generation %d is current, not %d", current, generation)
	}
	if found := h.inside("steady", "cat /root/file /etc/extra; systemctl is-active trouble.service"+" || true"); found != "kept\noneinactive" {
		t.Errorf("inside there is %q", found)
	}
	h.checkConsistent("steady")
	if output := h.must("ensure", "steady"); !strings.HasPrefix(output, "steady: unchanged (") {
		t.Errorf("ensure says %q", output)
	}
	if output := h.must("ensure", "steady", "--provision", withFile(t, "{ ... }: { }", "extra", "two")); !strings.HasPrefix(output, "steady: switched") {
		t.Errorf("a second try says %q", output)
	}
	if found := h.inside("steady", "cat /root/file /etc/extra"); found != "kept\ntwo" {
		t.Errorf("inside there is %q", found)
	}
	h.checkConsistent("steady")
}

func TestFailingUnitOnCreate(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	made := h.fails(3, []string{"unit trouble.service failed (A service that fails)", "the first reason", "devhost logs shaky --unit trouble.service"},
		"ensure", "shaky", "--channel", offline(t), "--provision", failing(t, "the first reason"))
	if !strings.HasPrefix(made.stdout, "shaky: created (") {
		t.Errorf("ensure says %q", made.stdout)
	}
	// It is reachable, so that one can find out.
	if output := h.must("ssh", "shaky", "systemctl is-failed trouble.service"); output != "failed\n" {
		t.Errorf("ssh says %q", output)
	}
	if status := h.status("shaky"); len(status.Units) != 1 || status.Units[0].Name != "trouble.service" || status.Units[0].State != "failed" {
		t.Errorf("status says %+v", status)
	}
	if text := h.must("logs", "shaky", "--unit", "trouble.service"); !strings.Contains(text, "the first reason") {
		t.Errorf("logs says\n%s", text)
	}
	before := h.status("shaky").System
	// Going back to a system whose unit fails must come to an end.
	h.fails(1, []string{"trouble.service", "another reason"}, "ensure", "shaky", "--provision", failing(t, "another reason"))
	if now := h.status("shaky"); now.System != before || now.Status != "running" {
		t.Errorf("status says %+v", now)
	}
	h.checkConsistent("shaky")
	h.must("ensure", "shaky", "--provision", example(t, "minimal"))
	if status := h.status("shaky"); len(status.Units) != 0 {
		t.Errorf("with a good provision, status says %+v", status)
	}
	// A unit that never ends starting is said to be still starting.
	slow := provision(t, `{ ... }: {
  systemd.services.slow = { wantedBy = [ "multi-user.target" ]; script = "sleep 3600"; serviceConfig = { Type = "oneshot"; TimeoutStartSec = "infinity"; }; };
}
`)
	h.must("stop", "shaky")
	h.fails(3, []string{"unit slow.service still starts"}, "ensure", "shaky", "--provision", slow, "--timeout", "20s")
	h.must("ssh", "shaky", "true")
}

// TestDiskFull gives the state folder a small file system of its own.
func TestDiskFull(t *testing.T) {
	needsFullRun(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("devhost-e2e", disk, "tmpfs", 0, "size=96m,mode=755"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	// Cleanups run last first: the host is removed before.
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(disk, unix.MNT_DETACH)
		}
	})
	h := hostAt(t, filepath.Join(disk, "state"))
	one, two := withFile(t, "{ ... }: { }", "extra", "one"), withFile(t, "{ ... }: { }", "extra", "two")
	h.must("ensure", "tight", "--channel", offline(t), "--provision", one)
	h.must("ensure", "doomed", "--channel", offline(t), "--provision", one)
	h.inside("tight", "echo kept >/root/file; sync")
	before := h.status("tight")
	fill(t, disk)

	full := h.fails(1, []string{"no space left on device"}, "ensure", "another", "--channel", offline(t), "--provision", one)
	if !strings.Contains(full.stderr, "another") {
		t.Errorf("the error does not name the container:\n%s", full.stderr)
	}
	h.checkListed("doomed", "tight")
	h.fails(1, []string{"no space left on device"}, "ensure", "tight", "--provision", two)
	if now := h.status("tight"); now.System != before.System || now.Status != "running" {
		t.Errorf("on a full disk, status says %+v", now)
	}
	if found := h.inside("tight", "cat /root/file /etc/extra"); found != "kept\none" {
		t.Errorf("on a full disk, the files hold %q", found)
	}
	// Removing is how space is made: it works on a full disk.
	h.must("destroy", "doomed")
	h.checkListed("tight")

	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	h.must("ensure", "tight", "--provision", two)
	if found := h.inside("tight", "cat /root/file /etc/extra"); found != "kept\ntwo" {
		t.Errorf("with space again, the files hold %q", found)
	}
	h.checkConsistent("tight")
	h.must("ensure", "another", "--channel", offline(t), "--provision", one)
	h.must("ssh", "another", "true")
}

// fill writes a file until its file system is full.
func fill(t *testing.T, folder string) {
	t.Helper()
	file, err := os.Create(filepath.Join(folder, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	damage := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := func(name string) []string {
		return []string{"ensure", name, "--channel", offline(t), "--provision", example(t, "minimal")}
	}
	h.must(args("sound")...)
	for name, text := range map[string]string{
		"empty": "", "half": `{"version": 1, "na`, "future": `{"version": 99, "name": "hurt"}`, "of another": `{"version": 1, "name": "sound"}`,
		"a system outside of the store": `{"version": 1, "name": "hurt", "system": "/etc"}`,
	} {
		t.Run("record: "+name, func(t *testing.T) {
			h := h.with(t)
			h.must(args("hurt")...)
			damage(t, h.layout.Record("hurt"), text)
			if table := h.must("list"); !regexp.MustCompile(`(?m)^hurt +broken `).MatchString(table) || !regexp.MustCompile(`(?m)^sound +running `).MatchString(table) {
				t.Errorf("list says\n%s", table)
			}
			for _, command := range [][]string{{"ensure", "hurt"}, {"status", "hurt"}, {"exec", "hurt", "--", "true"}, {"start", "hurt"}, {"stop", "hurt"}, {"logs", "hurt"}} {
				h.fails(1, []string{"the state file of container hurt is unusable: " + h.layout.Record("hurt"), "devhost destroy hurt"}, command...)
			}
			h.must("ensure", "sound", "--alias", "www")
			h.must("ssh", "sound", "true")
			h.must("destroy", "hurt")
			h.checkListed("sound")
		})
	}
	t.Run("record and journal", func(t *testing.T) {
		h := h.with(t)
		h.must(args("hurt")...)
		damage(t, h.layout.Record("hurt"), "{")
		damage(t, h.layout.Journal("hurt"), "{")
		h.fails(1, []string{"hurt"}, "ensure", "hurt")
		h.must("destroy", "hurt")
		h.checkListed("sound")
	})
	t.Run("journal", func(t *testing.T) {
		h := h.with(t)
		before := h.status("sound")
		for _, text := range []string{"", "{", `{"version": 99, "operation": "create"}`, `{"version": 1, "operation": "unheard-of"}`} {
			damage(t, h.layout.Journal("sound"), text)
			h.must("ensure", "sound")
			if after := h.status("sound"); after.System != before.System || !after.StartedAt.Equal(before.StartedAt) {
				t.Errorf("with journal %q, the container is %+v", text, after)
			}
			h.checkConsistent("sound")
		}
	})
	t.Run("runtime record", func(t *testing.T) {
		h := h.with(t)
		h.inside("sound", "echo kept >/root/file")
		good := readFile(t, h.layout.RuntimeRecord("sound"))
		t.Cleanup(func() {
			// A supervisor that nobody could end can be ended by its record.
			var record supervisor.Record
			if t.Failed() && json.Unmarshal([]byte(good), &record) == nil && record.Supervisor.Alive() {
				damage(t, h.layout.RuntimeRecord("sound"), good)
			}
		})
		for _, text := range []string{"", "{", `{"version": 99}`} {
			damage(t, h.layout.RuntimeRecord("sound"), text)
			if result := h.run("list"); result.status != 0 || !strings.Contains(result.stdout, "sound") {
				t.Errorf("list ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
			}
			if result := h.run("status", "sound"); result.status != 0 || !strings.Contains(result.stdout, "unusable") {
				t.Errorf("status ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
			}
			// Its processes are unknown: it is ended and started again.
			h.run("stop", "sound")
			h.must("ensure", "sound")
			if status := h.status("sound"); status.Status != "running" {
				t.Errorf("after ensure, status says %+v", status)
			}
			if found := h.inside("sound", "cat /root/file"); found != "kept" {
				t.Errorf("the file holds %q", found)
			}
		}
	})
	t.Run("runtime record of another boot", func(t *testing.T) {
		h := h.with(t)
		text := readFile(t, h.layout.RuntimeRecord("sound"))
		h.must("stop", "sound")
		old := regexp.MustCompile(`"bootId":"[^"]*"`).ReplaceAllString(text, `"bootId":"00000000-0000-0000-0000-000000000000"`)
		if old == text {
			t.Fatalf("the record has no boot id: %s", text)
		}
		if err := os.MkdirAll(h.layout.Runtime(), 0o700); err != nil {
			t.Fatal(err)
		}
		damage(t, h.layout.RuntimeRecord("sound"), old)
		if status := h.status("sound"); status.Status != "stopped" {
			t.Errorf("after a restart of the host, status says %+v", status)
		}
		h.must("start", "sound")
		h.must("ssh", "sound", "true")
	})
}

// TestForeignHostsFile: what others write to /etc/hosts stays, and our block
// comes back.
func TestForeignHostsFile(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	instance := h.layout.Instance()
	foreign := "192.0.2.77 foreign-" + instance + ".example"
	edit := func(change func(string) string) {
		t.Helper()
		// As every devhost does.
		folder, err := os.Open("/etc")
		if err != nil {
			t.Fatal(err)
		}
		defer folder.Close()
		if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("/etc/hosts", []byte(change(readFile(t, "/etc/hosts"))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	without := func(text, part string) string {
		var kept strings.Builder
		for line := range strings.Lines(text) {
			if !strings.Contains(line, part) {
				kept.WriteString(line)
			}
		}
		return kept.String()
	}
	t.Cleanup(func() { edit(func(text string) string { return without(text, "foreign-"+instance) }) })
	resolves := func(name string) bool {
		addresses, err := net.LookupHost(name)
		return err == nil && slices.Contains(addresses, h.ip(name))
	}
	h.must("ensure", "listed"+instance, "--channel", offline(t), "--provision", example(t, "minimal"))
	first, second := "listed"+instance, "second"+instance
	// Somebody adds a line below our block, and one in it.
	edit(func(text string) string {
		return strings.Replace(text, "# devhost "+instance+" begin\n", "# devhost "+instance+" begin\n"+foreign+"\n", 1) + foreign + "-too\n"
	})
	h.must("ensure", second, "--channel", offline(t), "--provision", example(t, "minimal"))
	text := readFile(t, "/etc/hosts")
	if strings.Count(text, foreign) != 2 || strings.Count(text, instance+" begin\n") != 1 || !resolves(first) || !resolves(second) {
		t.Errorf("/etc/hosts holds\n%s", text)
	}
	// Somebody removes our block: the next start publishes again.
	edit(func(text string) string { return without(text, "devhost "+instance) })
	if strings.Contains(readFile(t, "/etc/hosts"), first+" ") {
		t.Fatal("the block was not removed")
	}
	h.must("stop", first)
	h.must("ensure", first)
	if !resolves(first) || !resolves(second) {
		t.Errorf("/etc/hosts holds\n%s", readFile(t, "/etc/hosts"))
	}
	h.must("destroy", first, second)
	if text := readFile(t, "/etc/hosts"); strings.Count(text, foreign) != 2 || strings.Contains(text, "devhost "+instance) {
		t.Errorf("after destroy, /etc/hosts holds\n%s", text)
	}
}

// TestEmptiedStateFolder: destroy leaves no file that names the container.
func TestEmptiedStateFolder(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "only", "--channel", offline(t), "--provision", example(t, "minimal"))
	h.must("destroy", "only")
	// Nothing in the folder grows with every container that there was.
	var files []string
	err := filepath.WalkDir(h.layout.State, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.Contains(path, "only") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > 1 {
		t.Errorf("after destroy there is %v", files)
	}
	if output, err := exec.Command("getent", "hosts", "only").CombinedOutput(); err == nil {
		t.Errorf("the name still resolves: %s", output)
	}
}
