package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// RemoveFolder is RemoveAll that also gets rid of what a guest may leave:
// immutable files (systemd makes /var/empty immutable inside), and folders in
// folders, deeper than this process may have files open. It never leaves the
// folder: symbolic links are removed, not followed. Nobody else may change it
// meanwhile.
func RemoveFolder(path string) error {
	err := os.RemoveAll(path)
	mutable, shallow := !errors.Is(err, fs.ErrPermission), !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE)
	if mutable && shallow {
		return err
	}
	return errors.Join(tame(path), os.RemoveAll(path))
}

// tamed is how deep folders lie in each other at most in a folder that is tame:
// RemoveAll has a file open for each level.
const tamed = 64

// tame makes everything in a folder mutable, and flat enough for RemoveAll: what
// lies deeper is moved up.
func tame(path string) error {
	top, err := openFolder(unix.AT_FDCWD, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		makeMutable(unix.AT_FDCWD, path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", path, err)
	}
	defer top.Close()
	t := &taming{top: top}
	if err := t.folder(top, 0); err != nil {
		return fmt.Errorf("cannot tidy up %s: %w", path, err)
	}
	for len(t.moved) > 0 {
		name := t.moved[0]
		t.moved = t.moved[1:]
		if err := t.entry(top, name, 1); err != nil {
			return fmt.Errorf("cannot tidy up %s: %w", path, err)
		}
	}
	return nil
}

type taming struct {
	top *os.File
	// moved are the names in top of folders that were moved there and not looked
	// at yet, of count in all.
	moved []string
	count int
}

// folder does all in a folder at a depth. Errors name no path: that may be as
// long as the tree is deep.
func (t *taming) folder(folder *os.File, depth int) error {
	clearProtection(int(folder.Fd()))
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return errors.Unwrap(err)
	}
	for _, name := range names {
		if err := t.entry(folder, name, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// entry does one entry of a folder, at the depth that it has itself.
func (t *taming) entry(folder *os.File, name string, depth int) error {
	inner, err := openFolder(int(folder.Fd()), name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
		makeMutable(int(folder.Fd()), name)
		return nil
	}
	if err != nil {
		return err
	}
	defer inner.Close()
	if depth < tamed {
		return t.folder(inner, depth)
	}
	// An immutable folder cannot be moved.
	clearProtection(int(inner.Fd()))
	for {
		t.count++
		free := fmt.Sprintf("deep-%d", t.count)
		err := unix.Renameat2(int(folder.Fd()), name, int(t.top.Fd()), free, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil {
			t.moved = append(t.moved, free)
		}
		return err
	}
}

func openFolder(at int, name string) (*os.File, error) {
	descriptor, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(descriptor), name), nil
}

// makeMutable clears the attributes that protect a regular file.
func makeMutable(at int, name string) {
	var status unix.Stat_t
	// To open a device is to use it.
	if unix.Fstatat(at, name, &status, unix.AT_SYMLINK_NOFOLLOW) != nil || status.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	descriptor, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	clearProtection(descriptor)
	_ = unix.Close(descriptor)
}

// clearProtection clears the immutable and append-only attributes (chattr -ia).
func clearProtection(descriptor int) {
	flags, err := unix.IoctlGetInt(descriptor, unix.FS_IOC_GETFLAGS)
	// FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
	const protected = 0x10 | 0x20
	if err == nil && flags&protected != 0 {
		_ = unix.IoctlSetPointerInt(descriptor, unix.FS_IOC_SETFLAGS, flags&^protected)
	}
}
