package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"devhost/internal/container"
	"devhost/internal/registry"
)

const day = 24 * time.Hour

// at runs a command that thinks that it is so much later.
func (h *host) at(ahead time.Duration, args ...string) result {
	h.t.Helper()
	return h.finish(h.atCommand(clockVariable, ahead.String(), args...))
}

// sweep runs devhost expire so much later, and expects texts in its output;
// without texts, none.
func (h *host) sweep(ahead time.Duration, texts ...string) {
	h.t.Helper()
	result := h.at(ahead, "expire")
	if result.status != 0 || (len(texts) == 0 && result.stdout != "") {
		h.t.Errorf("expire %s later ended with %d:\n%s%s", ahead, result.status, result.stdout, result.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(result.stdout, text) {
			h.t.Errorf("expire %s later does not say %q but:\n%s%s", ahead, text, result.stdout, result.stderr)
		}
	}
}

func (h *host) wantStatus(name, want string) {
	h.t.Helper()
	if status := h.status(name); status.Status != want {
		h.t.Fatalf("container %s is %s, not %s", name, status.Status, want)
	}
}

func hostKey(t *testing.T, h *host) string {
	t.Helper()
	return readFile(t, filepath.Join(h.layout.SSH("trial"), "known_hosts"))
}

// TestExpiry is the life of a container to which nobody deploys, from its first
// warning to the end of its archive.
func TestExpiry(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	h.must("ensure", "trial", "--channel", offline(t))
	h.inside("trial", "mkdir -p /srv/data && echo precious > /srv/data/file && chmod 4755 /srv/data/file")
	key := hostKey(t, h)

	h.sweep(5*day - time.Hour)
	h.sweep(5*day, "trial: will be stopped on ", "last deployed 5 days ago")
	h.sweep(5 * day)
	checkWarned(t, h)
	h.sweep(6*day + 23*time.Hour)
	h.wantStatus("trial", "running")

	checkInUse(t, h)
	h.sweep(7*day, "trial: stopped (last deployed 7 days ago)")
	h.wantStatus("trial", "stopped")
	kept := h.at(7*day, "keep", "trial", "--for", "1d")
	if kept.status != 0 || !strings.Contains(kept.stdout, "kept until") || !strings.Contains(kept.stderr, "devhost start trial") {
		t.Errorf("keep of a stopped container ended with %d:\n%s%s", kept.status, kept.stdout, kept.stderr)
	}
	h.must("unkeep", "trial")

	// Who starts it again is warned again.
	h.must("start", "trial")
	h.sweep(8*day, "trial: will be stopped on ")
	h.sweep(9*day - time.Hour)
	h.sweep(9*day, "trial: stopped")
	h.sweep(28*day, "trial: will be deleted on ")
	h.sweep(29 * day)
	broken := filepath.Join(h.layout.Containers(), "broken")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(broken, "container.json"), "{")
	if dry := h.at(30*day, "expire", "--dry-run"); dry.status != 0 || !strings.Contains(dry.stdout, "trial: archived and deleted") || !strings.Contains(dry.stderr, "broken: not done") {
		t.Errorf("a dry run ended with %d:\n%s%s", dry.status, dry.stdout, dry.stderr)
	}
	h.wantStatus("trial", "stopped")
	h.sweep(30*day, "trial: archived and deleted", "devhost undelete trial")
	if _, err := os.Stat(broken); err != nil {
		t.Errorf("a container whose state cannot be read: %v", err)
	}
	h.must("destroy", "broken")
	h.fails(4, []string{"an archived one comes back with: devhost undelete trial"}, "status", "trial")

	var archives []struct{ Name, ID, Owner, Reason string }
	h.decode(&archives, "undelete", "--list", "--json")
	if len(archives) != 1 || archives[0].Name != "trial" || !strings.Contains(archives[0].Reason, "expired") {
		t.Errorf("the archives are %+v", archives)
	}
	h.fails(4, []string{"no archive"}, "undelete", "other")
	if said := h.must("undelete", "trial"); said != "trial: is back\n" {
		t.Errorf("undelete says %q", said)
	}
	if found := h.inside("trial", "stat -c '%a %u' /srv/data/file; cat /srv/data/file"); found != "4755 0\nprecious" {
		t.Errorf("its file is %q", found)
	}
	if hostKey(t, h) != key || strings.TrimSpace(h.must("ssh", "trial", "hostname")) != "trial" {
		t.Error("it cannot be reached as before")
	}
	h.must("destroy", "--archive", "trial")
	h.sweep(29 * day)
	h.configure(`{"version": 1, "expiry": {"enable": false}}`)
	h.sweep(31 * day)
	h.configure(`{"version": 1}`)
	h.sweep(31*day, "trial: its archive of ")
	// The host looks at the end whether anything is left.
}

// checkWarned looks at the container that will be stopped in two days.
func checkWarned(t *testing.T, h *host) {
	t.Helper()
	later := h.at(5*day, "list")
	if !strings.Contains(later.stdout, "stop in 47 hours !") && !strings.Contains(later.stdout, "stop in 2 days !") || !strings.Contains(later.stderr, "will be stopped on") {
		t.Errorf("list says:\n%s%s", later.stdout, later.stderr)
	}
	var all []struct {
		ExpiresStop, ExpiresDelete time.Time
		Warnings                   []string
	}
	h.decode(&all, "list", "--json")
	if len(all) != 1 || all[0].ExpiresStop.IsZero() || !all[0].ExpiresDelete.After(all[0].ExpiresStop) || len(all[0].Warnings) != 0 {
		t.Errorf("list --json says %+v", all)
	}
	if status := h.at(5*day, "status", "trial"); !strings.Contains(status.stdout, "expires") || !strings.Contains(status.stderr, "will be stopped on") {
		t.Errorf("status says:\n%s%s", status.stdout, status.stderr)
	}
	// A failed ensure leaves it as it is, and says so.
	failed := h.at(5*day, "ensure", "trial", "--channel", filepath.Join(t.TempDir(), "missing"))
	if failed.status == 0 || !strings.Contains(failed.stderr, "will be stopped on") {
		t.Errorf("ensure ended with %d:\n%s", failed.status, failed.stderr)
	}
	for _, quiet := range [][]string{{"ssh", "trial", "true"}, {"ssh", "trial", "bash -lic true 2>/dev/null"}, {"exec", "trial", "true"}} {
		if result := h.run(quiet...); result.stdout+result.stderr != "" || result.status != 0 {
			t.Errorf("%v ended with %d and says %q", quiet, result.status, result.stdout+result.stderr)
		}
	}
}

// checkInUse: nobody is thrown out, and people are told, at login and when it
// is time.
func checkInUse(t *testing.T, h *host) {
	t.Helper()
	person := sitDown(t, h.command("ssh", "trial"), 24, 200)
	waitFor(t, "the person is told at login", func() bool { return strings.Contains(person.screen.text(), "Container trial will be stopped on") })
	person.types("echo rea''dy\r", `ready\r\n`)
	h.sweep(7*day, "trial: is due and in use (1 ssh session)")
	waitFor(t, "the person is told", func() bool {
		return strings.Contains(person.screen.text(), "*** devhost: container trial is to be stopped")
	})
	// A shell in the shell does not say it again.
	before := len(person.screen.text())
	person.types("bash\r", `\$ `)
	person.types("echo ag''ain\r", `again\r\n`)
	if strings.Contains(person.screen.text()[before:], "will be stopped") {
		t.Errorf("the screen shows %q", person.screen.text()[before:])
	}
	_ = person.command.Process.Kill()
	_ = person.command.Wait()

	running := h.command("exec", "trial", "--", "sleep", "86396")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	said := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("expire said at last: %s", said)
		}
	})
	waitFor(t, "the command runs and the person is gone", func() bool {
		said = h.at(7*day, "expire", "--dry-run").stdout
		return strings.Contains(said, "in use (1 running command)")
	})
	h.sweep(7*day, "trial: is due and in use (1 running command)")
	_ = running.Process.Signal(syscall.SIGTERM)
	_ = running.Wait()
	waitFor(t, "nobody is there", func() bool { return !strings.Contains(h.at(7*day, "expire", "--dry-run").stdout, "in use") })

	unlock, err := registry.New(h.layout).Lock(t.Context(), "trial", "a test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	h.sweep(7*day, "trial: is in use by another command")
	unlock()
	h.wantStatus("trial", "running")
}

// TestKeep: what people say about one container.
func TestKeep(t *testing.T) {
	h := newHost(t)
	h.must("ensure", "trial", "--channel", offline(t), "--keep", "20d")
	h.sweep(15 * day)
	h.sweep(18*day, "trial: will be stopped on ")
	if again := h.at(18*day, "ensure", "trial"); again.status != 0 || !strings.Contains(again.stderr, "this deployment puts that off") {
		t.Errorf("ensure ended with %d:\n%s%s", again.status, again.stdout, again.stderr)
	}
	h.sweep(22 * day)
	h.must("ensure", "trial", "--keep", "0")
	h.sweep(6*day, "trial: will be stopped on ")
	h.must("keep", "trial", "--until", time.Now().AddDate(0, 1, 0).Format(time.DateOnly))
	h.sweep(25 * day)
	h.must("keep", "trial", "--forever")
	h.sweep(1000 * day)
	if list := h.must("list"); !strings.Contains(list, "never") {
		t.Errorf("list says:\n%s", list)
	}
	h.must("unkeep", "trial")
	h.must("keep", "trial", "--stop-after", "2h", "--delete-after", "60d")
	h.sweep(time.Hour, "trial: will be stopped on ")
	h.sweep(2*time.Hour, "trial: stopped")
	h.sweep(50 * day)
	h.must("keep", "trial", "--stop-after", "host", "--delete-after", "host")
	h.sweep(50*day, "trial: will be deleted on ")
	for _, wrong := range [][]string{
		{"keep", "trial"}, {"keep", "trial", "--for", "soon"}, {"keep", "trial", "--for", "-1d"}, {"keep", "trial", "--for", "0"}, {"keep", "trial", "--for", "400000d"},
		{"keep", "trial", "--until", "2020-01-01"}, {"keep", "trial", "--until", "tomorrow"}, {"keep", "trial", "--until", "9999-01-01"},
		{"keep", "trial", "--for", "1d", "--forever"}, {"keep", "trial", "--stop-after", "1s"}, {"ensure", "trial", "--keep", "x"},
		{"undelete", "--as", "../x", "trial"}, {"undelete", "../x"}, {"undelete", "--list", "../x"}, {"prune", "--keep-generations", "-1"},
	} {
		h.fails(2, nil, wrong...)
	}
	h.fails(4, nil, "keep", "other", "--for", "1d")
	// Others keep it as long as they like, and do not have it deleted sooner.
	h.allow(strangerGroup(t))
	member := h.throughSudo()
	member.fails(7, []string{"container trial belongs to root", "--force"}, "keep", "trial", "--delete-after", "2h")
	member.must("keep", "trial", "--for", "40d")
	member.fails(7, []string{"container trial belongs to root"}, "unkeep", "trial")
	member.must("keep", "trial", "--stop-after", "3h")
	member.must("unkeep", "trial", "--force")
	h.configure(`{"version": 1, "expiry": {"enable": false}}`)
	h.sweep(1000 * day)
}

// expired is a host with a stopped container that is due to be deleted when its
// clock is dueAfter ahead.
func expired(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	h.must("ensure", "trial", "--channel", offline(t))
	h.inside("trial", "echo precious > /srv/file; head -c 3000000 /dev/urandom > /srv/noise; sync")
	h.must("stop", "trial")
	h.sweep(28*day, "trial: will be deleted on ")
	return h
}

const dueAfter = 30 * day

// wantBack deletes the container, which was not deleted before, and brings it
// back.
func wantBack(t *testing.T, h *host) {
	t.Helper()
	h.sweep(dueAfter, "trial: archived and deleted")
	h.must("undelete", "trial")
	if found := h.inside("trial", "cat /srv/file"); found != "precious" {
		t.Errorf("its file is %q", found)
	}
}

// TestNoArchiveNoDeletion: where no archive can be written, nothing is deleted.
func TestNoArchiveNoDeletion(t *testing.T) {
	needsFullRun(t)
	h := expired(t)
	notDeleted := func(what, text string) {
		t.Helper()
		result := h.at(dueAfter, "expire")
		if result.status != 1 || !strings.Contains(result.stderr, text) {
			t.Errorf("%s: expire ended with %d:\n%s%s", what, result.status, result.stdout, result.stderr)
		}
		h.wantStatus("trial", "stopped")
		if found, _ := filepath.Glob(filepath.Join(h.layout.Archives(), "trial", "*")); len(found) > 0 {
			t.Errorf("%s: there is %v", what, found)
		}
	}

	// A small disk.
	if err := os.MkdirAll(h.layout.Archives(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("devhost-test", h.layout.Archives(), "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			if err := syscall.Unmount(h.layout.Archives(), 0); err != nil {
				t.Error(err)
			}
		}
		mounted = false
	}
	t.Cleanup(unmount)
	notDeleted("a small disk", "free space there")
	unmount()

	// No tar.
	programs := t.TempDir()
	for _, folder := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			if entry.Name() != "tar" {
				_ = os.Symlink(filepath.Join(folder, entry.Name()), filepath.Join(programs, entry.Name()))
			}
		}
	}
	h.env = []string{"PATH=" + programs}
	notDeleted("no tar", "install GNU tar")
	h.env = nil

	// One that fails half way.
	writeFile(t, filepath.Join(programs, "tar"), "#!/bin/sh\necho half; echo no luck >&2; exit 2\n")
	if err := os.Chmod(filepath.Join(programs, "tar"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.env = []string{"PATH=" + programs}
	notDeleted("a tar that fails", "no luck")
	h.env = nil
	wantBack(t, h)
}

// TestKilledWhileArchiving: whenever expire is killed, the container or a whole
// archive of it is there.
func TestKilledWhileArchiving(t *testing.T) {
	needsFullRun(t)
	for _, step := range []string{container.StepArchive, container.StepStop, container.StepRemove} {
		t.Run(step, func(t *testing.T) {
			h := expired(t)
			killed := h.atCommand(killAtVariable, step, "expire")
			killed.Env = append(killed.Env, fmt.Sprintf("%s=%s", clockVariable, dueAfter))
			if result := h.finish(killed); result.status != 128+int(syscall.SIGKILL) {
				t.Fatalf("expire was not killed but ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
			}
			if step == container.StepArchive {
				wantBack(t, h)
				return
			}
			// It is archived; what is left of it is removed by the next command.
			if result := h.at(dueAfter, "expire"); result.status != 0 {
				t.Errorf("expire ended with %d:\n%s", result.status, result.stderr)
			}
			h.must("undelete", "trial")
			if found := h.inside("trial", "cat /srv/file"); found != "precious" {
				t.Errorf("its file is %q", found)
			}
		})
	}
}

// TestKilledWhileUndeleting: it is as if nobody had begun.
func TestKilledWhileUndeleting(t *testing.T) {
	needsFullRun(t)
	h := expired(t)
	h.sweep(dueAfter, "trial: archived and deleted")
	for _, step := range []string{container.StepUnpack, container.StepAllocate, container.StepProfile, container.StepStart, container.StepReady, container.StepPublish} {
		t.Run(step, func(t *testing.T) {
			h := h.with(t)
			result := h.finish(h.atCommand(killAtVariable, step, "undelete", "trial"))
			if result.status != 128+int(syscall.SIGKILL) {
				t.Fatalf("undelete was not killed but ended with %d:\n%s%s", result.status, result.stdout, result.stderr)
			}
			h.run("destroy", "trial", "--missing-ok")
			if list := h.must("undelete", "--list"); !strings.Contains(list, "trial") {
				t.Errorf("the archive is gone:\n%s", list)
			}
		})
	}
	interrupted := h.finish(h.atCommand(interruptAtVariable, container.StepStart, "undelete", "trial"))
	if interrupted.status != 130 || !strings.Contains(interrupted.stderr, "is kept") {
		t.Errorf("an interrupted undelete ended with %d:\n%s", interrupted.status, interrupted.stderr)
	}
	h.must("ensure", "trial", "--channel", offline(t))
	h.fails(1, []string{"there is a container trial already", "--as"}, "undelete", "trial")
	h.must("undelete", "trial", "--as", "other")
	if found := h.inside("other", "cat /srv/file; hostname"); found != "precious\nother" {
		t.Errorf("inside there is %q", found)
	}
	if h.ip("other") == h.ip("trial") {
		t.Error("both have one address")
	}
}

// TestPrune: what nothing uses goes, and nothing else.
func TestPrune(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	for number := range 5 {
		text := fmt.Sprintf(`{ environment.etc."number".text = "%d"; }`, number)
		h.must("ensure", "trial", "--channel", offline(t), "--provision", provision(t, text))
	}
	lost := filepath.Join(h.layout.GCRoots(), "lost")
	for _, folder := range []string{lost, filepath.Join(h.layout.GCRoots(), "archive.lost.20260101T000000Z"), filepath.Join(h.layout.Profiles(), "lost"), filepath.Join(h.layout.Temporary(), "removed.lost.1")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dry := h.must("prune", "--dry-run")
	if _, err := os.Stat(lost); err != nil || !strings.Contains(dry, "would be removed") {
		t.Errorf("a dry run: %v\n%s", err, dry)
	}
	pruned := h.must("prune")
	for _, want := range []string{"generation: trial: generation 1 of", "generation: trial: generation 2 of", "root: lost: garbage collector roots", "root: lost: profile", "leftover: lost"} {
		if !strings.Contains(pruned, want) {
			t.Errorf("prune does not say %q but:\n%s", want, pruned)
		}
	}
	if all, current := h.generations("trial"); len(all) != 3 || current != 5 {
		t.Errorf("generations %+v, current %d", all, current)
	}
	if again := h.must("prune"); again != "" {
		t.Errorf("a second prune says:\n%s", again)
	}
	h.must("rollback", "trial")
	if found := h.inside("trial", "cat /etc/number"); found != "3" {
		t.Errorf("after a rollback it runs %q", found)
	}
	system := h.record("trial").System
	roots, err := exec.Command("nix-store", "--query", "--roots", system).CombinedOutput()
	if err != nil || !strings.Contains(string(roots), "trial") {
		t.Errorf("what it runs is not kept: %v\n%s", err, roots)
	}
	h.must("destroy", "--archive", "trial")
	roots, err = exec.Command("nix-store", "--query", "--roots", system).CombinedOutput()
	if err != nil || !strings.Contains(string(roots), "archive.trial") {
		t.Errorf("what its archive needs is not kept: %v\n%s", err, roots)
	}
	if later := h.at(31*day, "prune"); later.status != 0 || !strings.Contains(later.stdout, "archive: trial: archive of") {
		t.Errorf("prune ended with %d:\n%s%s", later.status, later.stdout, later.stderr)
	}
}
