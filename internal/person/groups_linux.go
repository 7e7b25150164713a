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
