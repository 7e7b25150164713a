package supervisor

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"devhost/internal/process"
)

// pidfdInfo is struct pidfd_info, first version (include/uapi/linux/pidfd.h).
type pidfdInfo struct {
	mask, cgroup                                     uint64
	pid, tgid, ppid                                  uint32
	ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid uint32
	exitCode                                         int32
}

const (
	// getInfo is PIDFD_GET_INFO: _IOWR(0xFF, 11, struct pidfd_info).
	getInfo = 3<<30 | unsafe.Sizeof(pidfdInfo{})<<16 | 0xFF<<8 | 11
	// infoExit is PIDFD_INFO_EXIT.
	infoExit = 1 << 3
)

// exitStatus is the exit status of an ended process that is not our child, -1
// when a signal ended it. descriptor is its pidfd. A zombie tells it; of one that
// its parent took note of, Linux tells it from 6.15 on. Otherwise 0 is returned,
// so that a guest which rebooted stays off and can be started.
func exitStatus(id process.ID, descriptor int) int {
	const tries, wait = 50, 10 * time.Millisecond
	for range tries {
		stat, err := process.Read(id.PID)
		if err == nil && stat.ID == id && stat.Dead() {
			return statusOf(unix.WaitStatus(stat.ExitCode))
		}
		info := pidfdInfo{mask: infoExit}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(descriptor), getInfo, uintptr(unsafe.Pointer(&info)))
		if errno == 0 && info.mask&infoExit != 0 {
			return statusOf(unix.WaitStatus(info.exitCode))
		}
		if errno != 0 && errno != unix.ESRCH {
			return 0
		}
		time.Sleep(wait)
	}
	return 0
}

func statusOf(status unix.WaitStatus) int {
	if status.Exited() {
		return status.ExitStatus()
	}
	return -1
}
