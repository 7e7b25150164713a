package devhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"devhost/internal/channel"
	"devhost/internal/container"
	"devhost/internal/ingress"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/provision"
	"devhost/internal/registry"
)

// The exit codes of devhost. They are documented in the help text.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDegraded    = 3
	exitMissing     = 4
	exitBusy        = 5
	exitHost        = 6
	exitNotAllowed  = 7
	exitInterrupted = 130
	exitNoReader    = 141
)

// usageError is wrong input.
type usageError struct {
	// command has the help for it, "" for none; help is that of all.
	command string
	help    bool
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// hostError says that the host lacks something.
type hostError struct{ err error }

func (h *hostError) Error() string { return h.err.Error() }
func (h *hostError) Unwrap() error { return h.err }

// statusError ends the program with the status of a command that was run in a
// container. It prints nothing.
type statusError struct{ status int }

func (s *statusError) Error() string { return fmt.Sprintf("exit status %d", s.status) }

// degradedError says that a container is up and not all of its units are. It
// has been explained already.
type degradedError struct{}

func (degradedError) Error() string { return "not all units of the container are up" }

// exitCode is the one place that maps errors to exit codes.
func exitCode(ctx context.Context, err error) int {
	var (
		status   *statusError
		degraded degradedError
		usage    *usageError
		host     *hostError
		allowed  *NotAllowed
		owner    *container.NotOwner
		setting  *container.Refused
		declared *container.DeclaredElsewhere
		name     *names.Invalid
		channel  *channel.BadReference
		refused  *provision.Refused
		nowhere  *container.NoChannel
		users    *nix.NoBuildUsers
		noNix    *nix.NotInstalled
		daemon   *nix.DaemonDown
		listen   *ingress.ListenError
		port     *container.PortRefused
		missing  *registry.NotRegistered
		archive  *registry.NoArchive
		snapshot *registry.NoSnapshot
		locked   *registry.Locked
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return status.status
	case errors.As(err, &degraded):
		return exitDegraded
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case noReader(err):
		return exitNoReader
	case errors.As(err, &usage), errors.As(err, &name), errors.As(err, &channel), errors.As(err, &refused), errors.As(err, &nowhere), errors.As(err, &setting):
		return exitUsage
	case errors.As(err, &allowed), errors.As(err, &owner), errors.As(err, &declared):
		return exitNotAllowed
	case errors.As(err, &port) && port.Taken:
		return exitHost
	case errors.As(err, &port):
		return exitUsage
	case errors.As(err, &snapshot), errors.As(err, &archive), errors.As(err, &missing):
		return exitMissing
	case errors.As(err, &locked):
		return exitBusy
	case errors.As(err, &host), errors.As(err, &users), errors.As(err, &noNix), errors.As(err, &daemon), errors.As(err, &listen):
		return exitHost
	}
	return exitFailed
}

// noReader tells whether somebody closed the pipe that output goes to, as head
// does. The exit status is that of a program that SIGPIPE ends.
func noReader(err error) bool {
	var write *fs.PathError
	return errors.As(err, &write) && errors.Is(err, syscall.EPIPE) && (write.Path == os.Stdout.Name() || write.Path == os.Stderr.Name())
}

// report prints an error for a person and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	var status *statusError
	var degraded degradedError
	if err == nil || errors.As(err, &status) || errors.As(err, &degraded) || code == exitNoReader {
		return code
	}
	if code == exitInterrupted {
		var failure *container.Failure
		if errors.As(err, &failure) {
			fmt.Fprintf(a.streams.Err, "%s: interrupted\n%s\n", a.programName(), failure.Now)
		} else {
			fmt.Fprintf(a.streams.Err, "%s: interrupted\n", a.programName())
		}
		return code
	}
	fmt.Fprintf(a.streams.Err, "%s: %v\n", a.programName(), err)
	var usage *usageError
	switch {
	case !errors.As(err, &usage):
	case usage.command != "":
		fmt.Fprintf(a.streams.Err, "See: %s %s --help\n", a.programName(), usage.command)
	case usage.help:
		fmt.Fprintf(a.streams.Err, "See: %s --help\n", a.programName())
	}
	return code
}
