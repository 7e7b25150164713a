package devbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"devhost/internal/cli/cliargs"
	"devhost/internal/devbox"
	"devhost/internal/hypervisor"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/registry"
	"devhost/internal/terminal"
)

// exitCode is the one place that maps errors to exit codes.
func exitCode(ctx context.Context, err error) int {
	var (
		status      *cliargs.StatusError
		usage       *cliargs.UsageError
		host        *cliargs.HostError
		name        *names.Invalid
		size        *devbox.BadSize
		which       *devbox.UnknownHypervisor
		reference   *devbox.BadReference
		key         *devbox.BadKeyFile
		iso         *devbox.NoISO
		noLogin     *devbox.NoLogin
		badLogin    *devbox.BadLogin
		broken      *devbox.Broken
		unknown     *devbox.Unknown
		unknownHost *devbox.UnknownHost
		degraded    *devbox.Degraded
		unsupported *hypervisor.Unsupported
		port        *hypervisor.PortTaken
		noNix       *nix.NotInstalled
		locked      *registry.Locked
	)
	switch {
	case err == nil:
		return cliargs.ExitDone
	case errors.As(err, &status):
		return status.Status
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return cliargs.ExitInterrupted
	case cliargs.NoReader(err):
		return cliargs.ExitNoReader
	case errors.As(err, &broken):
		return cliargs.ExitFailed
	case errors.As(err, &usage), errors.As(err, &name), errors.As(err, &size), errors.As(err, &which), errors.As(err, &reference),
		errors.As(err, &key), errors.As(err, &iso), errors.As(err, &noLogin), errors.As(err, &badLogin):
		return cliargs.ExitUsage
	case errors.As(err, &degraded):
		return cliargs.ExitDegraded
	case errors.As(err, &unknown), errors.As(err, &unknownHost):
		return cliargs.ExitMissing
	case errors.As(err, &locked):
		return cliargs.ExitBusy
	case errors.As(err, &host), errors.As(err, &unsupported), errors.As(err, &port), errors.As(err, &noNix):
		return cliargs.ExitHost
	}
	return cliargs.ExitFailed
}

// forTerminal is a text of several lines, fit for a terminal: a guest's programs have
// written some of them.
func forTerminal(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = terminal.Line(lines[i])
	}
	return strings.Join(lines, "\n")
}

// report prints an error for a person and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	code := exitCode(ctx, err)
	var status *cliargs.StatusError
	if err == nil || errors.As(err, &status) || code == cliargs.ExitNoReader {
		return code
	}
	if code == cliargs.ExitInterrupted {
		fmt.Fprintln(a.streams.Err, "devbox-cli: interrupted")
		var left *devbox.LeftRunning
		if errors.As(err, &left) {
			fmt.Fprintln(a.streams.Err, forTerminal(left.Now))
		}
		return code
	}
	fmt.Fprintf(a.streams.Err, "devbox-cli: %s\n", forTerminal(err.Error()))
	cliargs.See(a.streams.Err, "devbox-cli", err)
	return code
}
