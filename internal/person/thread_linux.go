// What package syscall does for all threads of the process, for one thread.

package person

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setThreadGroups is setgroups(2) for this thread alone; the wrapper in
// package syscall changes all threads.
func setThreadGroups(groups []uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// dropThreadCapabilities empties the effective set of this thread.
func dropThreadCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	for i := range sets {
		sets[i].Effective, sets[i].Permitted, sets[i].Inheritable = 0, 0, 0
	}
	return unix.Capset(&header, &sets[0])
}

// become changes the rights of this thread for file accesses. setfsuid(2) drops
// the capabilities that override permissions, and no others: with
// CAP_SYS_PTRACE, say, files of other mount namespaces could be read below
// /proc/PID/root. So all are dropped.
func (p Person) become() error {
	groups := p.Groups
	if len(groups) == 0 {
		groups = []uint32{p.GID}
	}
	if err := setThreadGroups(groups); err != nil {
		return err
	}
	// setfsuid and setfsgid say nothing on failure: ask what holds now.
	_, _ = unix.SetfsgidRetGid(int(p.GID))
	_, _ = unix.SetfsuidRetUid(int(p.UID))
	gid, err := unix.SetfsgidRetGid(-1)
	if err != nil || gid != int(p.GID) {
		return errors.Join(fmt.Errorf("setfsgid %d", p.GID), err)
	}
	uid, err := unix.SetfsuidRetUid(-1)
	if err != nil || uid != int(p.UID) {
		return errors.Join(fmt.Errorf("setfsuid %d", p.UID), err)
	}
	return dropThreadCapabilities()
}
