// Package forward makes ports of a container reachable on the workstation, over
// ssh, and keeps them so when the connection is lost.
//
// The local ports are open from the beginning to the end, also while there is no
// connection: nobody else can take them, and programs that connect meanwhile
// wait. Each is handed to a socket file of ssh's, which exists while the
// connection does.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"devhost/internal/execx"
	"devhost/internal/sshlink"
)

// Port is a port of a container and the local one that leads to it.
type Port struct {
	// Host is the word for the host, "" where none was given.
	Host string
	// Local and Remote are TCP ports. The remote one is looked for at localhost
	// of the container.
	Local, Remote int
}

// BadPort says that a text names no port.
type BadPort struct{ Text, Reason string }

func (b *BadPort) Error() string {
	return fmt.Sprintf("%q: %s; a port is [LOCAL:][HOST:]PORT, such as 5432, db:5432 or 15432:db:5432", b.Text, b.Reason)
}

// ParsePort reads [LOCAL:][HOST:]PORT. A number before the port is the local
// port, a word is the host.
func ParsePort(text string) (Port, error) {
	const mostParts = 3
	parts := strings.Split(text, ":")
	if len(parts) > mostParts {
		return Port{}, &BadPort{text, "there are too many colons"}
	}
	remote, err := number(parts[len(parts)-1])
	if err != nil {
		return Port{}, &BadPort{text, err.Error()}
	}
	port := Port{Local: remote, Remote: remote}
	parts = parts[:len(parts)-1]
	if len(parts) > 0 && (len(parts) == mostParts-1 || digits(parts[0])) {
		if port.Local, err = number(parts[0]); err != nil {
			return Port{}, &BadPort{text, err.Error()}
		}
		parts = parts[1:]
	}
	if len(parts) > 0 {
		if port.Host = parts[0]; port.Host == "" {
			return Port{}, &BadPort{text, "the name of the host is empty"}
		}
	}
	return port, nil
}

func digits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

func number(text string) (int, error) {
	const most = 65535
	value, err := strconv.Atoi(text)
	if err != nil || !digits(text) || value < 1 || value > most {
		return 0, fmt.Errorf("%q is no port from 1 to %d", text, most)
	}
	return value, nil
}

// Taken says that a local port cannot be used.
type Taken struct {
	Port Port
	Err  error
}

func (t *Taken) Error() string {
	free := t.Port.Remote + 10000
	if free > 65535 {
		free = t.Port.Remote - 10000
	}
	remedy := fmt.Sprintf("take another one: %d:%s%d", free, hostPrefix(t.Port.Host), t.Port.Remote)
	switch {
	case errors.Is(t.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("port %d of this machine is in use; %s", t.Port.Local, remedy)
	case errors.Is(t.Err, syscall.EACCES):
		return fmt.Sprintf("port %d of this machine is for root only; %s", t.Port.Local, remedy)
	}
	return fmt.Sprintf("port %d of this machine cannot be used: %v; %s", t.Port.Local, t.Err, remedy)
}

func (t *Taken) Unwrap() error { return t.Err }

func hostPrefix(host string) string {
	if host == "" {
		return ""
	}
	return host + ":"
}

// Host is a host and its ports.
type Host struct {
	sshlink.Host
	Ports []Port
}

// Options are the same for all hosts.
type Options struct {
	// Folder is that of sockets; see sshlink.Options.
	Folder string
	// Say gets a line when a port is there, lost or back, and about connections
	// that the container refuses.
	Say func(line string)
}

// patience is how long a program that connects waits for a lost connection to
// be back.
const patience = 30 * time.Second

// Run forwards until the context ends, or one host cannot be reached at the
// beginning.
func Run(ctx context.Context, runner execx.Runner, hosts []Host, options Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	// It runs before the wait.
	defer cancel()
	var all []*forwarder
	for i, host := range hosts {
		f := &forwarder{host: host, options: options, runner: runner, folder: filepath.Join(options.Folder, fmt.Sprint("f", i)), up: make(chan struct{})}
		defer f.close()
		if err := f.listen(ctx); err != nil {
			return err
		}
		all = append(all, f)
	}
	failures := make(chan error, len(all))
	for _, f := range all {
		running.Go(func() {
			err := f.run(ctx)
			cancel()
			failures <- err
		})
	}
	var first error
	for range all {
		if err := <-failures; first == nil || errors.Is(first, context.Canceled) {
			first = err
		}
	}
	return first
}

// listener is a local port that is open.
type listener struct {
	net.Listener
	port Port
}

// forwarder is one host at work.
type forwarder struct {
	host    Host
	options Options
	runner  execx.Runner
	// folder starts the paths of the socket files.
	folder    string
	listeners []listener
	serving   sync.WaitGroup

	mutex sync.Mutex
	// up is closed while the connection stands.
	up chan struct{}
	// told are the ports whose refusal was told since the connection stands.
	told map[string]bool
}

// listen opens the local ports, at both addresses of this machine.
func (f *forwarder) listen(ctx context.Context) error {
	var config net.ListenConfig
	for _, port := range f.host.Ports {
		local := strconv.Itoa(port.Local)
		v4, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", local))
		if err != nil {
			return &Taken{port, err}
		}
		f.listeners = append(f.listeners, listener{v4, port})
		v6, err := config.Listen(ctx, "tcp6", net.JoinHostPort("::1", local))
		switch {
		case err == nil:
			f.listeners = append(f.listeners, listener{v6, port})
		case errors.Is(err, syscall.EADDRINUSE):
			return &Taken{port, err}
		}
		// Else there is no IPv6 here.
	}
	return nil
}

func (f *forwarder) socket(port Port) string { return fmt.Sprintf("%s-%d", f.folder, port.Remote) }

func (f *forwarder) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer f.serving.Wait()
	defer f.close()
	defer cancel()
	for _, open := range f.listeners {
		f.serving.Go(func() { f.accept(ctx, open) })
	}
	keeper := sshlink.Keeper{Runner: f.runner, Host: f.host.Host, Say: f.options.Say, Options: sshlink.Options{
		Folder: f.options.Folder, Args: f.arguments(), Line: f.line,
	}}
	first := true
	return keeper.Keep(ctx, func(ctx context.Context, _ *sshlink.Connection) error {
		if first {
			for _, port := range f.host.Ports {
				f.options.Say(fmt.Sprintf("localhost:%d leads to port %d of %s", port.Local, port.Remote, f.host.Name))
			}
			first = false
		}
		f.set(true)
		defer f.set(false)
		<-ctx.Done()
		return ctx.Err()
	})
}

// arguments have ssh listen at socket files.
func (f *forwarder) arguments() []string {
	// LogLevel lets ssh say when the container refuses a connection.
	arguments := []string{"-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes", "-o", "LogLevel=INFO"}
	known := map[int]bool{}
	for _, port := range f.host.Ports {
		if !known[port.Remote] {
			known[port.Remote] = true
			arguments = append(arguments, "-L", fmt.Sprintf("%s:localhost:%d", f.socket(port), port.Remote))
		}
	}
	return arguments
}

// line is something that ssh says.
func (f *forwarder) line(line string) {
	_, reason, found := strings.Cut(line, "open failed: ")
	if !found || !strings.HasPrefix(line, "channel ") {
		return
	}
	f.mutex.Lock()
	known := f.told[reason]
	f.told[reason] = true
	f.mutex.Unlock()
	if !known {
		f.options.Say(fmt.Sprintf("%s refuses a connection (%s): does the program there run, and listen at localhost?", f.host.Name, reason))
	}
}

func (f *forwarder) set(up bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.told = map[string]bool{}
	if up {
		close(f.up)
	} else {
		f.up = make(chan struct{})
	}
}

func (f *forwarder) standing() <-chan struct{} {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.up
}

func (f *forwarder) accept(ctx context.Context, open listener) {
	for {
		connection, err := open.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Such as too many open files.
			const pause = 100 * time.Millisecond
			time.Sleep(pause)
			continue
		}
		f.serving.Go(func() { f.serve(ctx, connection, open.port) })
	}
}

// serve waits for the connection to the container, and copies in both
// directions until both have ended.
func (f *forwarder) serve(ctx context.Context, local net.Conn, port Port) {
	defer local.Close()
	waiting := time.NewTimer(patience)
	defer waiting.Stop()
	select {
	case <-f.standing():
	case <-waiting.C:
		return
	case <-ctx.Done():
		return
	}
	var dialer net.Dialer
	remote, err := dialer.DialContext(ctx, "unix", f.socket(port))
	if err != nil {
		return
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = local.Close()
		_ = remote.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pass(remote, local) })
	both.Go(func() { pass(local, remote) })
	both.Wait()
}

// pass copies until the source ends, and tells the target so.
func pass(target, source net.Conn) {
	_, err := io.Copy(target, source)
	if half, ok := target.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_ = target.Close()
	_ = source.Close()
}

func (f *forwarder) close() {
	for _, open := range f.listeners {
		_ = open.Close()
		_ = os.Remove(f.socket(open.port))
	}
}
