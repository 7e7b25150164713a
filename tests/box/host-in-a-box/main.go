// Command host-in-a-box keeps a dev host in a box for people who want to look
// around.
//
//	host-in-a-box up     start one in the background, and say how to use it
//	host-in-a-box down   end it, and remove everything of it
//	host-in-a-box        keep one until SIGINT or SIGTERM
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"devhost/tests/box"
)

// patience is far more than start and end take.
const patience = 3 * time.Minute

type options struct {
	folder, program string
	bare            bool
}

func main() {
	verb, args := "", os.Args[1:]
	if len(args) > 0 && (args[0] == "up" || args[0] == "down") {
		verb, args = args[0], args[1:]
	}
	var chosen options
	flags := flag.NewFlagSet("host-in-a-box", flag.ExitOnError)
	flags.StringVar(&chosen.folder, "folder", "/var/lib/devhost-box", "the folder for all files of the box; made, and removed at the end")
	flags.StringVar(&chosen.program, "program", "bin/devhost", "the devhost binary")
	flags.BoolVar(&chosen.bare, "bare", false, "do not install devhost")
	_ = flags.Parse(args)
	if err := run(verb, chosen); err != nil {
		fmt.Fprintln(os.Stderr, "host-in-a-box:", err)
		os.Exit(1)
	}
}

func run(verb string, chosen options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	folder, err := filepath.Abs(chosen.folder)
	if err != nil {
		return err
	}
	chosen.folder = folder
	switch verb {
	case "up":
		return up(ctx, chosen)
	case "down":
		return box.End(ctx, folder, patience)
	}
	return keep(ctx, chosen)
}

// up starts this program in the background and waits until the box is ready.
func up(ctx context.Context, chosen options) error {
	if box.IDOf(chosen.folder) != "" {
		ready, err := os.ReadFile(box.ReadyFile(chosen.folder))
		if err != nil {
			return fmt.Errorf("there is a box in %s, which is not ready; end it with: make host-in-a-box-down", chosen.folder)
		}
		fmt.Printf("It runs already.\n\n%s", ready)
		return nil
	}
	arguments := []string{"-folder", chosen.folder, "-program", chosen.program}
	if chosen.bare {
		arguments = append(arguments, "-bare")
	}
	log, err := os.CreateTemp("", "host-in-a-box-")
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	// It outlives us.
	keeper := exec.Command("/proc/self/exe", arguments...) //nolint:noctx // see above
	keeper.Stdout, keeper.Stderr = log, log
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := keeper.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- keeper.Wait() }()
	limit := time.After(patience)
	for {
		ready, err := os.ReadFile(box.ReadyFile(chosen.folder))
		if err == nil {
			fmt.Print(string(ready))
			return nil
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the box did not start: %w\n%s", errors.Join(errors.New("its keeper ended"), err), said)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), keeper.Process.Signal(syscall.SIGTERM))
		case <-limit:
			return errors.Join(fmt.Errorf("the box was not ready after %s", patience), keeper.Process.Signal(syscall.SIGTERM))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// keep boots a box and keeps it until it is shut down or we are told to end.
func keep(ctx context.Context, chosen options) (err error) {
	sources, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(chosen.folder); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; choose another -folder", chosen.folder)
	}
	b, err := box.Boot(ctx, box.Options{Folder: chosen.folder, Program: chosen.program, Sources: sources})
	defer func() { err = errors.Join(err, b.Remove(context.WithoutCancel(ctx))) }()
	if err == nil && !chosen.bare {
		err = b.Install(ctx)
	}
	if err == nil {
		err = b.Announce()
	}
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.Ended():
	}
	return nil
}
