// Command devbox-cli makes and runs development VMs.
package main

import (
	"context"
	"os"
	"os/signal"

	"devhost/internal/cli/cliargs"
	"devhost/internal/cli/devbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), cliargs.EndSignals()...)
	// A second Ctrl-C ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(devbox.Main(ctx, os.Args, devbox.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
