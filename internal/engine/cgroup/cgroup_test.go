package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"

	"devhost/internal/registry"
)

// fake is a folder that looks like mounted hierarchies.
type fake struct {
	t    *testing.T
	root string
	tree *Tree
}

// newFake mounts hierarchies: "v2" or the options of a v1 mount.
func newFake(t *testing.T, hierarchies map[string]string) *fake {
	t.Helper()
	f := &fake{t: t, root: t.TempDir()}
	var mounts []*mountinfo.Info
	for _, name := range []string{"cpu", "cpuset", "memory", "pids", "systemd", "unified"} {
		kind, mounted := hierarchies[name]
		if !mounted {
			continue
		}
		mount := &mountinfo.Info{Mountpoint: filepath.Join(f.root, name), FSType: "cgroup", VFSOptions: kind}
		if err := os.Mkdir(mount.Mountpoint, 0o755); err != nil {
			t.Fatal(err)
		}
		if controllers, unified := strings.CutPrefix(kind, "v2:"); unified {
			mount.FSType, mount.VFSOptions = "cgroup2", "rw"
			f.write(name+"/cgroup.controllers", controllers)
			f.write(name+"/cgroup.subtree_control", "")
		}
		mounts = append(mounts, mount)
	}
	tree, err := fromMounts(mounts)
	if err != nil {
		t.Fatal(err)
	}
	f.tree = tree
	return f
}

func (f *fake) write(path, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.root, path), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) read(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.root, path))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// files writes the control files that a kernel has in a new cgroup, all empty.
func (f *fake) files(folder string, names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.write(filepath.Join(folder, name), "")
	}
}

func TestControllersOf(t *testing.T) {
	tests := []struct {
		options string
		want    []string
	}{
		{"rw,memory", []string{"memory"}},
		{"rw,cpuacct,cpu", []string{"cpu", "cpuacct"}},
		{"rw,xattr,name=systemd", []string{"name=systemd"}},
		{"rw,seclabel,xattr,release_agent=/lib/x,name=systemd", []string{"name=systemd"}},
		{"ro,clone_children,cpuset,noprefix", []string{"cpuset"}},
	}
	for _, test := range tests {
		t.Run(test.options, func(t *testing.T) {
			if diff := cmp.Diff(test.want, controllersOf(test.options)); diff != "" {
				t.Errorf("controllers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSameHierarchyTwice(t *testing.T) {
	tree, err := fromMounts([]*mountinfo.Info{
		{Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", FSType: "cgroup", VFSOptions: "rw,cpu,cpuacct"},
		{Mountpoint: "/other", FSType: "cgroup", VFSOptions: "rw,cpuacct,cpu"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.hierarchies) != 1 || tree.hierarchies[0].mount != "/sys/fs/cgroup/cpu,cpuacct" {
		t.Errorf("hierarchies %+v", tree.hierarchies)
	}
	if tree.Unified() {
		t.Error("v1 is taken for v2")
	}
	if _, err := fromMounts(nil); err == nil {
		t.Error("no hierarchy is no error")
	}
}

var (
	legacy  = map[string]string{"cpu": "rw,cpu,cpuacct", "cpuset": "rw,cpuset", "memory": "rw,memory", "pids": "rw,pids", "systemd": "rw,name=systemd"}
	hybrid  = map[string]string{"cpu": "rw,cpu", "memory": "rw,memory", "pids": "rw,pids", "systemd": "rw,name=systemd", "unified": "v2:hugetlb"}
	unified = map[string]string{"unified": "v2:cpuset cpu io memory hugetlb pids rdma"}
)

func TestCreate(t *testing.T) {
	t.Run("v1", func(t *testing.T) {
		f := newFake(t, legacy)
		f.write("cpuset/cpuset.cpus", "0-7\n")
		f.write("cpuset/cpuset.mems", "0\n")
		for _, folder := range []string{"cpuset/devhost-i", "cpuset/devhost-i/demo"} {
			if err := os.Mkdir(filepath.Join(f.root, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			f.files(folder, "cpuset.cpus", "cpuset.mems")
		}
		if err := f.tree.Group("i", "demo").Create(); err != nil {
			t.Fatal(err)
		}
		for _, folder := range []string{"cpu", "memory", "pids", "systemd"} {
			if info, err := os.Stat(filepath.Join(f.root, folder, "devhost-i/demo")); err != nil || !info.IsDir() {
				t.Errorf("no cgroup in %s: %v", folder, err)
			}
		}
		if got := f.read("cpuset/devhost-i/demo/cpuset.cpus"); got != "0-7\n" {
			t.Errorf("processors %q", got)
		}
		if got := f.read("cpuset/devhost-i/demo/cpuset.mems"); got != "0\n" {
			t.Errorf("memory nodes %q", got)
		}
	})
	t.Run("v2", func(t *testing.T) {
		f := newFake(t, unified)
		f.write("unified/cgroup.subtree_control", "memory")
		if err := os.Mkdir(filepath.Join(f.root, "unified/devhost-i"), 0o755); err != nil {
			t.Fatal(err)
		}
		f.write("unified/devhost-i/cgroup.subtree_control", "cpuset cpu io memory")
		if err := f.tree.Group("i", "demo").Create(); err != nil {
			t.Fatal(err)
		}
		// The kernel takes one write after the other; a file keeps the last.
		if got := f.read("unified/cgroup.subtree_control"); got != "+pids" {
			t.Errorf("at the root, the last controller turned on is %q", got)
		}
		if got := f.read("unified/devhost-i/cgroup.subtree_control"); got != "+pids" {
			t.Errorf("below, the last controller turned on is %q", got)
		}
	})
}

var allLimits = registry.Limits{MemoryBytes: 4 << 30, CPUs: 1.5, Tasks: 500}

func TestSetLimits(t *testing.T) {
	const folder = "devhost-i/demo/"
	t.Run("v1", func(t *testing.T) {
		f := newFake(t, hybrid)
		group := f.tree.Group("i", "demo")
		if err := group.Create(); err != nil {
			t.Fatal(err)
		}
		f.files("memory/"+folder, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
		f.files("cpu/"+folder, "cpu.cfs_period_us", "cpu.cfs_quota_us")
		f.files("pids/"+folder, "pids.max")
		check := func(limits registry.Limits, want map[string]string) {
			t.Helper()
			if err := group.SetLimits(limits); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for path := range want {
				got[path] = f.read(path)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		}
		check(allLimits, map[string]string{
			"memory/" + folder + "memory.limit_in_bytes":       "4294967296",
			"memory/" + folder + "memory.memsw.limit_in_bytes": "4294967296",
			"cpu/" + folder + "cpu.cfs_period_us":              "100000",
			"cpu/" + folder + "cpu.cfs_quota_us":               "150000",
			"pids/" + folder + "pids.max":                      "500",
		})
		check(registry.Limits{CPUs: 0.001}, map[string]string{"cpu/" + folder + "cpu.cfs_quota_us": "1000"})
		check(registry.Limits{}, map[string]string{
			"memory/" + folder + "memory.limit_in_bytes":       "-1",
			"memory/" + folder + "memory.memsw.limit_in_bytes": "-1",
			"cpu/" + folder + "cpu.cfs_quota_us":               "-1",
			"pids/" + folder + "pids.max":                      "max",
		})
	})
	t.Run("v2", func(t *testing.T) {
		f := newFake(t, unified)
		group := f.tree.Group("i", "demo")
		if err := group.Create(); err != nil {
			t.Fatal(err)
		}
		const below = "unified/" + folder
		f.files(below, "memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max")
		f.write(below+"memory.current", "1000\n")
		read := func() map[string]string {
			got := map[string]string{}
			for _, name := range []string{"memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max"} {
				got[name] = f.read(below + name)
			}
			return got
		}
		if err := group.SetLimits(allLimits); err != nil {
			t.Fatal(err)
		}
		limited := map[string]string{"memory.max": "4294967296", "memory.high": "max", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "500"}
		if diff := cmp.Diff(limited, read()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		// Below what is in use, the kernel would kill.
		err := group.SetLimits(registry.Limits{MemoryBytes: 999})
		if limit := new(LimitError); !errors.As(err, &limit) || limit.Limit != "memory" || !strings.HasSuffix(err.Error(), "devhost stop demo, and then give it the limit with: devhost ensure demo --memory ...") {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff(limited, read()); diff != "" {
			t.Errorf("files after a refused limit (-want +got):\n%s", diff)
		}
		if err := group.SetLimits(registry.Limits{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "cpu.max": "max 100000", "pids.max": "max"}, read()); diff != "" {
			t.Errorf("files without limits (-want +got):\n%s", diff)
		}
	})
	t.Run("no controllers", func(t *testing.T) {
		f := newFake(t, map[string]string{"systemd": "rw,name=systemd"})
		group := f.tree.Group("i", "demo")
		if err := group.Create(); err != nil {
			t.Fatal(err)
		}
		if err := group.SetLimits(registry.Limits{}); err != nil {
			t.Errorf("without limits: %v", err)
		}
		for limit, limits := range map[string]registry.Limits{"memory": {MemoryBytes: 1}, "cpu": {CPUs: 1}, "task": {Tasks: 1}} {
			var failed *LimitError
			if err := group.SetLimits(limits); !errors.As(err, &failed) || failed.Limit != limit || !strings.Contains(err.Error(), "controller") {
				t.Errorf("%s: error %v", limit, err)
			}
		}
	})
	t.Run("controller that is not turned on", func(t *testing.T) {
		// The kernel has the files only of those that are.
		group := newFake(t, unified).tree.Group("i", "demo")
		if err := group.Create(); err != nil {
			t.Fatal(err)
		}
		if err := group.SetLimits(registry.Limits{}); err != nil {
			t.Errorf("without limits: %v", err)
		}
		for limit, limits := range map[string]registry.Limits{"memory": {MemoryBytes: 1}, "cpu": {CPUs: 1}, "task": {Tasks: 1}} {
			var failed *LimitError
			if err := group.SetLimits(limits); !errors.As(err, &failed) || failed.Limit != limit || !strings.Contains(err.Error(), "controller") {
				t.Errorf("%s: error %v", limit, err)
			}
		}
	})
}
