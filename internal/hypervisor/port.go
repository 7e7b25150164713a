package hypervisor

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// PortTaken says that somebody else has the port that leads to a guest's sshd.
type PortTaken struct {
	Name string
	Port int
	Err  error
}

func (p *PortTaken) Error() string {
	return fmt.Sprintf("port %d of 127.0.0.1, which shall lead to the sshd of %s, is taken (%v); end what uses it, or use another port: devbox-cli vm start %s --ssh-port=PORT", p.Port, p.Name, p.Err, p.Name)
}

func (p *PortTaken) Unwrap() error { return p.Err }

// CheckPort says whether a port of the loopback address is free.
func CheckPort(ctx context.Context, port int) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return listener.Close()
}
