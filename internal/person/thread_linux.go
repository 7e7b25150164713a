// What package syscall does for all threads of the process, for one thread.

package person

import (
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
