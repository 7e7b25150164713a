package disk

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveFolderDeep: what a guest nests deeper than this process may have
// files open can be removed, and links out of it are left alone.
func TestRemoveFolderDeep(t *testing.T) {
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(t.TempDir(), "top")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Open(top, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	const levels = 2000
	for range levels {
		if err := unix.Mkdirat(at, "deep-1", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Symlinkat(outside, at, "link"); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "deep-1", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = next
	}
	_ = unix.Close(at)
	few := usual
	few.Cur = levels / 2
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = RemoveFolder(top)
	if restoreErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); restoreErr != nil {
		t.Fatal(restoreErr)
	}
	if err != nil {
		t.Error(err)
		// Else the test's own clean-up cannot remove it either.
		_ = RemoveFolder(top)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Lstat(outside); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
}
