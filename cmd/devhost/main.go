// Command devhost makes and runs development containers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"devhost/internal/cli/devhost"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once; the journal repairs the rest.
	context.AfterFunc(ctx, stop)
	code := devhost.Main(ctx, os.Args, devhost.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	os.Exit(code)
}
