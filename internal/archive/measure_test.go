package archive

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMeasureTooDeep: a few megabytes of folders in each other would be an
// archive of many gigabytes of names.
func TestMeasureTooDeep(t *testing.T) {
	top := t.TempDir()
	nest := func(under string, levels int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(top, under), 0o755); err != nil {
			t.Fatal(err)
		}
		at, err := unix.Open(filepath.Join(top, under), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range levels {
			name := strings.Repeat("d", 200)
			if err := unix.Mkdirat(at, name, 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(at)
			at = next
		}
		_ = unix.Close(at)
	}
	nest("snapshots/one", 30)
	nest("root/usual", 10)
	// Folders take no space on a tmpfs.
	if err := os.WriteFile(filepath.Join(top, "root/file"), make([]byte, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if size, err := Measure(top, "snapshots"); err != nil || size == 0 {
		t.Errorf("%d, %v", size, err)
	}
	nest("root/a\x1b[2J", 30)
	var deep *TooDeep
	if _, err := Measure(top, "snapshots"); !errors.As(err, &deep) || !strings.HasPrefix(deep.Inside, "root/a") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
}
