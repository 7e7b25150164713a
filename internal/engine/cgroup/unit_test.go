package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"devhost/internal/registry"
)

// folder makes a cgroup with its control files, all empty.
func (f *fake) folder(path string, files ...string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Join(f.root, path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.files(path, files...)
}

func TestIOWeight(t *testing.T) {
	tests := []struct {
		name string
		// kind is that of the hierarchy "systemd", file a control file of it.
		kind, file string
		weight     int64
		want       string
	}{
		{"v2", "v2:io", "io.weight", 250, "default 250"},
		{"v2, usual", "v2:io", "io.weight", 0, "default 100"},
		{"v2 with BFQ alone", "v2:io", "io.bfq.weight", 50, "50"},
		{"v1 with BFQ", "rw,blkio", "blkio.bfq.weight", 10000, "1000"},
		{"v1 with BFQ, light", "rw,blkio", "blkio.bfq.weight", 1, "1"},
		{"v1 with BFQ, usual", "rw,blkio", "blkio.bfq.weight", 0, "100"},
		{"v1 with CFQ", "rw,blkio", "blkio.weight", 200, "1000"},
		{"v1 with CFQ, light", "rw,blkio", "blkio.weight", 1, "10"},
		{"v1 with CFQ, usual", "rw,blkio", "blkio.weight", 0, "500"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFake(t, map[string]string{"systemd": test.kind})
			f.folder("systemd", test.file)
			f.folder("systemd/devhost-i/demo", test.file)
			if !f.tree.IOWeight() {
				t.Error("this machine is said to have no weights")
			}
			if err := f.tree.Group("i", "demo").SetLimits(registry.Limits{IOWeight: test.weight}); err != nil {
				t.Fatal(err)
			}
			if got := f.read("systemd/devhost-i/demo/" + test.file); got != test.want {
				t.Errorf("it holds %q, want %q", got, test.want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		f := newFake(t, map[string]string{"systemd": "rw,blkio"})
		f.folder("systemd/devhost-i/demo")
		if f.tree.IOWeight() {
			t.Error("this machine is said to have weights")
		}
		if err := f.tree.Group("i", "demo").SetLimits(registry.Limits{IOWeight: 10}); err != nil {
			t.Errorf("a weight is a wish, but: %v", err)
		}
	})
}

// systemd makes cgroups for a unit where it has controllers to turn on, and in
// its own hierarchy.
func TestUnit(t *testing.T) {
	const unit = "machine.slice/devhost@demo.service"
	f := newFake(t, hybrid)
	f.folder("unified/"+unit+"/payload", "cgroup.procs")
	f.write("unified/"+unit+"/cgroup.procs", "")
	f.folder("systemd/"+unit, "cgroup.procs")
	f.folder("memory/"+unit, "cgroup.procs")
	f.write("memory/cgroup.procs", "1\n2\n")
	f.write("unified/"+unit+"/payload/cgroup.procs", "4711\n")
	group := f.tree.Unit("/"+unit, "demo")
	pids, err := group.PIDs()
	if err != nil || len(pids) != 1 || pids[0] != 4711 {
		t.Errorf("its processes are %v, %v", pids, err)
	}
	if _, err := group.Door(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"unified/" + unit + "/devhost-exec": true,
		"pids/machine.slice":                false,
		"cpu/machine.slice":                 false,
	} {
		if _, err := os.Stat(filepath.Join(f.root, path)); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if pids, err := f.tree.Unit("../../etc", "demo").PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("outside of the hierarchies: %v, %v", pids, err)
	}
}

func TestMakeRoom(t *testing.T) {
	const unit = "machine.slice/devhost@demo.service"
	t.Run("v2, fits", func(t *testing.T) {
		f := newFake(t, unified)
		f.folder("unified/"+unit, "memory.high")
		f.write("unified/"+unit+"/memory.current", "1000\n")
		if err := f.tree.Unit(unit, "demo").MakeRoom(2000); err != nil {
			t.Fatal(err)
		}
		if got := f.read("unified/" + unit + "/memory.high"); got != "max" {
			t.Errorf("memory.high stays at %q", got)
		}
	})
	t.Run("v2, does not fit", func(t *testing.T) {
		f := newFake(t, unified)
		f.folder("unified/"+unit, "memory.high")
		f.write("unified/"+unit+"/memory.current", "3000\n")
		err := f.tree.Unit(unit, "demo").MakeRoom(2000)
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Name != "demo" || !errors.Is(err, unix.EBUSY) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("v1", func(t *testing.T) {
		f := newFake(t, legacy)
		f.folder("memory/"+unit, "memory.limit_in_bytes")
		if err := f.tree.Unit(unit, "demo").MakeRoom(2000); err != nil {
			t.Fatal(err)
		}
		if got := f.read("memory/" + unit + "/memory.limit_in_bytes"); got != "2000" {
			t.Errorf("the limit is %q", got)
		}
	})
	t.Run("nothing is counted", func(t *testing.T) {
		f := newFake(t, map[string]string{"unified": "v2:pids"})
		f.folder("unified/" + unit)
		if err := f.tree.Unit(unit, "demo").MakeRoom(2000); err != nil {
			t.Error(err)
		}
	})
	t.Run("no limit", func(t *testing.T) {
		f := newFake(t, unified)
		f.folder("unified/" + unit)
		if err := f.tree.Unit(unit, "demo").MakeRoom(0); err != nil {
			t.Error(err)
		}
	})
}
