package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"devhost/internal/execx"
)

// TestFreezeWrites looks at what is written where, on fake hierarchies.
func TestFreezeWrites(t *testing.T) {
	for _, test := range []struct {
		name        string
		hierarchies map[string]string
		// file is the control file, with what it holds when frozen and thawed.
		file, frozen, thawed string
	}{
		{"v2", map[string]string{"unified": "v2:memory"}, "unified/devhost-i/box/cgroup.freeze", "1", "0"},
		{"v1", map[string]string{"memory": "rw,memory", "pids": "rw,freezer"}, "pids/devhost-i/box/freezer.state", "FROZEN", "THAWED"},
		{"hybrid", map[string]string{"unified": "v2:", "pids": "rw,freezer"}, "unified/devhost-i/box/cgroup.freeze", "1", "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, test.hierarchies)
			if !f.tree.Freezes() {
				t.Error("it is said not to freeze")
			}
			folder := filepath.Dir(test.file)
			if err := os.MkdirAll(filepath.Join(f.root, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			f.write(test.file, "")
			// As the kernel says when all stand still.
			f.write(filepath.Join(folder, "cgroup.events"), "populated 1\nfrozen 1\n")
			group := f.tree.Group("i", "box")
			if err := group.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			if found := f.read(test.file); found != test.frozen {
				t.Errorf("frozen, it holds %q", found)
			}
			if err := group.Thaw(); err != nil {
				t.Fatal(err)
			}
			if found := f.read(test.file); found != test.thawed {
				t.Errorf("thawed, it holds %q", found)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		f := newFake(t, map[string]string{"memory": "rw,memory"})
		if f.tree.Freezes() || f.tree.Group("i", "box").Freeze(t.Context()) == nil {
			t.Error("it freezes without a freezer")
		}
	})
	t.Run("never still", func(t *testing.T) {
		f := newFake(t, map[string]string{"unified": "v2:"})
		folder := filepath.Join(f.root, "unified/devhost-i/box")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		f.write("unified/devhost-i/box/cgroup.freeze", "")
		f.write("unified/devhost-i/box/cgroup.events", "populated 1\nfrozen 0\n")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.tree.Group("i", "box").Freeze(ctx); err == nil {
			t.Error("no error")
		}
		if found := f.read("unified/devhost-i/box/cgroup.freeze"); found != "0" {
			t.Errorf("what could not be held is left at %q", found)
		}
	})
	t.Run("no cgroup", func(t *testing.T) {
		f := newFake(t, map[string]string{"unified": "v2:"})
		if err := f.tree.Group("i", "box").Thaw(); err != nil {
			t.Error(err)
		}
	})
}

// TestFreezeHolds holds a process that counts.
func TestFreezeHolds(t *testing.T) {
	group := realGroup(t, "held")
	if !group.tree.Freezes() {
		t.Skip("this machine has no freezer")
	}
	path := filepath.Join(t.TempDir(), "count")
	process, err := group.Top().Start(execx.New(), execx.Command{Name: "sh", Args: []string{"-c", fmt.Sprintf("while :; do echo >>%s; sleep 0.005; done", path)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := group.Kill(context.Background()); err != nil {
			t.Error(err)
		}
		_ = process.Wait()
	}()
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	grows := func() {
		t.Helper()
		before, deadline := size(), time.Now().Add(30*time.Second)
		for size() == before {
			if time.Now().After(deadline) {
				t.Fatal("the process does not go on")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	grows()
	for range 3 {
		if err := group.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := size()
		time.Sleep(100 * time.Millisecond)
		if after := size(); after != before {
			t.Errorf("it went on from %d to %d", before, after)
		}
		if err := group.Thaw(); err != nil {
			t.Fatal(err)
		}
		grows()
	}
	// What is held can be killed.
	if err := group.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := group.Kill(ctx); err != nil {
		t.Error(err)
	}
	if pids, err := group.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
}
