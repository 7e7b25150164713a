package idmap

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

// TestTree: files belong to whom the mapping says, and to nobody where it says
// nothing.
func TestTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := t.TempDir()
	for name, owner := range map[string]int{"mapped": 1000, "other": 3000} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(path, name), owner, owner+1); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	const far = 1 << 20
	tree, err := Tree(t.Context(), execx.New(), folder, []Mapping{{1000, far, 1}, {0, far + 5, 1}}, []Mapping{{1001, far + 1, 1}, {0, far + 6, 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	const nobody = 65534
	for name, want := range map[string][2]uint32{"mapped": {far, far + 1}, "other": {nobody, nobody}} {
		var status unix.Stat_t
		if err := unix.Fstatat(int(tree.Fd()), name, &status, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		if got := [2]uint32{status.Uid, status.Gid}; got != want {
			t.Errorf("%s belongs to %v, not %v", name, got, want)
		}
	}
}
