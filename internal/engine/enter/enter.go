// Package enter runs commands inside of a running container: in its cgroup and
// all its namespaces, with nothing of the host but three streams.
//
// The host's side (Exec) starts util-linux' nsenter(1) in the container's
// cgroup, with an empty environment. What nsenter runs is this same program,
// from a sealed copy in memory, as a session: it takes on the user, the
// environment and the limits of the guest and becomes the command. The guest
// needs no program of ours, and never gets at the host's.
package enter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/engine/cgroup"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/terminal"
)

// NotRunning says that a container cannot be entered.
type NotRunning struct{ Name string }

func (n *NotRunning) Error() string {
	return fmt.Sprintf("container %s is not running; start it with: devhost start %s", n.Name, n.Name)
}

// Guest is a running container.
type Guest struct {
	Name string
	// Leader is the guest's PID 1, as the host sees it.
	Leader process.ID
	// Group is the container's cgroup.
	Group *cgroup.Group
}

// Options say what to run.
type Options struct {
	Runner execx.Runner
	// Argv is the command, looked up on the guest's PATH. Empty means the
	// user's login shell.
	Argv []string
	// User is a login name or number of the guest, "" for root.
	User string
	// Dir is the working directory inside; "" is the user's home, or / where
	// there is none.
	Dir string
	// Env is added to the session's own environment, as KEY=VALUE.
	Env []string
	// Stdin may be nil for none. Nothing but pipes enters the container.
	Stdin io.Reader
	// Stdout and Stderr may be nil to drop the output.
	Stdout, Stderr io.Writer
	// TTY gives the command a terminal of its own, to which Stdin and Stdout
	// are connected.
	TTY bool
	// Terminal is the person's terminal: while the command runs, it is raw, and
	// its size is that of the command's. nil with a TTY means 80 by 24.
	Terminal *os.File
	// Term is the value of TERM inside, with a TTY.
	Term string
}

// signalOffset is what a shell adds to the signal that ended a command.
const signalOffset = 128

// Error says that a command did not run.
type Error struct {
	Name   string
	Reason string
	// Status is what a shell would return: 127 when there is no such program,
	// 126 when it cannot be run, 125 for everything else.
	Status int
	Err    error
	// unfinished says that the session may still be there.
	unfinished bool
}

func (e *Error) Error() string {
	return fmt.Sprintf("cannot run a command in container %s: %s", e.Name, e.Reason)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	statusCannotEnter   = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// Exec runs a command to its end and returns its exit status; 128+n when
// signal n ended it. The signals INT, TERM, HUP, QUIT, USR1 and USR2 that this
// process gets meanwhile go to the command. When the context ends, the command
// is asked to end (SIGTERM) and killed after ten seconds; a caller whose context
// ends by such a signal passes one without cancellation.
//
// The error is *NotRunning or *Error when the command did not run.
func Exec(ctx context.Context, guest Guest, options Options) (int, error) {
	visit, err := prepare(guest, options)
	if err != nil {
		return statusCannotEnter, err
	}
	defer visit.close()
	return visit.run(ctx)
}

// visit is one command on its way through a container.
type visit struct {
	guest   Guest
	options Options
	// files are closed at the end.
	files []*os.File
	// inherited are the descriptors of nsenter from 3 on.
	inherited []*os.File
	arguments []string
	settings  settings
	config    *os.File
	status    *os.File
	messages  *json.Decoder
	streams   *streams
}

func (v *visit) close() {
	for _, file := range v.files {
		_ = file.Close()
	}
}

func (v *visit) fail(what string, err error) *Error {
	return &Error{Name: v.guest.Name, Reason: fmt.Sprintf("%s: %v", what, err), Status: statusCannotEnter, Err: err}
}

func (v *visit) unfinished(what string, err error) *Error {
	failure := v.fail(what, err)
	failure.unfinished = true
	return failure
}

func prepare(guest Guest, options Options) (*visit, error) {
	v := &visit{guest: guest, options: options}
	ready := false
	defer func() {
		if !ready {
			v.close()
		}
	}()
	leader, err := openLeader(guest)
	if err != nil {
		return nil, err
	}
	v.files = append(v.files, leader.folder)
	program, err := sealedSelf()
	if err != nil {
		return nil, v.fail("cannot copy this program", err)
	}
	v.files = append(v.files, program)
	configEnd, config, err := os.Pipe()
	if err != nil {
		return nil, v.fail("cannot make a pipe", err)
	}
	v.files = append(v.files, configEnd, config)
	status, statusEnd, err := os.Pipe()
	if err != nil {
		return nil, v.fail("cannot make a pipe", err)
	}
	v.files = append(v.files, status, statusEnd)
	v.config, v.status = config, status
	v.inherited = []*os.File{program, configEnd, statusEnd}

	namespaces, err := leader.namespaces()
	for _, namespace := range namespaces {
		v.files = append(v.files, namespace.file)
		v.arguments = append(v.arguments, fmt.Sprintf("--%s=/proc/self/fd/%d", namespace.option, firstInherited+len(v.inherited)))
		v.inherited = append(v.inherited, namespace.file)
	}
	if err != nil {
		return nil, v.entering(err)
	}
	v.settings = settings{
		Argv: options.Argv, User: options.User, Dir: options.Dir, Env: options.Env,
		TTY: options.TTY, Term: options.Term,
	}
	if v.settings.Bounding, err = leader.boundingSet(); err != nil {
		return nil, v.entering(err)
	}
	if v.streams, err = openStreams(options, leader); err != nil {
		return nil, v.entering(err)
	}
	v.files = append(v.files, v.streams.files()...)
	ready = true
	return v, nil
}

// entering tells a guest that ended from other failures.
func (v *visit) entering(err error) error {
	if !v.guest.Leader.Alive() {
		return &NotRunning{Name: v.guest.Name}
	}
	return v.fail("cannot enter it", err)
}

// firstInherited is the number of the first descriptor after the streams; the
// session finds its own at these numbers.
const (
	firstInherited = 3
	programFD      = firstInherited
	configFD       = firstInherited + 1
	statusFD       = firstInherited + 2
)

func (v *visit) run(ctx context.Context) (int, error) {
	door, err := v.guest.Group.Door()
	if err != nil {
		return statusCannotEnter, v.entering(err)
	}
	signals := catchSignals()
	defer signals.stop()
	restore, err := v.streams.raw()
	if err != nil {
		return statusCannotEnter, v.fail("cannot set up the terminal", err)
	}
	defer restore()
	arguments := append(append([]string{}, v.arguments...), "--", fmt.Sprintf("/proc/self/fd/%d", programFD), SessionArgument)
	nsenter, err := door.Start(v.options.Runner, execx.Command{
		Name: "nsenter", Args: arguments, Env: []string{}, Dir: "/",
		Stdin: v.streams.inside[0], Stdout: v.streams.inside[1], Stderr: v.streams.inside[2],
		ExtraFiles: v.inherited,
	})
	if err != nil {
		return statusCannotEnter, v.fail("nsenter (of util-linux) cannot be started", err)
	}
	for _, file := range v.inherited {
		_ = file.Close()
	}
	v.streams.start(restore)
	ended := make(chan error, 1)
	go func() { ended <- nsenter.Wait() }()
	awake, sleep := context.WithCancel(context.WithoutCancel(ctx))
	defer sleep()
	go keepAwake(awake, nsenter)
	command, refused := v.handshake(ctx, nsenter.Pid())
	if refused != nil && refused.unfinished {
		// The session ends when it loses us, nsenter with it.
		_ = v.config.Close()
		_ = nsenter.Signal(syscall.SIGKILL)
	}
	err = v.forward(ctx, command, signals, ended)
	// A guest that powers off waits for every process, and looks again whether
	// they are gone when a child of it ends. The command was none: its parent
	// is out here.
	_ = v.guest.Leader.Signal(syscall.SIGCHLD)
	v.streams.drain()
	restore()
	if refused == nil {
		refused = v.lastWords()
	}
	switch {
	case refused != nil:
		return refused.Status, refused
	case v.streams.failure() != nil:
		return statusCannotEnter, v.fail("cannot write its output", v.streams.failure())
	}
	return exitStatus(err)
}

func exitStatus(err error) (int, error) {
	var failed *execx.Error
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &failed) && failed.Signal != 0:
		return signalOffset + int(failed.Signal), nil
	case errors.As(err, &failed) && failed.ExitCode >= 0:
		return failed.ExitCode, nil
	}
	return statusCannotEnter, err
}

// handshake waits for the session, gives it the guest's limits and its
// settings, and waits until it is about to become the command.
func (v *visit) handshake(ctx context.Context, nsenter int) (command process.ID, refused *Error) {
	_ = v.status.SetReadDeadline(time.Now().Add(handshakePatience))
	defer context.AfterFunc(ctx, func() { _ = v.status.SetReadDeadline(time.Now()) })()
	if _, err := v.hear(); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("nsenter ended; what it said is in the output")
		}
		return command, v.unfinished("the container cannot be entered", err)
	}
	command, err := onlyChild(nsenter)
	if err != nil {
		return command, v.unfinished("cannot find the session", err)
	}
	// nsenter ends by the signal that ended the command: no core dump of it.
	_ = prlimit(nsenter, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	// Limits of the host's shell are not the guest's. They can only be raised
	// from out here.
	if err := copyLimits(v.guest.Leader.PID, command.PID); err != nil {
		return command, v.unfinished("cannot set the limits of the session", err)
	}
	if err := v.guest.Group.Admit(command.PID); err != nil {
		return command, v.unfinished("cannot enter it", err)
	}
	if err := json.NewEncoder(v.config).Encode(v.settings); err != nil {
		return command, v.unfinished("cannot talk to the session", err)
	}
	_ = v.config.Close()
	answer, err := v.hear()
	if err != nil {
		return command, v.unfinished("cannot understand the session", err)
	}
	return command, v.refusal(answer)
}

// hear reads what the session says next.
func (v *visit) hear() (message, error) {
	if v.messages == nil {
		v.messages = json.NewDecoder(io.LimitReader(v.status, longestMessage))
	}
	var heard message
	err := v.messages.Decode(&heard)
	return heard, err
}

func (v *visit) refusal(answer message) *Error {
	if answer.Error == "" {
		return nil
	}
	return &Error{Name: v.guest.Name, Reason: terminal.Line(answer.Error), Status: answer.Status}
}

// lastWords are what a session says that could not become the command in the
// end. Its silence, and nsenter's, means that it could.
func (v *visit) lastWords() *Error {
	_ = v.status.SetReadDeadline(time.Now().Add(lastPatience))
	answer, err := v.hear()
	if err != nil {
		return nil
	}
	return v.refusal(answer)
}

const (
	// longestMessage bounds what is read from a session: it runs inside.
	longestMessage = 64 << 10
	// handshakePatience is how long it may take to enter.
	handshakePatience = 30 * time.Second
	// lastPatience is how long the last words may take. They are there when the
	// session ends, or the end of them is; a guest could only hold that back.
	lastPatience = 10 * time.Second
	// wakeEvery is how often it is looked whether nsenter outlives its command.
	wakeEvery = 100 * time.Millisecond
	// killGrace is how long a command may take to end when it is asked to.
	killGrace = 10 * time.Second
)

// keepAwake continues nsenter when its child has ended. nsenter stops itself
// when its child is stopped, as a guest does with all processes before it powers
// off, and waits for somebody to continue it, also when the child was killed
// since; until then, that child is a zombie for which the guest waits.
func keepAwake(ctx context.Context, nsenter execx.Process) {
	tick := time.NewTicker(wakeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if child, err := onlyChild(nsenter.Pid()); err == nil && !child.Alive() {
			_ = nsenter.Signal(syscall.SIGCONT)
		}
	}
}

// forward waits for the end and passes signals on until then.
func (v *visit) forward(ctx context.Context, command process.ID, signals *caught, ended <-chan error) error {
	cancelled := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			return err
		case signal := <-signals.forwarded:
			_ = command.Signal(signal)
		case <-signals.resized:
			v.streams.resize()
		case <-cancelled:
			cancelled = nil
			_ = command.Signal(syscall.SIGTERM)
			kill = time.After(killGrace)
		case <-kill:
			kill = nil
			_ = command.Signal(syscall.SIGKILL)
		}
	}
}
