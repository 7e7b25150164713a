package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io"
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
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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

// sleeper starts a process that waits, and ends it at the end of the test.
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
	// Until then it is the shell that joins.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", process.Pid())); err == nil && string(name) == "sleep\n" {
			return process
		}
		if time.Now().After(deadline) {
			t.Error("the command does not run")
			return process
		}
	}
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
	// Whatever starts it, it is there before its first instruction.
	output, outputEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	seen, err := group.Top().Start(execx.New(), execx.Command{Name: "cat", Args: []string{"/proc/self/cgroup"}, Stdout: outputEnd, Env: []string{}})
	_ = outputEnd.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	if err := seen.Wait(); err != nil {
		t.Fatal(err)
	}
	if count := strings.Count(string(text), "/"+group.path+"\n"); count != len(group.tree.hierarchies) {
		t.Errorf("the process was in %d of %d cgroups:\n%s", count, len(group.tree.hierarchies), text)
	}
	first := sleeper(t, group.Top())
	// Several at once.
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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

func TestDoorAndAdmit(t *testing.T) {
	group := realGroup(t, "enter")
	for _, one := range group.tree.hierarchies {
		if one.unified || one.controllers[0] == "name=systemd" {
			if err := os.Mkdir(filepath.Join(group.folder(one), payload), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	cgroups := func(pid int) string {
		t.Helper()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		if count := strings.Count(string(text), "/"+group.path); count != len(group.tree.hierarchies) {
			t.Errorf("the process is in %d of %d cgroups:\n%s", count, len(group.tree.hierarchies), text)
		}
		return string(text)
	}
	for range 2 {
		door, err := group.Door()
		if err != nil {
			t.Fatal(err)
		}
		process := sleeper(t, door)
		if text := cgroups(process.Pid()); strings.Contains(text, "/"+payload) {
			t.Errorf("at the door, the process is seen by the guest:\n%s", text)
		}
		if err := group.Admit(process.Pid()); err != nil {
			t.Fatal(err)
		}
		text := cgroups(process.Pid())
		if group.tree.Unified() && !strings.Contains(text, "0::/"+group.path+"/payload/devhost-exec\n") {
			t.Errorf("inside, the process is in\n%s", text)
		}
		if strings.Contains(text, "name=systemd") && !strings.Contains(text, "name=systemd:/"+group.path+"/payload\n") {
			t.Errorf("inside, the process is in\n%s", text)
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

func TestStartWhatIsNotThere(t *testing.T) {
	group := realGroup(t, "missing")
	_, err := group.Top().Start(execx.New(), execx.Command{Name: "no-such-program"})
	var failed *execx.Error
	if !errors.As(err, &failed) || !failed.NotFound {
		t.Errorf("error %v", err)
	}
	if err := group.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	process, err := group.Top().Start(execx.New(), execx.Command{Name: "true"})
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); !errors.As(err, &failed) || failed.ExitCode != 125 {
		t.Errorf("without its cgroup: error %v", err)
	}
}
