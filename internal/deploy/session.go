package deploy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/execx"
)

const (
	// ConnectTimeout bounds one attempt to reach a dev host.
	ConnectTimeout = 10 * time.Second
	// persist is how long a connection outlives a devhost-deploy that was
	// killed.
	persist = 60 * time.Second
	// closeTimeout bounds the end of a connection.
	closeTimeout = 5 * time.Second
)

// session is one ssh connection that many commands share (ssh_config(5),
// ControlMaster).
type session struct {
	runner execx.Runner
	// config is the ssh_config, socket the connection's.
	config, socket string
	// destination is the host as ssh takes it.
	destination string
	// byHand is the command by which a person logs in there.
	byHand string
	// through is the proxy command, "" for what the config says.
	through string
}

// options are those of every ssh of a session.
func (s *session) options() []string {
	return []string{"-F", s.config, "-o", "BatchMode=yes", "-o", "ControlPath=" + configValue(s.socket), "-o", "LogLevel=ERROR", "-o", "RemoteCommand=none"}
}

// open connects. The connection goes on in a process of its own until close, or
// until a while after its last command.
func (s *session) open(ctx context.Context) error {
	began := time.Now()
	args := append(s.options(), "-f", "-N", "-o", "ControlMaster=yes", "-o", fmt.Sprintf("ControlPersist=%d", int(persist.Seconds())),
		"-o", fmt.Sprintf("ConnectTimeout=%d", int(ConnectTimeout.Seconds())), "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
		"-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-T")
	if s.through != "" {
		args = append(args, "-o", "ProxyCommand="+s.through)
	}
	command := execx.Command{Name: "ssh", Args: append(args, "--", s.destination)}
	err := s.runner.Run(ctx, command)
	var failed *execx.Error
	if !errors.As(err, &failed) || failed.Cancelled {
		return err
	}
	return s.explain(ctx, failed, time.Since(began))
}

// command is ssh with a command line for the login's shell.
func (s *session) command(line string) execx.Command {
	return execx.Command{Name: "ssh", Args: append(s.options(), "-o", "ControlMaster=no", "-T", "--", s.destination, line)}
}

// forward is a proxy command that leads to a host behind the session's.
func (s *session) forward() string {
	argv := append([]string{"ssh"}, s.options()...)
	// %h and %p are for ssh to fill in.
	return strings.ReplaceAll(execx.Quote(argv), "%", "%%") + " -o ControlMaster=no -W '[%h]:%p' -- " + s.destination
}

// close ends the connection.
func (s *session) close(ctx context.Context) {
	// Also after Ctrl-C.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	// There may be none: nothing is to be done about it, and it ends by itself.
	_ = s.runner.Run(ctx, execx.Command{Name: "ssh", Args: append(s.options(), "-O", "exit", "--", s.destination)})
}

// socketPath is the path of the n-th socket in a runtime folder.
func socketPath(folder, kind string, n int) string {
	return filepath.Join(folder, fmt.Sprintf("%s%d", kind, n))
}

// lost is the exit status of ssh when it could not connect, or the connection
// broke.
const lost = 255
