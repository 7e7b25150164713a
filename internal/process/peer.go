package process

import (
	"errors"
	"net"
)

// Peer is the process at the other end of a Unix socket: the one that listens
// there, or that has connected.
func Peer(connection *net.UnixConn) (ID, error) {
	raw, err := connection.SyscallConn()
	if err != nil {
		return ID{}, err
	}
	var pid int
	var asked error
	if err := raw.Control(func(fd uintptr) { pid, asked = peerPID(int(fd)) }); err != nil {
		return ID{}, err
	}
	if asked != nil {
		return ID{}, asked
	}
	// One of another PID namespace has none here.
	if pid <= 0 {
		return ID{}, errors.New("the process at the other end of the socket is not one of this machine")
	}
	return Of(pid)
}
