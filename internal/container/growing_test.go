package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/engine"
	"devhost/internal/person"
	"devhost/internal/registry"
)

// withFiles is a world with a container whose root folder holds files.
func withFiles(t *testing.T, status engine.Status) *world {
	t.Helper()
	w := created(t)
	root := w.registry.Root("box")
	for path, text := range map[string]string{
		"etc/machine-id": strings.Repeat("0", 32) + "\n", "etc/ssh/ssh_host_rsa_key": "secret", "etc/ssh/sshd_config": "Port 22", "data": "one",
	} {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if status == engine.Stopped {
		w.state, w.runs = engine.State{Status: engine.Stopped}, ""
	}
	return w
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func cloneRequest() CloneRequest {
	return CloneRequest{Source: "box", Name: "copy", Owner: "carol", Timeout: time.Minute, NoStart: true}
}

func TestClone(t *testing.T) {
	for _, test := range []struct {
		name   string
		status engine.Status
		stop   bool
		calls  []string
		state  string
	}{
		{"frozen", engine.Running, false, []string{"freeze", "thaw", "profile"}, "frozen"},
		{"stopped meanwhile", engine.Running, true, []string{"stop", "start", "profile"}, "stopped"},
		{"stopped anyway", engine.Stopped, false, []string{"profile"}, "stopped"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := withFiles(t, test.status)
			source := load(t, w)
			source.Aliases, source.Environment, source.AccountKeys = []string{"www"}, "shop", map[string][]string{"bob": {"key"}}
			source.ForwardPorts, source.Limits.MemoryBytes = []registry.ForwardPort{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}}, 1<<30
			source.Expiry.Off = true
			if err := w.registry.Save(source); err != nil {
				t.Fatal(err)
			}
			request := cloneRequest()
			request.Stop = test.stop
			result, err := w.manager().Clone(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.calls, w.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if result.State != test.state || result.Started || w.frozen || w.state.Status != test.status {
				t.Errorf("%+v; the source is %s, frozen: %v", result, w.state.Status, w.frozen)
			}
			copied, err := w.registry.Load("copy")
			if err != nil {
				t.Fatal(err)
			}
			if copied.Owner != "carol" || copied.System != source.System || copied.ProvisionHash != "one" || copied.Limits != source.Limits || copied.Environment != "shop" ||
				len(copied.Aliases) != 0 || copied.AccountKeys != nil || copied.ForwardPorts != nil || copied.Expiry.Off || copied.Address == source.Address || copied.Enabled {
				t.Errorf("the clone is %+v", copied)
			}
			root := w.registry.Root("copy")
			if id := textOf(t, filepath.Join(root, "etc/machine-id")); id == strings.Repeat("0", 32)+"\n" || len(id) != 33 {
				t.Errorf("its machine id is %q", id)
			}
			if _, err := os.Lstat(filepath.Join(root, "etc/ssh/ssh_host_rsa_key")); err == nil {
				t.Error("it has the source's host key")
			}
			if text := textOf(t, filepath.Join(root, "etc/ssh/sshd_config")) + textOf(t, filepath.Join(root, "data")); text != "Port 22one" {
				t.Errorf("its files hold %q", text)
			}
			if found, _ := filepath.Glob(filepath.Join(w.registry.Provision("copy"), "*/provision.nix")); len(found) != 1 {
				t.Errorf("its provision is %v", found)
			}
			for _, name := range []string{"box", "copy"} {
				if _, err := os.Stat(w.registry.Journal(name)); err == nil {
					t.Errorf("%s still has a journal", name)
				}
			}
		})
	}
}

func TestCloneFails(t *testing.T) {
	for _, cause := range []string{"freeze", "copy", "allocate", "profile", "publish"} {
		t.Run(cause, func(t *testing.T) {
			w := withFiles(t, engine.Running)
			noLuck := errors.New("no luck")
			if cause == "copy" {
				w.disk.fails = noLuck
			} else {
				w.fail[cause] = noLuck
			}
			_, err := w.manager().Clone(t.Context(), cloneRequest())
			var failure *Failure
			if !errors.Is(err, noLuck) || !errors.As(err, &failure) {
				t.Fatalf("the error is %v", err)
			}
			w.fail = map[string]error{}
			if cause == "publish" {
				// What cannot be published cannot be withdrawn either.
				if err := w.manager().Destroy(t.Context(), "copy"); err != nil {
					t.Fatal(err)
				}
			} else if !strings.Contains(failure.Now, "nothing of it is left") {
				t.Errorf("it says %q", failure.Now)
			}
			if _, err := os.Lstat(w.registry.Container("copy")); err == nil || w.frozen {
				t.Errorf("left: %v, frozen: %v", err, w.frozen)
			}
			w.checkTemporary()
		})
	}
	t.Run("cannot freeze", func(t *testing.T) {
		w := withFiles(t, engine.Running)
		w.fail["freeze"] = errors.New("it does not stand still")
		_, err := w.manager().Clone(t.Context(), cloneRequest())
		var cannot *CannotFreeze
		if !errors.As(err, &cannot) || !strings.Contains(err.Error(), "--stop") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("names", func(t *testing.T) {
		w := withFiles(t, engine.Stopped)
		for _, pair := range [][2]string{{"box", "box"}, {"box", "taken"}, {"none", "copy"}, {"box", "../x"}, {"../x", "copy"}} {
			request := cloneRequest()
			request.Source, request.Name = pair[0], pair[1]
			if _, err := w.manager().Clone(t.Context(), request); err == nil {
				t.Errorf("%v was cloned", pair)
			}
		}
		if left, _ := os.ReadDir(w.registry.Containers()); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestCloneKilled(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for _, step := range []string{StepClone, StepHold, StepCopy, StepRelease, StepAllocate, StepFiles, StepProfile, StepPublish} {
			t.Run(step, func(t *testing.T) {
				w := withFiles(t, engine.Running)
				request := cloneRequest()
				request.Stop = stop
				w.killedAt(step, func(m *Manager) error { _, err := m.Clone(t.Context(), request); return err })
				if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil {
					t.Fatal(err)
				}
				if w.frozen || w.state.Status != engine.Running {
					t.Errorf("the source is %s, frozen: %v", w.state.Status, w.frozen)
				}
				if entries, err := w.registry.List(); err != nil || slices.ContainsFunc(entries, func(entry registry.Entry) bool { return entry.Err != nil }) {
					t.Errorf("the list is %+v, %v", entries, err)
				}
				if _, err := w.manager().Clone(t.Context(), request); err != nil {
					t.Errorf("the next clone: %v", err)
				}
			})
		}
	}
}

// TestLostJournal: what is frozen goes on also when nothing says why.
func TestLostJournal(t *testing.T) {
	w := withFiles(t, engine.Running)
	w.killedAt(StepCopy, func(m *Manager) error { _, err := m.Clone(t.Context(), cloneRequest()); return err })
	if !w.frozen {
		t.Fatal("it is not frozen")
	}
	put(t, w.registry.Journal("box"), "{")
	if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || w.frozen {
		t.Errorf("frozen: %v, %v", w.frozen, err)
	}
}

// TestRestoreNeedsItsSystem: the rest of restoring is tested end to end.
func TestRestoreNeedsItsSystem(t *testing.T) {
	w := withFiles(t, engine.Running)
	data := filepath.Join(w.registry.Root("box"), "data")
	made, err := w.manager().CreateSnapshot(t.Context(), "box", "", false)
	if err != nil || made.State != "frozen" || w.frozen {
		t.Fatalf("%+v, frozen: %v, %v", made, w.frozen, err)
	}
	if _, err := w.manager().Ensure(t.Context(), request("two")); err != nil {
		t.Fatal(err)
	}
	put(t, data, "two")
	restore := func(m *Manager, snapshot string) (*Restored, error) {
		// The systems of fakes are in no store.
		return m.RestoreSnapshot(t.Context(), "box", snapshot, time.Minute)
	}
	if _, err := restore(w.manager(), made.Name); err == nil || !strings.Contains(err.Error(), "is not in the store any more") {
		t.Errorf("without its system: %v", err)
	}
}

func TestSnapshotsOfOthers(t *testing.T) {
	w := withFiles(t, engine.Stopped)
	record := load(t, w)
	record.Owner = "alice"
	if err := w.registry.Save(record); err != nil {
		t.Fatal(err)
	}
	m := w.manager()
	m.Caller = person.Person{UID: 1000, Login: "bob"}
	if _, err := m.CreateSnapshot(t.Context(), "box", "one", false); err != nil {
		t.Fatal(err)
	}
	var owner *NotOwner
	if err := m.RemoveSnapshot(t.Context(), "box", "one"); !errors.As(err, &owner) {
		t.Errorf("remove: %v", err)
	}
	if _, err := m.Rename(t.Context(), "box", "crate", time.Minute); !errors.As(err, &owner) {
		t.Errorf("rename: %v", err)
	}
	m.Force = true
	if err := m.RemoveSnapshot(t.Context(), "box", "one"); err != nil {
		t.Error(err)
	}
	if _, err := m.Rename(t.Context(), "box", "crate", time.Minute); err != nil {
		t.Error(err)
	}
}

func TestRename(t *testing.T) {
	w := withFiles(t, engine.Running)
	before := load(t, w)
	result, err := w.manager().Rename(t.Context(), "box", "crate", time.Minute)
	if err != nil || !result.Started {
		t.Fatalf("%+v, %v", result, err)
	}
	after, err := w.registry.Load("crate")
	if err != nil || after.Address != before.Address || after.System != before.System || w.state.Status != engine.Running {
		t.Errorf("%+v, %v", after, err)
	}
	if _, err := w.registry.Load("box"); err == nil || !slices.Equal(w.published, []string{"crate"}) {
		t.Errorf("box: %v; published: %v", err, w.published)
	}
	if name := textOf(t, filepath.Join(w.registry.Guest("crate"), "name")); name != "crate\n" {
		t.Errorf("the guest is told %q", name)
	}
}

func TestRenameKilled(t *testing.T) {
	for _, step := range []string{StepStop, StepMove, StepRecord, StepProfile, StepFiles, StepPublish, StepStart} {
		for _, next := range []string{"box", "crate"} {
			t.Run(step+", then "+next, func(t *testing.T) {
				w := withFiles(t, engine.Running)
				w.killedAt(step, func(m *Manager) error { _, err := m.Rename(t.Context(), "box", "crate", time.Minute); return err })
				now := "crate"
				if step == StepStop || step == StepMove {
					now = "box"
				}
				entries, err := w.registry.List()
				if err != nil || len(entries) != 1 || entries[0].Name != now || entries[0].Err != nil {
					t.Errorf("the list is %+v, %v", entries, err)
				}
				_, _ = w.manager().Start(t.Context(), next, time.Minute)
				if _, err := w.manager().Start(t.Context(), now, time.Minute); err != nil {
					t.Fatal(err)
				}
				record, err := w.registry.Load(now)
				if err != nil || record.Name != now || !slices.Equal(w.published, []string{now}) || w.state.Status != engine.Running {
					t.Errorf("%+v, published %v, %s: %v", record, w.published, w.state.Status, err)
				}
				if _, err := os.Stat(w.registry.Journal(now)); err == nil {
					t.Error("the journal is still there")
				}
			})
		}
	}
}

func TestDiskSize(t *testing.T) {
	w := newWorld(t)
	ensure := func(bytes int64) *EnsureResult {
		t.Helper()
		asked := request("one")
		asked.DiskBytes = &bytes
		result, err := w.manager().Ensure(t.Context(), asked)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	if result := ensure(1 << 30); len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "not enforced") {
		t.Errorf("without quotas it says %q", result.Warnings)
	}
	// Quotas that come later hold from the next start on.
	w.disk.enforces = true
	if err := w.manager().Restart(t.Context(), "box", time.Second, time.Minute); err != nil {
		t.Fatal(err)
	}
	project, err := w.disk.ProjectOf(w.registry.Root("box"))
	if err != nil || w.disk.limits[project] != 1<<30 {
		t.Errorf("project %d has the limit %d, %v", project, w.disk.limits[project], err)
	}
	if result := ensure(2 << 30); len(result.Warnings) != 0 || w.disk.limits[project] != 2<<30 {
		t.Errorf("the limit is %d; it says %q", w.disk.limits[project], result.Warnings)
	}
	if _, err := w.manager().Clone(t.Context(), cloneRequest()); err != nil {
		t.Fatal(err)
	}
	other, err := w.disk.ProjectOf(w.registry.Root("copy"))
	if err != nil || other == project || w.disk.limits[other] != 2<<30 {
		t.Errorf("the clone's project %d has the limit %d, %v", other, w.disk.limits[other], err)
	}
	ensure(0)
	if w.disk.limits[project] != 0 {
		t.Errorf("without a limit it is %d", w.disk.limits[project])
	}
	if err := w.manager().Destroy(t.Context(), "copy"); err != nil || w.disk.limits[other] != 0 {
		t.Errorf("after the removal the limit is %d, %v", w.disk.limits[other], err)
	}
	most := w.manager()
	most.Settings.Maximum.Disk = 1 << 30
	bytes := int64(2 << 30)
	asked := request("one")
	asked.DiskBytes = &bytes
	var refused *Refused
	if _, err := most.Ensure(t.Context(), asked); !errors.As(err, &refused) {
		t.Errorf("beyond the most: %v", err)
	}
}

// TestRenameWaits: while somebody else writes what follows from all records, a
// container keeps the folder in which they have found it.
func TestRenameWaits(t *testing.T) {
	w := withFiles(t, engine.Running)
	m := w.manager()
	ctx, cancel := context.WithCancel(t.Context())
	m.OnStep = func(step string) {
		if step != StepMove {
			return
		}
		unlock, err := w.registry.LockShared(t.Context(), "test", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(unlock)
		time.AfterFunc(200*time.Millisecond, cancel)
	}
	if _, err := m.Rename(ctx, "box", "crate", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("it did not wait: %v", err)
	}
	if _, err := w.registry.Load("box"); err != nil {
		t.Error(err)
	}
}
