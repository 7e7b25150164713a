package deploy

import (
	"context"
	"errors"
	"fmt"

	"devhost/internal/cli/cliargs"
	"devhost/internal/deploy"
	"devhost/internal/environment"
	"devhost/internal/filesync"
	"devhost/internal/forward"
	"devhost/internal/sshlink"
)

// explained ends the program with a code, after everything was said.
type explained struct{ code int }

func (e *explained) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode is the one place that maps errors to exit codes.
func exitCode(ctx context.Context, err error) int {
	var (
		status      *cliargs.StatusError
		said        *explained
		usage       *cliargs.UsageError
		missing     *environment.Missing
		invalid     *environment.Invalid
		noProject   *environment.NoProject
		noHost      *environment.NoHost
		badName     *environment.BadName
		busy        *deploy.Busy
		never       *deploy.NotDeployed
		unreachable *deploy.Unreachable
		noDevhost   *deploy.NoDevhost
		remote      *deploy.RemoteError
		link        *sshlink.Unreachable
		source      *filesync.MissingSource
		target      *filesync.BadDestination
		program     *filesync.NoProgram
		port        *forward.Taken
	)
	switch {
	case err == nil:
		return cliargs.ExitDone
	case errors.As(err, &status):
		return status.Status
	case errors.As(err, &said):
		return said.code
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return cliargs.ExitInterrupted
	case errors.As(err, &usage), errors.As(err, &missing), errors.As(err, &invalid), errors.As(err, &noProject), errors.As(err, &noHost), errors.As(err, &badName),
		errors.As(err, &source), errors.As(err, &target), errors.As(err, &port):
		return cliargs.ExitUsage
	case errors.As(err, &never):
		return cliargs.ExitMissing
	case errors.As(err, &busy):
		return cliargs.ExitBusy
	case errors.As(err, &unreachable), errors.As(err, &noDevhost), errors.As(err, &link), errors.As(err, &program):
		return cliargs.ExitHost
	// What devhost says with these, we say with them.
	case errors.As(err, &remote) && remote.Status >= cliargs.ExitUsage && remote.Status <= cliargs.ExitNotAllowed:
		return remote.Status
	}
	return cliargs.ExitFailed
}

// report prints an error for a person and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	var status *cliargs.StatusError
	var said *explained
	if err == nil || errors.As(err, &status) || errors.As(err, &said) {
		return code
	}
	if code == cliargs.ExitInterrupted {
		fmt.Fprintln(a.streams.Err, "devhost-deploy: interrupted; the next run goes on from there")
		return code
	}
	fmt.Fprintf(a.streams.Err, "devhost-deploy: %v\n", err)
	cliargs.See(a.streams.Err, "devhost-deploy", err)
	return code
}
