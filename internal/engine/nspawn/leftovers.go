package nspawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// runtimeFolder is where nspawn keeps what lives as long as its containers.
const runtimeFolder = "/run/systemd"

// Leftovers says what a killed nspawn may have left.
type Leftovers struct {
	// Machine and Root are those of its Config.
	Machine, Root string
	// UIDBase is the host's uid of the guest's root, 0 when it is not known.
	UIDBase int
}

// Clear removes what nspawn removes itself unless it is killed: its folders
// and lock files. The container must have ended. A lock that somebody holds
// stays.
func Clear(left Leftovers) error { return clearBelow(runtimeFolder, left) }

func clearBelow(runtime string, left Leftovers) error {
	var problems []error
	for _, kind := range []string{"propagate", "unix-export"} {
		folder := filepath.Join(runtime, "nspawn", kind, left.Machine)
		// Who may not unmount may still find that nothing is left.
		if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// Newer versions mount a tmpfs on it. EINVAL: nothing is mounted.
		err := unix.Unmount(folder, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			problems = append(problems, fmt.Errorf("cannot unmount %s: %w", folder, err))
			continue
		}
		problems = append(problems, os.RemoveAll(folder))
	}
	locks := []string{filepath.Join(filepath.Dir(left.Root), ".#"+filepath.Base(left.Root)+".lck")}
	if left.UIDBase > 0 {
		locks = append(locks, filepath.Join(runtime, "nspawn-uid", strconv.Itoa(left.UIDBase)))
	}
	var root unix.Stat_t
	if unix.Stat(left.Root, &root) == nil {
		locks = append(locks, filepath.Join(runtime, "nspawn", "locks", fmt.Sprintf("inode-%d:%d", root.Dev, root.Ino)))
	}
	for _, lock := range locks {
		problems = append(problems, removeFreeLock(lock))
	}
	return errors.Join(problems...)
}

// removeFreeLock removes a lock file that nobody holds. systemd locks with
// open file description locks.
func removeFreeLock(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return os.Remove(path)
}
