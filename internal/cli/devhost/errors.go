package devhost

import (
	"context"
	"errors"
	"fmt"

	"devhost/internal/channel"
	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/ingress"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/provision"
	"devhost/internal/registry"
)

// degradedError says that a container is up and not all of its units are. It
// has been explained already.
type degradedError struct{}

func (degradedError) Error() string { return "not all units of the container are up" }

// exitCode is the one place that maps errors to exit codes.
func exitCode(ctx context.Context, err error) int {
	var (
		status   *cliargs.StatusError
		degraded degradedError
		usage    *cliargs.UsageError
		host     *cliargs.HostError
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
		files    *ingress.CertificateError
		port     *container.PortRefused
		missing  *registry.NotRegistered
		archive  *registry.NoArchive
		snapshot *registry.NoSnapshot
		locked   *registry.Locked
	)
	switch {
	case err == nil:
		return cliargs.ExitDone
	case errors.As(err, &status):
		return status.Status
	case errors.As(err, &degraded):
		return cliargs.ExitDegraded
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return cliargs.ExitInterrupted
	case cliargs.NoReader(err):
		return cliargs.ExitNoReader
	case errors.As(err, &usage), errors.As(err, &name), errors.As(err, &channel), errors.As(err, &refused), errors.As(err, &nowhere), errors.As(err, &setting):
		return cliargs.ExitUsage
	case errors.As(err, &allowed), errors.As(err, &owner), errors.As(err, &declared):
		return cliargs.ExitNotAllowed
	case errors.As(err, &port) && port.Taken:
		return cliargs.ExitHost
	case errors.As(err, &port):
		return cliargs.ExitUsage
	case errors.As(err, &snapshot), errors.As(err, &archive), errors.As(err, &missing):
		return cliargs.ExitMissing
	case errors.As(err, &locked):
		return cliargs.ExitBusy
	case errors.As(err, &host), errors.As(err, &users), errors.As(err, &noNix), errors.As(err, &daemon), errors.As(err, &listen), errors.As(err, &files):
		return cliargs.ExitHost
	}
	return cliargs.ExitFailed
}

// report prints an error for a person and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	var status *cliargs.StatusError
	var degraded degradedError
	if err == nil || errors.As(err, &status) || errors.As(err, &degraded) || code == cliargs.ExitNoReader {
		return code
	}
	if code == cliargs.ExitInterrupted {
		var failure *container.Failure
		if errors.As(err, &failure) {
			fmt.Fprintf(a.streams.Err, "%s: interrupted\n%s\n", a.programName(), failure.Now)
		} else {
			fmt.Fprintf(a.streams.Err, "%s: interrupted\n", a.programName())
		}
		return code
	}
	fmt.Fprintf(a.streams.Err, "%s: %v\n", a.programName(), err)
	cliargs.See(a.streams.Err, a.programName(), err)
	return code
}
