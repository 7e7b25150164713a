package nspawn

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"devhost/internal/process"
)

// TestPickIDs: the same machine gets the same ids, unless somebody holds them.
func TestPickIDs(t *testing.T) {
	runtime := t.TempDir()
	first, lock, err := pickIDs(runtime, "demo")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if first < firstBase || first > lastBase || first%process.GuestIDs != 0 {
		t.Errorf("%d is no base", first)
	}
	second, other, err := pickIDs(runtime, "demo")
	if err != nil || second == first {
		t.Fatalf("ids that are taken were picked: %d, %v", second, err)
	}
	if err := clearBelow(runtime, Leftovers{Machine: "demo", Root: filepath.Join(runtime, "root"), UIDBase: first}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(runtime, "nspawn-uid", strconv.Itoa(first))); err != nil {
		t.Errorf("a lock that is held was removed: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	again, other, err := pickIDs(runtime, "demo")
	if err != nil || again != second {
		t.Errorf("ids that are free again: %d, not %d: %v", again, second, err)
	}
	defer other.Close()
}

// TestEmptyRoot: all goes but the folder, and no link of the guest is followed.
func TestEmptyRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	if err := EmptyRoot(root); err != nil {
		t.Errorf("a root folder that is not there yet: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "srv/a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"link", "srv/link"} {
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := EmptyRoot(root); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

// TestBinds: nspawn is told of folders whose ids are mapped already, and of the
// ids that they are mapped to.
func TestBinds(t *testing.T) {
	arguments := strings.Join(Arguments(Config{
		Root: "/r", Guest: "/g", Store: "/nix/store", System: "/nix/store/s", UIDBase: 1 << 20,
		Binds: []Bind{{Source: "/run/b/0", Target: "/srv/a:b"}, {Source: "/run/b/1", Target: "/srv/c", ReadOnly: true}},
	}), " ")
	for _, want := range []string{"--private-users=1048576:65536 ", `--bind=/run/b/0:/srv/a\:b:norbind `, "--bind-ro=/run/b/1:/srv/c:norbind "} {
		if !strings.Contains(arguments, want) {
			t.Errorf("%s lacks %s", arguments, want)
		}
	}
	root := t.TempDir()
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "srv")); err != nil {
		t.Fatal(err)
	}
	if err := MountPoints(root, []Bind{{Target: "/srv/a"}, {Target: "/mnt/b"}}); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("a link of the guest was followed: %v", entries)
	}
	if _, err := os.Stat(filepath.Join(root, "mnt/b")); err != nil {
		t.Error(err)
	}
}
