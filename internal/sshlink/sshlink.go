// Package sshlink keeps one ssh connection to a host open, which many commands
// share, and makes it anew when it is lost.
//
// The connection is a ssh of the system's with a control socket (ControlMaster
// in ssh_config(5)). It runs a command that ends when its input does, so that
// nothing stays when this process is killed.
package sshlink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"devhost/internal/execx"
	"devhost/internal/terminal"
)

const (
	// connectLimit is how long ssh may take to reach a host, in seconds.
	connectLimit = 10
	// A connection is lost when three questions, one each aliveInterval seconds,
	// have no answer.
	aliveInterval, aliveTries = 5, 3
	// grace is how long an interrupted ssh may take to leave.
	grace = 2 * time.Second
)

// Host is a host in a ssh_config file.
type Host struct {
	// Config is the path of the file, Name the host in it.
	Config, Name string
}

// Options say how the connection is made.
type Options struct {
	// Folder is where the control socket is made. Nobody else may look into it,
	// and its path is short: paths of sockets have at most 104 bytes on macOS,
	// and ssh needs 17 of them for itself.
	Folder string
	// Args are further options of ssh.
	Args []string
	// Line gets what ssh and the host say on standard error; may be nil.
	Line func(line string)
}

// Unreachable says that there is no connection to a host.
type Unreachable struct {
	Host Host
	// Said are ssh's last words.
	Said []string
	Err  error
}

func (u *Unreachable) Error() string {
	reason := "ssh " + reasonOf(u.Err)
	if len(u.Said) > 0 {
		reason = strings.Join(u.Said, "; ")
	}
	return fmt.Sprintf("cannot connect to %s: %s\nTry it by hand: %s", u.Host.Name, reason, execx.Quote([]string{"ssh", "-F", u.Host.Config, u.Host.Name}))
}

func (u *Unreachable) Unwrap() error { return u.Err }

func reasonOf(err error) string {
	var failure *execx.Error
	if errors.As(err, &failure) {
		return failure.Reason()
	}
	return "ended"
}

// Connection is an open connection.
type Connection struct {
	runner execx.Runner
	host   Host
	socket string
	cancel context.CancelFunc
	input  *os.File
	said   *lastWords
	ended  chan struct{}
	err    error
}

// number tells the sockets of this process apart.
var number atomic.Int64

// ready is what the host says when the connection stands.
const ready = "devhost-connected"

// Open connects. It returns when commands can be run.
func Open(ctx context.Context, runner execx.Runner, host Host, options Options) (*Connection, error) {
	input, output, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// The connection lives until it is closed, also while the context of what
	// uses it has ended already.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Connection{
		runner: runner, host: host, socket: filepath.Join(options.Folder, fmt.Sprint("l", number.Add(1))), cancel: cancel, input: output,
		said: &lastWords{line: options.Line}, ended: make(chan struct{}),
	}
	connected := make(chan struct{})
	var once sync.Once
	stdout := &execx.LineWriter{Line: func(line string) {
		// A profile of the host's may print something first.
		if strings.HasSuffix(line, ready) {
			once.Do(func() { close(connected) })
		}
	}}
	stderr := &execx.LineWriter{Line: c.said.add}
	go func() {
		defer close(c.ended)
		defer input.Close()
		c.err = runner.Run(running, execx.Command{
			Name: "ssh", Args: c.masterArguments(options.Args), Stdin: input, Stdout: stdout, Stderr: stderr, Grace: grace,
		})
		_ = stderr.Close()
	}()
	select {
	case <-connected:
		return c, nil
	case <-ctx.Done():
		c.Close()
		return nil, ctx.Err()
	case <-c.ended:
		c.Close()
		return nil, c.Err()
	}
}

// path writes a path for an option of ssh, where % starts a token.
func path(name string) string { return `"` + strings.ReplaceAll(name, "%", "%%") + `"` }

func (c *Connection) masterArguments(more []string) []string {
	arguments := []string{
		"-F", c.host.Config, "-T", "-o", "BatchMode=yes", "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", "ControlPath=" + path(c.socket),
		"-o", "RemoteCommand=none", "-o", "RequestTTY=no", "-o", fmt.Sprintf("ConnectTimeout=%d", connectLimit),
		"-o", fmt.Sprintf("ServerAliveInterval=%d", aliveInterval), "-o", fmt.Sprintf("ServerAliveCountMax=%d", aliveTries),
	}
	arguments = append(arguments, more...)
	return append(arguments, "--", c.host.Name, "echo "+ready+"; exec cat >/dev/null")
}

// Argv is ssh over the connection, up to the host's name: a command line for
// the host's shell follows. Where the connection is lost, it fails at once.
func (c *Connection) Argv() []string {
	return append(c.Shell(), "--", c.host.Name)
}

// Shell is Argv without the host, as programs such as rsync take it.
func (c *Connection) Shell() []string {
	return []string{
		"ssh", "-F", "/dev/null", "-T", "-o", "ControlMaster=no", "-o", "ControlPath=" + path(c.socket),
		// Without the control socket, ssh would try a connection of its own.
		"-o", "ProxyCommand=false", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
	}
}

// RsyncShell quotes a command for rsync's --rsh and for RSYNC_RSH, which are split
// at spaces and know quotes and no backslash.
func RsyncShell(argv []string) string {
	quoted := make([]string, len(argv))
	for i, word := range argv {
		quoted[i] = word
		if strings.ContainsAny(word, ` "'`) {
			quoted[i] = `'` + strings.ReplaceAll(word, `'`, `''`) + `'`
		}
	}
	return strings.Join(quoted, " ")
}

// Host is the host at the other end.
func (c *Connection) Host() Host { return c.host }

// Done is closed when the connection is lost or was closed.
func (c *Connection) Done() <-chan struct{} { return c.ended }

// Err is why the connection is lost. It is called after Done.
func (c *Connection) Err() error {
	return &Unreachable{Host: c.host, Said: c.said.last(), Err: c.err}
}

// Lost tells whether the connection is lost. A command that ended with the error
// may have seen that first: then the end is waited for, for a moment.
func (c *Connection) Lost(err error) bool {
	const (
		moment = time.Second
		// What ssh and rsync end with when their connection breaks.
		sshBroken, rsyncBroken = 255, 12
	)
	var patience time.Duration
	var failure *execx.Error
	if errors.As(err, &failure) && (failure.ExitCode == sshBroken || failure.ExitCode == rsyncBroken) {
		patience = moment
	}
	select {
	case <-c.ended:
		return true
	case <-time.After(patience):
	}
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Close ends the connection and waits until nothing of it is left.
func (c *Connection) Close() {
	c.cancel()
	<-c.ended
	_ = c.input.Close()
	_ = os.Remove(c.socket)
}

// lastWords keeps the last lines that ssh said.
type lastWords struct {
	mutex sync.Mutex
	lines []string
	line  func(string)
}

func (l *lastWords) add(line string) {
	line = terminal.Line(line)
	if strings.TrimSpace(line) == "" {
		return
	}
	if l.line != nil {
		l.line(line)
	}
	const most = 3
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.lines = append(l.lines, line)
	l.lines = l.lines[max(0, len(l.lines)-most):]
}

func (l *lastWords) last() []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return append([]string(nil), l.lines...)
}
