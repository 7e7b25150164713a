// Command devhost-deploy brings an environment of a project to its dev host.
package main

import (
	"context"
	"os"
	"os/signal"

	"devhost/internal/cli/cliargs"
	"devhost/internal/cli/deploy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), cliargs.EndSignals()...)
	// A second Ctrl-C ends the program at once; the next run goes on from there.
	context.AfterFunc(ctx, stop)
	os.Exit(deploy.Main(ctx, os.Args, deploy.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
