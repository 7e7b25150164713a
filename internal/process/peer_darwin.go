package process

import "golang.org/x/sys/unix"

// peerPID asks as unix(4) of macOS says.
func peerPID(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
}
