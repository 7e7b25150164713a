package nix

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
)

const (
	// rootsDir holds garbage collector roots; a link below it is one.
	rootsDir = "/nix/var/nix/gcroots"
	// collectorLock is held, exclusively, by a garbage collector for as long as
	// it runs, and shared by whoever adds a root: gc.cc of Nix, since 1.0.
	collectorLock = "/nix/var/nix/gc.lock"
)

// rootWhileNobodyCollects makes a link that is a garbage collector root, as Nix
// itself does, and tells whether it did: not where a garbage collector runs,
// where the link is no root by itself, or where the target is not there.
func rootWhileNobodyCollects(path, target string) bool {
	return rootUnderLock(collectorLock, rootsDir, path, target)
}

func rootUnderLock(lockPath, roots, path, target string) bool {
	if !strings.HasPrefix(filepath.Clean(path), roots+"/") {
		return false
	}
	if _, err := os.Stat(lockPath); err != nil {
		return false
	}
	lock := flock.New(lockPath, flock.SetFlag(os.O_RDONLY))
	if held, err := lock.TryRLock(); err != nil || !held {
		return false
	}
	defer lock.Close()
	if _, err := os.Lstat(target); err != nil {
		return false
	}
	return renameio.Symlink(target, path) == nil
}
