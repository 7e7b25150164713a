// Command bench measures what devhost promises about time and memory, with the
// real program, real Nix, systemd-nspawn and sshd, and prints a table. It needs
// root. What each figure means is in docs/benchmarks.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"devhost/internal/execx"
	"devhost/internal/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once; the next run clears up.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// leastRuns is the number of runs below which a median says little.
const leastRuns = 20

// figures are measured in this order.
var figures = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"version", (*bench).version},
	{"list", (*bench).list},
	{"unchanged", (*bench).unchanged},
	{"create", (*bench).create},
	{"second", (*bench).second},
	{"alias", (*bench).alias},
	{"memory", (*bench).memory},
	{"idle", (*bench).idleContainers},
	{"clone", (*bench).clone},
	{"evaluate", (*bench).evaluate},
	{"sync", (*bench).sync},
	{"deploy", (*bench).deploy},
	{"other", (*bench).other},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	program := flags.String("devhost", "bin/devhost", "the program to measure")
	folder := flags.String("folder", "/var/lib/devhost-bench", "folder for everything; emptied before and removed afterwards")
	runs := flags.Int("runs", leastRuns, "runs for each figure")
	only := flags.String("only", "", "figures to measure, by their names with commas between them (default: all)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	chosen, err := choose(*only)
	if err == nil && *runs < 1 {
		err = errors.New("-runs must be at least 1")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(stderr, "bench: it makes containers and needs root; run: sudo make bench")
		return 1
	}
	b, err := newBench(ctx, *program, *folder, *runs, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	err = b.measureAll(ctx, chosen)
	cleanErr := b.close(context.WithoutCancel(ctx))
	b.table.print(stdout)
	status := 0
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "bench: interrupted")
		status = 130
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		status = 1
	}
	if cleanErr != nil {
		fmt.Fprintln(stderr, "bench: not everything could be removed; run it again:", cleanErr)
		status = 1
	}
	return status
}

func choose(only string) ([]string, error) {
	var all []string
	for _, figure := range figures {
		all = append(all, figure.name)
	}
	if only == "" {
		return all, nil
	}
	chosen := strings.Split(only, ",")
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("there is no figure %q; there are: %s", name, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}

// bench is one run.
type bench struct {
	program string
	// client is the devhost-deploy beside it.
	client string
	// folder holds everything; registry's state folders lie below it.
	folder  string
	unlock  func()
	layout  registry.Layout
	runs    int
	runner  execx.Runner
	records *registry.Registry
	log     io.Writer
	table   table

	// channel, minimal and demo are folders of the working tree.
	channel, minimal, demo string
	bare                   *bareHost
}

func newBench(ctx context.Context, program, folder string, runs int, log io.Writer) (*bench, error) {
	b := &bench{runs: runs, runner: execx.New(), log: log}
	for _, path := range []struct {
		to       *string
		from     string
		evidence string
	}{
		{&b.program, program, ""},
		{&b.folder, folder, ".."},
		{&b.channel, "channels/offline", "nixos/default.nix"},
		{&b.minimal, "examples/minimal", "provision.nix"},
		{&b.demo, "examples/demo", "provision.nix"},
	} {
		absolute, err := filepath.Abs(path.from)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(absolute, path.evidence)); err != nil && path.to != &b.folder {
			return nil, fmt.Errorf("%w; run it from the root of the working tree, after make build", err)
		}
		*path.to = absolute
	}
	b.layout = registry.Layout{State: filepath.Join(b.folder, "state")}
	b.records = registry.New(b.layout)
	b.bare = &bareHost{runner: b.runner, name: bareName, layout: registry.Layout{State: filepath.Join(b.folder, "bare")}}
	if err := os.MkdirAll(b.folder, 0o700); err != nil {
		return nil, err
	}
	var err error
	if b.unlock, err = lockFolder(b.folder); err != nil {
		return nil, err
	}
	if err := b.clear(ctx); err != nil {
		return nil, fmt.Errorf("cannot remove what an earlier run left: %w", err)
	}
	// A copy: a build meanwhile does not change what is measured.
	source := b.program
	b.client = filepath.Join(filepath.Dir(source), "devhost-deploy")
	b.program = filepath.Join(b.folder, "devhost")
	if err := copyFile(source, b.program); err != nil {
		return nil, err
	}
	b.describeMachine()
	return b, nil
}

func (b *bench) measureAll(ctx context.Context, chosen []string) error {
	var problems []error
	for _, figure := range figures {
		if !slices.Contains(chosen, figure.name) {
			continue
		}
		b.say("measuring: %s", figure.name)
		if err := figure.measure(b, ctx); err != nil {
			problems = append(problems, fmt.Errorf("figure %s: %w", figure.name, err))
		}
		// Whatever a failed figure left must not disturb the next one.
		if err := b.destroyAll(context.WithoutCancel(ctx)); err != nil {
			return errors.Join(append(problems, err)...)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(problems...)
}

func (b *bench) say(format string, arguments ...any) {
	fmt.Fprintf(b.log, "bench: "+format+"\n", arguments...)
}
