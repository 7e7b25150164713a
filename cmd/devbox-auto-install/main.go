// Command devbox-auto-install installs a devbox, from its installer ISO.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"devhost/internal/cli/autoinstall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(autoinstall.Main(ctx, os.Args[1:], autoinstall.Streams{Out: os.Stdout, Err: os.Stderr}))
}
