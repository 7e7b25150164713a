package nix

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

func TestRootUnderLock(t *testing.T) {
	folder := t.TempDir()
	roots, lock, target := filepath.Join(folder, "gcroots"), filepath.Join(folder, "gc.lock"), filepath.Join(folder, "target")
	if err := os.Mkdir(roots, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{lock, target} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(roots, "root")
	for range 2 {
		if !rootUnderLock(lock, roots, root, target) {
			t.Error("nobody collects, and there is no root")
		}
	}
	if got, err := os.Readlink(root); err != nil || got != target {
		t.Errorf("the root is %q, %v", got, err)
	}
	for name, test := range map[string]struct{ lock, path, target string }{
		"no such target": {lock, root, target + "-collected"},
		"no such lock":   {lock + "-missing", root, target},
		"elsewhere":      {lock, filepath.Join(folder, "root"), target},
		"out of it":      {lock, filepath.Join(roots, "../root"), target},
	} {
		t.Run(name, func(t *testing.T) {
			if rootUnderLock(test.lock, roots, test.path, test.target) {
				t.Error("it made a root")
			}
		})
	}
	collector := flock.New(lock)
	if held, err := collector.TryLock(); err != nil || !held {
		t.Fatal("cannot play the garbage collector", err)
	}
	defer collector.Close()
	if rootUnderLock(lock, roots, root, target) {
		t.Error("it made a root while a garbage collector runs")
	}
}
