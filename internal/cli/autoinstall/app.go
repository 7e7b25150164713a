// Package autoinstall is the command line of devbox-auto-install, which a unit
// of the installer ISO starts.
package autoinstall

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"devhost/internal/execx"
	"devhost/internal/install"
	"devhost/internal/seed"
)

// The exit codes.
const (
	exitInstalled = 0
	exitFailed    = 1
	exitUsage     = 2
)

// Streams are where output goes. Out is the console.
type Streams struct{ Out, Err io.Writer }

const usage = `usage: devbox-auto-install --config FILE [--wait DURATION] [--check]

Installs a devbox on the disk that the seed disk names, from the installer ISO
that it runs in. It reports on standard output and on the seed disk.

  --config FILE    what the ISO holds, as JSON
  --wait DURATION  how long disks may take to show up, such as 30s (1m)
  --check          say whether FILE is right, and do nothing else

Exit codes: 0 installed, 1 failed, 2 wrong arguments or FILE.
`

// Main runs the command and returns its exit code.
func Main(ctx context.Context, arguments []string, streams Streams) int {
	flags := flag.NewFlagSet("devbox-auto-install", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", "", "")
	wait := flags.Duration("wait", install.WaitForDisks, "")
	check := flags.Bool("check", false, "")
	fail := func(code int, err error) int {
		fmt.Fprintf(streams.Err, "devbox-auto-install: %v\n", err)
		return code
	}
	err := flags.Parse(arguments)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(streams.Out, usage)
		return exitInstalled
	case err != nil:
		return fail(exitUsage, fmt.Errorf("%w\n\n%s", err, usage))
	case flags.NArg() > 0:
		return fail(exitUsage, fmt.Errorf("%q is one argument too many\n\n%s", flags.Arg(0), usage))
	case *path == "":
		return fail(exitUsage, fmt.Errorf("--config is missing\n\n%s", usage))
	}
	config, err := install.LoadConfig(*path)
	if err != nil && !*check {
		// The host gets a verdict, whatever is wrong.
		_ = (&seed.Reporter{Console: streams.Out}).Report(seed.Event{Kind: seed.VerdictEvent, Verdict: seed.InstallFails, Message: err.Error()})
	}
	if err != nil {
		return fail(exitUsage, err)
	}
	if *check {
		return exitInstalled
	}
	if os.Geteuid() != 0 {
		return fail(exitFailed, errors.New("it must run as root, in the installer ISO of a devbox"))
	}
	// What programs print goes to the console too: the host shows the last line.
	installer := install.New(execx.New(), *config, streams.Out)
	installer.Wait = *wait
	if err := installer.Run(ctx); err != nil {
		return exitFailed
	}
	return exitInstalled
}
