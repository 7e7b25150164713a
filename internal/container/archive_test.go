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
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/registry"
)

// inhabited is a world with a running container in which there is a file.
func inhabited(t *testing.T) *world {
	t.Helper()
	w := created(t)
	if err := os.WriteFile(w.file(), []byte("work"), 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) file() string { return filepath.Join(w.registry.Root("box"), "file") }

func (w *world) archives() []string {
	w.t.Helper()
	entries, err := w.registry.ListArchives("")
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, entry := range entries {
		if entry.Err != nil {
			w.t.Error(entry.Err)
		}
		ids = append(ids, entry.ID)
	}
	if left := w.registry.UnfinishedArchives("box"); len(left) != 0 {
		w.t.Errorf("unfinished: %v", left)
	}
	return ids
}

func undeleteBox(ctx context.Context, m *Manager) error {
	_, err := m.Undelete(ctx, UndeleteRequest{Name: "box", Timeout: time.Minute})
	return err
}

func TestDestroyArchivedAndUndelete(t *testing.T) {
	w := inhabited(t)
	before, err := w.registry.Load("box")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(w.manager().SSHFiles("box").Identity())
	if err != nil {
		t.Fatal(err)
	}
	archived, err := w.manager().DestroyArchived(t.Context(), "box", "a test")
	if err != nil {
		t.Fatal(err)
	}
	w.checkGone()
	if info, err := os.Stat(w.registry.Archives()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the archives: %v, %v", info, err)
	}
	if diff := cmp.Diff([]string{archived.ID}, w.archives()); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	result, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	w.check("one", engine.Running)
	after := result.Container
	if after.Owner != before.Owner || !after.CreatedAt.Equal(before.CreatedAt) || !after.LastDeployment.After(before.LastDeployment) || !after.Enabled {
		t.Errorf("the record was\n%+v and is\n%+v", before, after)
	}
	if text, err := os.ReadFile(w.file()); err != nil || string(text) != "work" {
		t.Errorf("its file: %q, %v", text, err)
	}
	if again, err := os.ReadFile(w.manager().SSHFiles("box").Identity()); err != nil || string(again) != string(key) {
		t.Errorf("its key is another one: %v", err)
	}
	if left := w.archives(); len(left) != 0 {
		t.Errorf("the archive is still there: %v", left)
	}
	if _, err := os.Stat(w.registry.Archives()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the archives is still there: %v", err)
	}
}

// TestNotArchivedNotDestroyed: without an archive nothing is lost.
func TestNotArchivedNotDestroyed(t *testing.T) {
	for _, call := range []string{"pack", "keep"} {
		t.Run(call, func(t *testing.T) {
			w := inhabited(t)
			w.fail[call] = errors.New("no luck")
			_, err := w.manager().DestroyArchived(t.Context(), "box", "a test")
			var failure *Failure
			if !errors.As(err, &failure) || !errors.Is(err, w.fail[call]) {
				t.Fatalf("the error is %v", err)
			}
			w.check("one", engine.Stopped)
			if _, err := os.Stat(w.file()); err != nil {
				t.Error(err)
			}
			if left := w.archives(); len(left) != 0 {
				t.Errorf("archives: %v", left)
			}
		})
	}
	t.Run("somebody else's", func(t *testing.T) {
		w := inhabited(t)
		m := w.manager()
		m.Caller = person.Person{UID: 1000, Login: "mallory"}
		var owner *NotOwner
		if _, err := m.DestroyArchived(t.Context(), "box", "a test"); !errors.As(err, &owner) {
			t.Errorf("the error is %v", err)
		}
		w.check("one", engine.Running)
	})
}

// TestArchiveKilled: whenever the process is killed, there is the container or
// a whole archive of it, and trying again ends well.
func TestArchiveKilled(t *testing.T) {
	for _, step := range []string{StepArchive, StepStop, StepRemove} {
		t.Run(step, func(t *testing.T) {
			w := inhabited(t)
			w.killedAt(step, func(m *Manager) error {
				_, err := m.DestroyArchived(t.Context(), "box", "a test")
				return err
			})
			if step == StepArchive {
				// It was killed while it wrote.
				unfinished := w.registry.UnfinishedArchive("box", "20261120T120000Z")
				if err := os.MkdirAll(unfinished, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, err := w.manager().DestroyArchived(t.Context(), "box", "a test")
			var missing *registry.NotRegistered
			if err != nil && !errors.As(err, &missing) {
				t.Fatal(err)
			}
			w.checkGone()
			if found := w.archives(); len(found) != 1 {
				t.Fatalf("archives: %v", found)
			}
			if err := undeleteBox(t.Context(), w.manager()); err != nil {
				t.Fatal(err)
			}
			w.check("one", engine.Running)
			if _, err := os.Stat(w.file()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUndeleteKilled(t *testing.T) {
	for _, step := range []string{StepUnpack, StepAllocate, StepFiles, StepProfile, StepStart, StepReady, StepPublish} {
		t.Run(step, func(t *testing.T) {
			w := inhabited(t)
			if _, err := w.manager().DestroyArchived(t.Context(), "box", "a test"); err != nil {
				t.Fatal(err)
			}
			w.killedAt(step, func(m *Manager) error { return undeleteBox(t.Context(), m) })
			if found := w.archives(); len(found) != 1 {
				t.Fatalf("archives: %v", found)
			}
			// The next command takes it back.
			if err := undeleteBox(t.Context(), w.manager()); err != nil {
				t.Fatal(err)
			}
			w.check("one", engine.Running)
			if found := w.archives(); len(found) != 0 {
				t.Errorf("archives: %v", found)
			}
		})
	}
}

func TestUndeleteFails(t *testing.T) {
	for _, call := range []string{"keep", "unpack", "allocate", "guest files", "profile", "start"} {
		t.Run(call, func(t *testing.T) {
			w := inhabited(t)
			if _, err := w.manager().DestroyArchived(t.Context(), "box", "a test"); err != nil {
				t.Fatal(err)
			}
			w.fail[call] = errors.New("no luck")
			err := undeleteBox(t.Context(), w.manager())
			var failure *Failure
			if !errors.Is(err, w.fail[call]) || !errors.As(err, &failure) || !strings.Contains(failure.Now, "is kept") {
				t.Fatalf("the error is %v", err)
			}
			w.checkGone()
			if found := w.archives(); len(found) != 1 {
				t.Errorf("archives: %v", found)
			}
			delete(w.fail, call)
			if err := undeleteBox(t.Context(), w.manager()); err != nil {
				t.Fatal(err)
			}
			w.check("one", engine.Running)
		})
	}
}

func TestUndeleteRefused(t *testing.T) {
	w := inhabited(t)
	refused := func(what string, request UndeleteRequest, target any) {
		t.Helper()
		request.Timeout = time.Minute
		if _, err := w.manager().Undelete(t.Context(), request); err == nil || !errors.As(err, target) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("never archived", UndeleteRequest{Name: "box"}, new(*registry.NoArchive))
	refused("a path", UndeleteRequest{Name: "box", ID: "../../containers/box"}, new(*registry.NoArchive))
	first, err := w.manager().DestroyArchived(t.Context(), "box", "a test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Ensure(t.Context(), request("two")); err != nil {
		t.Fatal(err)
	}
	refused("the name is taken", UndeleteRequest{Name: "box"}, new(*NameTaken))
	refused("another archive", UndeleteRequest{Name: "box", ID: "20200101T000000Z"}, new(*registry.NoArchive))
	w.check("two", engine.Running)
	if err := w.manager().Destroy(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	m := w.manager()
	m.Caller = person.Person{UID: 1000, Login: "mallory"}
	var owner *NotOwner
	if err := undeleteBox(t.Context(), m); !errors.As(err, &owner) {
		t.Errorf("somebody else's: %v", err)
	}
	state := registry.ArchiveState(w.registry.Archive("box", first.ID))
	if err := os.Truncate(state, first.Bytes-1); err != nil {
		t.Fatal(err)
	}
	if err := undeleteBox(t.Context(), w.manager()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged archive: %v", err)
	}
	w.checkGone()
	if err := os.WriteFile(registry.ArchiveRecord(w.registry.Archive("box", first.ID)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a broken record", UndeleteRequest{Name: "box"}, new(*registry.BrokenArchive))
}

func TestUndeleteAs(t *testing.T) {
	w := inhabited(t)
	if _, err := w.manager().DestroyArchived(t.Context(), "box", "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", As: "other", Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	record, err := w.registry.Load("other")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(w.registry.Root("other"), "file")); err != nil || string(text) != "work" || record.Name != "other" {
		t.Errorf("%+v, its file: %q, %v", record, text, err)
	}
	if name, err := os.ReadFile(filepath.Join(w.registry.Guest("other"), "name")); err != nil || string(name) != "other\n" {
		t.Errorf("it is told that it is %q (%v)", name, err)
	}
	if found := w.archives(); len(found) != 0 {
		t.Errorf("archives: %v", found)
	}
}

func TestArchiveNeedsSpace(t *testing.T) {
	w := inhabited(t)
	err := (&NoSpace{Name: "box", Folder: "/f", Needed: 3 << 30, Free: 1 << 30}).Error()
	if !strings.Contains(err, "3GiB") || !strings.Contains(err, "1GiB") {
		t.Errorf("it says %q", err)
	}
	// More than any disk has, and yet no block of it.
	huge, createErr := os.Create(w.file())
	if createErr != nil {
		t.Fatal(createErr)
	}
	defer huge.Close()
	if err := huge.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().checkSpace("box"); err == nil {
		return
	}
	if err := os.MkdirAll(w.registry.Archives(), 0o700); err != nil {
		t.Fatal(err)
	}
	if size, err := w.manager().checkSpace("box"); err != nil || size > 1<<30 {
		t.Errorf("holes count: %d, %v", size, err)
	}
}

func TestPrune(t *testing.T) {
	w := inhabited(t)
	now := time.Now()
	if _, err := w.manager().DestroyArchived(t.Context(), "box", "a test"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Ensure(t.Context(), request("two")); err != nil {
		t.Fatal(err)
	}
	w.generations = nil
	for number := 1; number <= 6; number++ {
		w.generations = append(w.generations, nix.Generation{Number: number, Current: number == 3})
	}
	for _, folder := range []string{w.registry.UnfinishedArchive("gone", "20260101T000000Z"), filepath.Join(w.registry.Temporary(), "removed.gone.1"), filepath.Join(w.registry.Temporary(), "provision.busy.1"), filepath.Join(w.registry.Temporary(), "guest-1")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := w.registry.Lock(t.Context(), "busy", "a test", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	prune := func(after time.Duration, dryRun bool) []string {
		t.Helper()
		m := w.manager()
		m.Now = func() time.Time { return now.Add(after) }
		pruned, err := m.Prune(t.Context(), PruneRequest{Generations: 2, ArchiveFor: 30 * 24 * time.Hour, DryRun: dryRun})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, one := range pruned {
			kinds = append(kinds, one.Kind+" "+one.Name)
		}
		return kinds
	}
	// A renaming that was interrupted.
	renamed := filepath.Join(w.registry.Temporary(), "removed.before.1")
	for _, folder := range []string{renamed, w.registry.Container("after")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.registry.WriteJournal("after", &registry.JournalEntry{Operation: registry.Rename, From: "before", To: "after"}); err != nil {
		t.Fatal(err)
	}
	const generations = 3
	first := append(slices.Repeat([]string{"generation box"}, generations), "leftover gone", "leftover gone")
	if diff := cmp.Diff(first, prune(time.Hour, true)); diff != "" {
		t.Errorf("dry run (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first, prune(time.Hour, false)); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	var left []int
	for _, generation := range w.generations {
		left = append(left, generation.Number)
	}
	if diff := cmp.Diff([]int{3, 5, 6}, left); diff != "" {
		t.Errorf("generations (-want +got):\n%s", diff)
	}
	if again := prune(29*24*time.Hour, false); !slices.Equal(again, []string{"leftover "}) {
		t.Errorf("after 29 days: %v", again)
	}
	if last := prune(31*24*time.Hour, false); !slices.Equal(last, []string{"archive box"}) {
		t.Errorf("after 31 days: %v", last)
	}
	for _, needed := range []string{filepath.Join(w.registry.Temporary(), "provision.busy.1"), renamed} {
		if _, err := os.Stat(needed); err != nil {
			t.Errorf("what another command works with is gone: %v", err)
		}
	}
}

// TestStartedAnew: who starts what has expired is warned before the next stop.
func TestStartedAnew(t *testing.T) {
	for name, start := range map[string]func(*Manager) error{
		"start": func(m *Manager) error {
			_, err := m.Start(t.Context(), "box", time.Minute)
			return err
		},
		"restart": func(m *Manager) error { return m.Restart(t.Context(), "box", time.Minute, time.Minute) },
		"ensure": func(m *Manager) error {
			_, err := m.Ensure(t.Context(), request("one"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := created(t)
			err := w.manager().Visit(t.Context(), "box", "test", 0, func(visit *Visit) error {
				visit.Record.Expiry.StopWarnedAt, visit.Record.Expiry.StoppedAt = time.Now(), time.Now()
				return errors.Join(visit.Notice("soon"), visit.Stop(t.Context()))
			})
			if err != nil {
				t.Fatal(err)
			}
			if w.manager().Notice("box") != "soon" {
				t.Error("there is no notice")
			}
			if err := start(w.manager()); err != nil {
				t.Fatal(err)
			}
			record, err := w.registry.Load("box")
			if err != nil {
				t.Fatal(err)
			}
			if !record.Expiry.StopWarnedAt.IsZero() || !record.Expiry.StoppedAt.IsZero() || !record.Enabled || w.state.Status != engine.Running {
				t.Errorf("%+v, %s", record.Expiry, w.state.Status)
			}
			if name == "ensure" && w.manager().Notice("box") != "" {
				t.Error("the notice is still there")
			}
		})
	}
}

// TestUndeleteNoStart: a container that does not come up is still brought back.
func TestUndeleteNoStart(t *testing.T) {
	w := created(t)
	if _, err := w.manager().DestroyArchived(t.Context(), "box", "test"); err != nil {
		t.Fatal(err)
	}
	w.fail["start"] = errors.New("it does not boot")
	_, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", Timeout: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "--no-start") {
		t.Fatalf("with a start: %v", err)
	}
	result, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", NoStart: true, Timeout: time.Minute})
	if err != nil || result.Started {
		t.Fatalf("%+v, %v", result, err)
	}
	record, err := w.registry.Load("box")
	if err != nil || record.Enabled || record.LastDeployment.IsZero() || !slices.Equal(w.published, []string{"box"}) {
		t.Errorf("%+v, published %v, %v", record, w.published, err)
	}
	if archives, err := w.registry.ListArchives("box"); err != nil || len(archives) != 0 {
		t.Errorf("archives: %+v, %v", archives, err)
	}
}
