// Package execx is the only place of devhost that starts a process.
//
// A Command says what to run; a Runner runs it. Every failure is one *Error
// that carries the quoted argument vector, how the process ended, and the last
// lines that it wrote. When the context ends, the process group is interrupted
// (SIGINT), given Grace to leave, and then killed.
package execx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// DefaultGrace is how long an interrupted process may take to leave before it
// is killed.
const DefaultGrace = 15 * time.Second

// tailLines is how many of the last output lines an Error keeps.
const tailLines = 40

// Credential is the user and group that a process runs as, without any
// supplementary group.
type Credential struct{ UID, GID uint32 }

// Command is one process to run.
type Command struct {
	// Name is the program, looked up on PATH of this process.
	Name string
	Args []string
	// Env is the whole environment as KEY=VALUE; nil means that of this process.
	Env []string
	Dir string

	Stdin io.Reader
	// Stdout and Stderr get the output as it comes. Output that goes to a
	// LineWriter arrives line by line. A nil writer drops it. What goes to
	// Stderr is also kept for the Error, unless Passthrough is set.
	Stdout, Stderr io.Writer
	// Passthrough gives Stdout and Stderr to the process as they are (files
	// stay files), keeps no tail, and leaves the process in our process group,
	// so that a terminal's signals reach it.
	Passthrough bool

	Credential *Credential
	ExtraFiles []*os.File
	// Timeout bounds the run, zero means none.
	Timeout time.Duration
	// Grace replaces DefaultGrace.
	Grace time.Duration
	// SysProcAttr is copied into the process attributes before Credential and
	// the process group are set.
	SysProcAttr *syscall.SysProcAttr
}

// Argv is the argument vector.
func (c Command) Argv() []string { return append([]string{c.Name}, c.Args...) }

// Runner runs commands. Tests inject execxtest.Fake.
type Runner interface {
	// Run runs the command to its end.
	Run(ctx context.Context, command Command) error
	// Output runs the command and returns its standard output; Stdout of the
	// command is ignored.
	Output(ctx context.Context, command Command) ([]byte, error)
	// Start starts the command and returns at once. The process is not bound
	// to a context: the caller signals and waits.
	Start(command Command) (Process, error)
}

// Process is a started command.
type Process interface {
	// Pid is the process id.
	Pid() int
	// Signal sends a signal to the process alone.
	Signal(signal os.Signal) error
	// Wait waits for the end; a non-zero end is an *Error.
	Wait() error
}

// Error says how a command failed.
type Error struct {
	Argv []string
	// ExitCode is the exit status, or -1 when there is none.
	ExitCode int
	// Signal is the signal that ended the process, or 0.
	Signal syscall.Signal
	// Cancelled and TimedOut say that the context or Timeout ended it.
	Cancelled, TimedOut bool
	// NotFound says that there is no such program.
	NotFound bool
	// Tail holds the last lines of standard error (of standard output where
	// standard error was silent).
	Tail []string
	// Err is the cause, if the process could not be started.
	Err error
}

// Quoted is the argument vector as a shell would read it.
func (e *Error) Quoted() string { return Quote(e.Argv) }

// Reason says in a few words how the command ended.
func (e *Error) Reason() string {
	switch {
	case e.NotFound:
		return fmt.Sprintf("program %q was not found on PATH", e.Argv[0])
	case e.TimedOut:
		return "took too long and was stopped"
	case e.Cancelled:
		return "was interrupted"
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		return fmt.Sprintf("was ended by signal %d (%s)", int(e.Signal), e.Signal)
	default:
		return fmt.Sprintf("ended with exit code %d", e.ExitCode)
	}
}

func (e *Error) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", e.Quoted(), e.Reason())
	for _, line := range e.Tail {
		text.WriteString("\n  ")
		text.WriteString(line)
	}
	return text.String()
}

// Unwrap gives the cause, so that errors.Is finds context.Canceled.
func (e *Error) Unwrap() error {
	switch {
	case e.Err != nil:
		return e.Err
	case e.TimedOut:
		return context.DeadlineExceeded
	case e.Cancelled:
		return context.Canceled
	}
	return nil
}

// Quote writes an argument vector so that a POSIX shell reads it back.
func Quote(argv []string) string {
	quoted := make([]string, len(argv))
	for i, argument := range argv {
		quoted[i] = quote(argument)
	}
	return strings.Join(quoted, " ")
}

func quote(argument string) string {
	if argument != "" && strings.Trim(argument, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%") == "" {
		return argument
	}
	return "'" + strings.ReplaceAll(argument, "'", `'\''`) + "'"
}

// New returns the Runner that starts real processes.
func New() Runner { return osRunner{} }

type osRunner struct{}

func (osRunner) Run(ctx context.Context, command Command) error {
	return run(ctx, command)
}

func (osRunner) Output(ctx context.Context, command Command) ([]byte, error) {
	var output bytes.Buffer
	command.Stdout = &output
	err := run(ctx, command)
	return output.Bytes(), err
}

func run(ctx context.Context, command Command) error {
	if command.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, command.Timeout)
		defer cancel()
		ctx = limited
	}
	stderr, stdout := &tail{next: command.Stderr}, &tail{next: command.Stdout}
	process := exec.CommandContext(ctx, command.Name, command.Args...)
	prepare(process, command)
	if command.Passthrough {
		process.Stdout, process.Stderr = command.Stdout, command.Stderr
	} else {
		process.Stdout, process.Stderr = stdout, stderr
	}
	process.Cancel = func() error {
		if command.Passthrough {
			return process.Process.Signal(syscall.SIGINT)
		}
		return syscall.Kill(-process.Process.Pid, syscall.SIGINT)
	}
	process.WaitDelay = command.Grace
	if process.WaitDelay == 0 {
		process.WaitDelay = DefaultGrace
	}
	err := process.Run()
	if !command.Passthrough && ctx.Err() != nil && process.Process != nil {
		// WaitDelay kills the process alone; its group may hold children.
		_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
	}
	failure := asError(ctx.Err(), command, err)
	if failure == nil {
		return nil
	}
	failure.Tail = stderr.lines()
	if len(failure.Tail) == 0 && command.Stdout == nil {
		failure.Tail = stdout.lines()
	}
	return failure
}

func (osRunner) Start(command Command) (Process, error) {
	process := exec.Command(command.Name, command.Args...) //nolint:noctx // the caller signals and waits
	prepare(process, command)
	process.Stdout, process.Stderr = command.Stdout, command.Stderr
	if err := process.Start(); err != nil {
		return nil, asError(nil, command, err)
	}
	return &started{process: process, command: command}, nil
}

type started struct {
	process *exec.Cmd
	command Command
}

func (s *started) Pid() int                      { return s.process.Process.Pid }
func (s *started) Signal(signal os.Signal) error { return s.process.Process.Signal(signal) }
func (s *started) Wait() error {
	if failure := asError(nil, s.command, s.process.Wait()); failure != nil {
		return failure
	}
	return nil
}

func prepare(process *exec.Cmd, command Command) {
	process.Env, process.Dir, process.Stdin, process.ExtraFiles = command.Env, command.Dir, command.Stdin, command.ExtraFiles
	attributes := syscall.SysProcAttr{}
	if command.SysProcAttr != nil {
		attributes = *command.SysProcAttr
	}
	if !command.Passthrough && !attributes.Setsid {
		attributes.Setpgid = true
	}
	if command.Credential != nil {
		attributes.Credential = &syscall.Credential{Uid: command.Credential.UID, Gid: command.Credential.GID, Groups: []uint32{}}
	}
	process.SysProcAttr = &attributes
}

func asError(ended error, command Command, err error) *Error {
	if err == nil {
		return nil
	}
	failure := &Error{Argv: command.Argv(), ExitCode: -1}
	failure.TimedOut = errors.Is(ended, context.DeadlineExceeded)
	failure.Cancelled = errors.Is(ended, context.Canceled)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			failure.Signal = status.Signal()
		} else {
			failure.ExitCode = exit.ExitCode()
		}
	case errors.Is(err, exec.ErrNotFound):
		failure.NotFound = true
	case failure.TimedOut || failure.Cancelled:
	default:
		failure.Err = err
		// The kernel blames the program for a missing working folder.
		if _, statErr := os.Stat(command.Dir); command.Dir != "" && statErr != nil {
			failure.Err = fmt.Errorf("its working folder: %w", statErr)
		}
	}
	return failure
}

// tail passes output on and keeps the last lines of it.
type tail struct {
	next    io.Writer
	kept    []string
	partial []byte
}

func (t *tail) Write(data []byte) (int, error) {
	if t.next != nil {
		if n, err := t.next.Write(data); err != nil {
			return n, err
		}
	}
	t.partial = append(t.partial, data...)
	for {
		end := bytes.IndexByte(t.partial, '\n')
		if end < 0 {
			break
		}
		t.keep(string(t.partial[:end]))
		t.partial = t.partial[end+1:]
	}
	const longest = 4096
	if len(t.partial) > longest {
		t.keep(string(t.partial[:longest]))
		t.partial = t.partial[longest:]
	}
	return len(data), nil
}

func (t *tail) keep(line string) {
	t.kept = append(t.kept, line)
	if len(t.kept) > tailLines {
		t.kept = t.kept[1:]
	}
}

func (t *tail) lines() []string {
	lines := t.kept
	if len(t.partial) > 0 {
		lines = append(lines, string(t.partial))
	}
	return lines
}

// longestLine bounds what a LineWriter keeps, in bytes.
const longestLine = 64 << 10

// LineWriter calls a function for every complete line that is written to it,
// without the line's end. A line of more than longestLine bytes comes in
// pieces. Close hands over an unfinished last line.
type LineWriter struct {
	Line    func(line string)
	partial []byte
}

func (w *LineWriter) Write(data []byte) (int, error) {
	w.partial = append(w.partial, data...)
	for {
		end := bytes.IndexByte(w.partial, '\n')
		if end < 0 {
			if len(w.partial) > longestLine {
				w.Line(string(w.partial))
				w.partial = nil
			}
			return len(data), nil
		}
		w.Line(strings.TrimSuffix(string(w.partial[:end]), "\r"))
		w.partial = w.partial[end+1:]
	}
}

// Close hands over an unfinished last line.
func (w *LineWriter) Close() error {
	if len(w.partial) > 0 {
		w.Line(string(w.partial))
		w.partial = nil
	}
	return nil
}
