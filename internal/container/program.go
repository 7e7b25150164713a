package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
)

// handedProgram is where the guest's folder holds devhost itself, which inside
// is fc-manage.
const handedProgram = "bin/devhost"

// handOverProgram puts devhost into the guest's folder. All containers share
// one copy, and its pages in memory, by hard links.
func (m *Manager) handOverProgram(name string) error {
	if m.Program == "" {
		return nil
	}
	shared, err := m.sharedProgram()
	if err != nil {
		return fmt.Errorf("cannot hand devhost over to container %s: %w", name, err)
	}
	target := filepath.Join(m.Registry.Guest(name), handedProgram)
	if same(shared, target) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	temporary := target + ".new"
	if err := removeIfThere(temporary); err != nil {
		return err
	}
	if err := os.Link(shared, temporary); err != nil {
		// A container can lie in a file system or subvolume of its own, and the
		// copy can be removed by who has just seen that nobody has it.
		if err := copyProgram(m.Program, temporary); err != nil {
			return fmt.Errorf("cannot hand devhost over to container %s: %w", name, err)
		}
	}
	return os.Rename(temporary, target)
}

// same tells whether two paths are one file, or one is a copy of the other.
func same(one, other string) bool {
	first, err := os.Stat(one)
	if err != nil {
		return false
	}
	second, err := os.Stat(other)
	return err == nil && (os.SameFile(first, second) || first.Size() == second.Size() && first.ModTime().Equal(second.ModTime()))
}

// sharedProgram is the copy of the program below the state folder. Its name
// tells one build from another without reading them.
func (m *Manager) sharedProgram() (string, error) {
	info, err := os.Stat(m.Program)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(m.Program)
	if err != nil {
		return "", err
	}
	inode := uint64(0)
	if status, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = status.Ino
	}
	// In the Nix store all files are of the same time, and a path says which.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", path, info.Size(), info.ModTime().UnixNano(), inode))
	shared := filepath.Join(m.Registry.Programs(), "devhost-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Lstat(shared); err == nil {
		return shared, nil
	}
	if err := os.MkdirAll(m.Registry.Programs(), 0o755); err != nil {
		return "", err
	}
	m.removeOldPrograms()
	return shared, copyProgram(m.Program, shared)
}

// removeOldPrograms removes the copies that no container has any more.
func (m *Manager) removeOldPrograms() {
	copies, _ := os.ReadDir(m.Registry.Programs())
	for _, entry := range copies {
		info, err := entry.Info()
		if err != nil || !strings.HasPrefix(entry.Name(), "devhost-") {
			continue
		}
		if status, ok := info.Sys().(*syscall.Stat_t); ok && status.Nlink == 1 {
			if err := removeIfThere(filepath.Join(m.Registry.Programs(), entry.Name())); err != nil {
				m.Logger.Warn("cannot remove", "file", entry.Name(), "error", err)
			}
		}
	}
}

// copyProgram writes a copy that appears in one step, with the time of its
// source.
func copyProgram(source, target string) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := renameio.NewPendingFile(target, renameio.WithPermissions(0o755), renameio.IgnoreUmask())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = os.Chtimes(to.Name(), info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = to.CloseAtomicallyReplace()
	}
	if cleanErr := to.Cleanup(); err == nil && cleanErr != nil && !errors.Is(cleanErr, fs.ErrNotExist) {
		err = cleanErr
	}
	return err
}
