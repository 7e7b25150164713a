package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/registry"
)

// realGroup is a cgroup of this machine that is gone after the test.
func realGroup(t *testing.T, name string) *Group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	tree, err := Discover()
	if err != nil {
		t.Skipf("this machine has no cgroups: %v", err)
	}
	group := tree.Group(fmt.Sprintf("test%d", os.Getpid()), name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := group.Kill(ctx); err != nil {
			t.Error(err)
		}
		if err := group.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := group.Create(); err != nil {
		t.Fatal(err)
	}
	return group
}

// sleeper starts a process that waits, and waits for it at the end.
func sleeper(t *testing.T, place Place) execx.Process {
	t.Helper()
	process, err := place.Start(execx.New(), execx.Command{Name: "sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Signal(os.Kill)
		_ = process.Wait()
	})
	return process
}

func TestLife(t *testing.T) {
	group := realGroup(t, "life")
	if err := group.Create(); err != nil {
		t.Errorf("making it again: %v", err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	first := sleeper(t, group.Top())
	// Several at once: each has its own thread.
	var all sync.WaitGroup
	pids := make([]int, 4)
	for i := range pids {
		all.Go(func() { pids[i] = sleeper(t, group.Top()).Pid() })
	}
	all.Wait()
	pids = append(pids, first.Pid())
	slices.Sort(pids)
	got, err := group.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pids, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
	for _, one := range group.tree.hierarchies {
		text, err := os.ReadFile(filepath.Join(group.folder(one), "cgroup.procs"))
		if err != nil || strings.Count(string(text), "\n") != len(pids) {
			t.Errorf("in %s: %q, %v", one.mount, text, err)
		}
	}
	after, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("we have moved ourselves (-before +after):\n%s", diff)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	short, cancelShort := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelShort()
	if err := group.Remove(short); err == nil {
		t.Error("a cgroup with processes was removed")
	}
	// What is made inside goes too.
	for _, one := range group.tree.hierarchies {
		if err := os.MkdirAll(filepath.Join(group.folder(one), "a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := group.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := group.PIDs(); err != nil || len(left) > 0 {
		t.Errorf("after Kill: %v, %v", left, err)
	}
	if err := group.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	for _, one := range group.tree.hierarchies {
		if _, err := os.Stat(filepath.Join(one.mount, group.parent)); !os.IsNotExist(err) {
			t.Errorf("left in %s (%v)", one.mount, err)
		}
	}
	if err := group.Remove(ctx); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	// A cgroup that was killed can be made and used again.
	if err := group.Create(); err != nil {
		t.Fatal(err)
	}
	again := sleeper(t, group.Top())
	time.Sleep(10 * time.Millisecond)
	if left, err := group.PIDs(); err != nil || !slices.Equal(left, []int{again.Pid()}) {
		t.Errorf("after making it again: %v, %v", left, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	// Creating one while the last other one is removed, again and again: the
	// folder that they share comes and goes.
	first := realGroup(t, "first")
	second := first.tree.Group(strings.TrimPrefix(first.parent, "devhost-"), "second")
	var all sync.WaitGroup
	for _, group := range []*Group{first, second} {
		all.Go(func() {
			for range 30 {
				if err := group.Create(); err != nil {
					t.Error(err)
				}
				if err := group.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestEnter(t *testing.T) {
	group := realGroup(t, "enter")
	for _, one := range group.tree.hierarchies {
		if one.unified {
			if err := os.Mkdir(filepath.Join(group.folder(one), payload), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		place, err := group.Enter()
		if err != nil {
			t.Fatal(err)
		}
		process := sleeper(t, place)
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", process.Pid()))
		if err != nil {
			t.Fatal(err)
		}
		want := "/" + group.path
		if group.tree.Unified() && !strings.Contains(string(text), "0::"+want+"/payload/devhost-exec\n") {
			t.Errorf("the process is in\n%s", text)
		}
		if count := strings.Count(string(text), want); count != len(group.tree.hierarchies) {
			t.Errorf("the process is in %d of %d cgroups:\n%s", count, len(group.tree.hierarchies), text)
		}
	}
}

func TestRealLimits(t *testing.T) {
	group := realGroup(t, "limits")
	// Down, up, away: each order of the two memory limits.
	for _, limits := range []registry.Limits{
		{MemoryBytes: 1 << 30, CPUs: 2, Tasks: 100}, {MemoryBytes: 64 << 20, CPUs: 0.5, Tasks: 10}, {MemoryBytes: 2 << 30}, {},
	} {
		if err := group.SetLimits(limits); err != nil {
			t.Errorf("%+v: %v", limits, err)
		}
	}
	if folder, isUnified, found := group.controlled("pids"); found && !isUnified {
		if text, err := os.ReadFile(filepath.Join(folder, "pids.max")); err != nil || string(text) != "max\n" {
			t.Errorf("pids.max is %q, %v", text, err)
		}
	}
}
