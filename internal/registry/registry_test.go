package registry

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newRegistry(t *testing.T) *Registry {
	t.Helper()
	layout, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	registry := New(layout)
	if err := registry.Prepare(); err != nil {
		t.Fatal(err)
	}
	return registry
}

func save(t *testing.T, registry *Registry, container *Container) {
	t.Helper()
	if err := os.MkdirAll(registry.Container(container.Name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := registry.Save(container); err != nil {
		t.Fatal(err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	registry := newRegistry(t)
	want := &Container{
		Name: "demo", Owner: "ada", CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Pin:    Pin{Reference: "./channel", Kind: "folder", StorePath: "/nix/store/x"},
		System: "/nix/store/00000000000000000000000000000000-system", Aliases: []string{"www"},
		Limits:  Limits{MemoryBytes: 1 << 30, CPUs: 1.5, Tasks: 100},
		Address: Address{IPv4: "10.0.0.2", IPv6: "fd00::2", MAC: "02:00:00:00:00:01", HostInterface: "vd-1"},
		Enabled: true,
	}
	save(t, registry, want)
	got, err := registry.Load("demo")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadErrors(t *testing.T) {
	for name, test := range map[string]struct{ content, message string }{
		"empty":         {"", "EOF"},
		"truncated":     {`{"version":1,"name":"bad`, "unexpected EOF"},
		"not JSON":      {"hello", "invalid character"},
		"newer version": {`{"version":2,"name":"bad"}`, "it has version 2, this devhost reads version 1"},
		"other name":    {`{"version":1,"name":"other"}`, `it names container "other"`},
		"no name":       {`{"version":1}`, "name"},
		"bad system":    {`{"version":1,"name":"bad","system":"/etc"}`, `system "/etc" is no store path`},
	} {
		t.Run(name, func(t *testing.T) {
			registry := newRegistry(t)
			if err := os.MkdirAll(registry.Container("bad"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(registry.Record("bad"), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := registry.Load("bad")
			var broken *Broken
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), test.message) {
				t.Errorf("Load = %v, want a Broken with %q", err, test.message)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := newRegistry(t).Load("nobody")
		var missing *NotRegistered
		if !errors.As(err, &missing) {
			t.Errorf("Load = %v", err)
		}
	})
}

func TestListShowsBrokenOnesBesideTheOthers(t *testing.T) {
	registry := newRegistry(t)
	save(t, registry, &Container{Name: "b"})
	save(t, registry, &Container{Name: "a"})
	for _, name := range []string{"broken", "empty", "half-made", "NotAName", "no-record/root"} {
		if err := os.MkdirAll(registry.Container(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(registry.Record("broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := registry.WriteJournal("half-made", &JournalEntry{Operation: Create}); err != nil {
		t.Fatal(err)
	}
	entries, err := registry.List()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, entry := range entries {
		got[entry.Name] = entry.Err == nil
	}
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true, "broken": false, "no-record": false}, got); diff != "" {
		t.Errorf("name -> usable (-want +got):\n%s", diff)
	}
}

func TestListWithoutAStateFolder(t *testing.T) {
	entries, err := New(Layout{State: filepath.Join(t.TempDir(), "none")}).List()
	if err != nil || len(entries) != 0 {
		t.Errorf("List = %v, %v", entries, err)
	}
}

func TestPrepareClosesTheContainersFolder(t *testing.T) {
	registry := newRegistry(t)
	if err := os.Chmod(registry.Containers(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := registry.Prepare(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(registry.Containers())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v: a guest's setuid files would be in reach of host users", info.Mode())
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	registry := newRegistry(t)
	unlock, err := registry.Lock(context.Background(), "demo", "ensure", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = registry.Lock(context.Background(), "demo", "stop", 0)
	var locked *Locked
	if !errors.As(err, &locked) || !strings.Contains(locked.Holder, "ensure") || locked.What != "container demo" {
		t.Errorf("second Lock = %v", err)
	}
	if _, err := registry.Lock(context.Background(), "other", "stop", 0); err != nil {
		t.Errorf("another container's lock: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := registry.Lock(cancelled, "demo", "stop", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Lock = %v", err)
	}
	unlock()
	again, err := registry.Lock(context.Background(), "demo", "stop", 0)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestJournal(t *testing.T) {
	registry := newRegistry(t)
	save(t, registry, &Container{Name: "demo"})
	if entry, err := registry.ReadJournal("demo"); entry != nil || err != nil {
		t.Fatalf("without a journal: %v, %v", entry, err)
	}
	written := &JournalEntry{Operation: Update, Step: "switch", Previous: &Container{Name: "demo", System: "/nix/store/x"}, Switched: true}
	if err := registry.WriteJournal("demo", written); err != nil {
		t.Fatal(err)
	}
	read, err := registry.ReadJournal("demo")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written, read); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		name   string
		record bool
		want   Operation
	}{{"with-record", true, Update}, {"without-record", false, Create}} {
		t.Run("unreadable "+test.name, func(t *testing.T) {
			if err := os.MkdirAll(registry.Container(test.name), 0o700); err != nil {
				t.Fatal(err)
			}
			if test.record {
				save(t, registry, &Container{Name: test.name})
			}
			if err := os.WriteFile(registry.Journal(test.name), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			entry, err := registry.ReadJournal(test.name)
			if err != nil || entry == nil || entry.Operation != test.want {
				t.Errorf("ReadJournal = %+v, %v", entry, err)
			}
		})
	}
	if err := registry.RemoveJournal("demo"); err != nil {
		t.Fatal(err)
	}
	if err := registry.RemoveJournal("demo"); err != nil {
		t.Errorf("removing it twice: %v", err)
	}
}

func TestInstancesDiffer(t *testing.T) {
	one, other := Layout{State: "/a"}, Layout{State: "/b"}
	if one.Instance() == other.Instance() || len(one.Instance()) != 8 {
		t.Errorf("instances %q and %q", one.Instance(), other.Instance())
	}
	if one.Profile("x") == other.Profile("x") || one.Runtime() == other.Runtime() || one.GCRoots() == other.GCRoots() {
		t.Error("two state folders share global files")
	}
}

// FuzzDecode: whatever a state file holds, the answer is a usable record or an
// error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"demo","system":"/nix/store/x"}`))
	f.Add([]byte(`{"version":1,"name":"../x"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		container, err := Decode(data)
		if err != nil {
			return
		}
		if strings.ContainsAny(container.Name, "/.") || container.Name == "" {
			t.Errorf("name %q got through", container.Name)
		}
	})
}
