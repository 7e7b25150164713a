package box_test

import (
	"strings"
	"testing"

	"devhost/tests/box"
)

// TestGrowing clones, restores and renames on a host with systemd, as one
// developer does with a container of another.
func TestGrowing(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure shop "+minimal)
	inside := func(name, script string) string {
		t.Helper()
		return strings.TrimSpace(h.Must("bob", "sudo devhost exec "+name+" -- sh -c '"+script+"'"))
	}
	inside("shop", "echo kept >/root/file")
	if output := h.Must("bob", "sudo devhost clone shop copy"); !strings.Contains(output, "frozen meanwhile") {
		t.Errorf("clone says %q", output)
	}
	for _, name := range []string{"shop", "copy"} {
		if found := inside(name, "cat /root/file; hostname"); found != "kept\n"+name {
			t.Errorf("in %s there is %q", name, found)
		}
	}
	if machines := h.Must("root", "machinectl list --no-legend"); !strings.Contains(machines, "copy") || !strings.Contains(machines, "shop") {
		t.Errorf("the machines are %s", machines)
	}
	// The clone is bob's, the source is alice's.
	h.Fails("bob", "sudo devhost rename shop store", 7, "--force")
	h.Must("bob", "sudo devhost snapshot create copy one")
	inside("copy", "echo changed >/root/file")
	h.Must("bob", "sudo devhost snapshot restore copy one")
	if found := inside("copy", "cat /root/file"); found != "kept" {
		t.Errorf("after the restore there is %q", found)
	}
	h.Must("bob", "sudo devhost rename copy store")
	if found := inside("store", "cat /root/file; hostname"); found != "kept\nstore" {
		t.Errorf("after the renaming there is %q", found)
	}
	states := status(h)
	if _, there := states["copy"]; there || states["store"] != "running" || states["shop"] != "running" {
		t.Errorf("the states are %v", states)
	}
	if units := h.Must("root", "systemctl list-units --all --no-legend --plain '*copy*' '*store*'"); strings.Contains(units, "copy") || !strings.Contains(units, "store") {
		t.Errorf("the units are %s", units)
	}
	h.Fails("alice", "sudo devhost destroy store", 7, "--force")
	h.Must("bob", "sudo devhost destroy store")
}
