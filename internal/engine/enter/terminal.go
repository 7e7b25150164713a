package enter

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTerminal opens a new pseudo terminal of the guest's own devpts, so that
// tty(1) and everything that looks for /dev/pts/N works inside. The master is
// not blocking.
func openTerminal(leader *leader) (master, slave *os.File, err error) {
	root, err := leader.open("root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	// Below the root, every name is the guest's: its links must not lead out.
	found, err := unix.Openat2(int(root.Fd()), "dev/pts/ptmx", &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("the guest has no pseudo terminals (/dev/pts/ptmx): %w", err)
	}
	defer unix.Close(found)
	if err := checkMultiplexer(found); err != nil {
		return nil, nil, err
	}
	descriptor, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", found), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open a pseudo terminal of the guest: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(descriptor)
		}
	}()
	if err := unix.IoctlSetPointerInt(descriptor, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("cannot unlock a pseudo terminal of the guest: %w", err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(descriptor), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, fmt.Errorf("cannot open a pseudo terminal of the guest: %w", errno)
	}
	slave = os.NewFile(peer, "the guest's terminal")
	// It belongs to whoever opened it, who is nobody inside.
	uid, _, err := leader.rootIDs()
	if err == nil {
		err = slave.Chown(uid, -1)
	}
	if err != nil {
		_ = slave.Close()
		return nil, nil, fmt.Errorf("cannot hand over a pseudo terminal of the guest: %w", err)
	}
	return os.NewFile(uintptr(descriptor), "the guest's terminal (master)"), slave, nil
}

// checkMultiplexer refuses everything but the multiplexer of a devpts: opening
// other devices may do things.
func checkMultiplexer(descriptor int) error {
	var file unix.Stat_t
	if err := unix.Fstat(descriptor, &file); err != nil {
		return err
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(descriptor, &system); err != nil {
		return err
	}
	// Character device 5:2, see pts(4).
	if file.Mode&unix.S_IFMT != unix.S_IFCHR || file.Rdev != unix.Mkdev(5, 2) || system.Type != unix.DEVPTS_SUPER_MAGIC {
		return errors.New("the guest's /dev/pts/ptmx is not that of a devpts")
	}
	return nil
}
