package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVisitors(t *testing.T) {
	f := newFake(t, hybrid)
	group := f.tree.Group("test", "demo")
	if pids, err := group.Visitors(); err != nil || len(pids) != 0 {
		t.Errorf("without a cgroup: %v, %v", pids, err)
	}
	for hierarchy, pids := range map[string]string{"memory": "12\n0\n", "systemd": "12\n7\n", "unified": ""} {
		folder := filepath.Join(hierarchy, "devhost-test/demo/devhost-exec")
		if err := os.MkdirAll(filepath.Join(f.root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		f.write(filepath.Join(folder, "cgroup.procs"), pids)
	}
	// What the guest made does not count.
	inside := filepath.Join(f.root, "unified/devhost-test/demo/payload/devhost-exec")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	f.write("unified/devhost-test/demo/payload/devhost-exec/cgroup.procs", "99\n")
	pids, err := group.Visitors()
	if diff := cmp.Diff([]int{7, 12}, pids); err != nil || diff != "" {
		t.Errorf("%v; visitors (-want +got):\n%s", err, diff)
	}
}
