package nspawn

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"devhost/internal/process"

	"golang.org/x/sys/unix"
)

// The bases among which nspawn chooses (--private-users=pick of systemd 252), and
// among which ids are chosen here.
const (
	firstBase = 0x00080000
	lastBase  = 0x6FFF0000
)

// NoIDs says that no ids are free for a guest.
type NoIDs struct{ Machine string }

func (n *NoIDs) Error() string {
	return fmt.Sprintf("no range of uids is free for %s; see which are taken below %s", n.Machine, filepath.Join(runtimeFolder, "nspawn-uid"))
}

// PickIDs chooses the ids of a guest as nspawn would, for who must know them
// before nspawn starts. They are the guest's as long as the lock is held, which
// is the one that nspawn takes; Clear removes its file.
func PickIDs(machine string) (base int, lock *os.File, err error) {
	return pickIDs(runtimeFolder, machine)
}

func pickIDs(runtime, machine string) (int, *os.File, error) {
	folder := filepath.Join(runtime, "nspawn-uid")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return 0, nil, err
	}
	const ranges, attempts = (lastBase-firstBase)/process.GuestIDs + 1, 100
	sum := sha256.Sum256([]byte(machine))
	first := int(binary.BigEndian.Uint32(sum[:]) % ranges)
	for i := range attempts {
		base := firstBase + (first+i)%ranges*process.GuestIDs
		lock, err := takeLock(filepath.Join(folder, strconv.Itoa(base)))
		if err != nil || lock != nil {
			return base, lock, err
		}
	}
	return 0, nil, &NoIDs{Machine: machine}
}

// takeLock takes a lock of nspawn's kind; it is nil where somebody holds it.
func takeLock(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, file.Close()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", path, err), file.Close())
		}
		// Who held it may have removed it meanwhile.
		if here, err := os.Lstat(path); err == nil {
			if mine, err := file.Stat(); err == nil && os.SameFile(here, mine) {
				return file, nil
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(err, file.Close())
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
}

// MountPoints makes the folders that bind mounts go to, for root. Whatever the
// guest made of them stays: nspawn says what does not work.
func MountPoints(root string, binds []Bind) error {
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, folder := range binds {
		_ = inside.MkdirAll(folder.Target[1:], 0o755)
	}
	return nil
}
