// Command devhost makes and runs development containers.
package main

import (
	"context"
	"os"
	"os/signal"

	"devhost/internal/cli/cliargs"
	"devhost/internal/cli/devhost"
)

func main() {
	// Inside of a container, signals must do what they do to any program.
	if status, ok := devhost.Inside(os.Args); ok {
		os.Exit(status)
	}
	ctx, stop := signal.NotifyContext(context.Background(), cliargs.EndSignals()...)
	// A second Ctrl-C ends the program at once; the journal repairs the rest.
	context.AfterFunc(ctx, stop)
	os.Exit(devhost.Main(ctx, os.Args, devhost.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
