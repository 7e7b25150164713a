// Package devhost is the command line of devhost: flags, output and exit
// codes. What the commands do is in internal/container.
package devhost

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sort"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Version is set at link time.
var Version = "0.1.0-dev"

// Streams are the process' standard streams. In and Out are files where a
// command hands them to a child.
type Streams struct{ In, Out, Err *os.File }

// app is one run of the program.
type app struct {
	streams Streams
	// program is the name that it answers to, "" for its own.
	program string
	// onStep is container.Manager.OnStep, for tests that kill a command at a
	// step.
	onStep func(step string)
	// now is the clock by which containers expire.
	now func() time.Time
	// settings are those of the host, once they were read; settingsErr says
	// what is wrong with them.
	settings    *settings.Settings
	settingsErr error
	// auditPath is the audit log of the state folder that stateMarker marks; ""
	// where that cannot be used.
	auditPath, stateMarker string
}

// Option changes a run of the program.
type Option func(*app)

// OnStep has a function called at every journalled step of a change.
func OnStep(hook func(step string)) Option { return func(a *app) { a.onStep = hook } }

// Main runs the program and returns its exit status.
func Main(ctx context.Context, args []string, streams Streams, options ...Option) int {
	cleanEnvironment()
	// A closed pipe makes a write fail, and does not end the program: what was
	// changed is still to be written down.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	a := &app{streams: streams, now: time.Now}
	for _, option := range options {
		option(a)
	}
	if dialect := a.dialect(args); dialect != nil {
		return dialect(ctx, args)
	}
	command := a.command()
	err := command.RunContext(ctx, a.reorder(command, args))
	return a.report(ctx, err)
}

func (a *app) command() *cli.App {
	command := cliargs.NewApp("devhost", Version, a.streams.Out, a.streams.Err)
	command.Usage = "development containers with NixOS on a shared Linux host"
	command.Description = `devhost makes, runs and removes development containers (systemd-nspawn).
Each is built from a channel and a provision.nix, and is reachable by ssh and
at https://ALIAS.CONTAINER.DOMAIN.

First steps:
  devhost doctor                                       is this host ready?
  devhost ensure demo --channel ./channels/offline     make a container
  devhost ssh demo                                     log in
  devhost destroy demo                                 remove it

Exit codes: 0 done; 1 failed, and the message says what holds now; 2 wrong
input; 3 the container is up, but units failed or still start; 4 no such
container; 5 in use by another command; 6 the host lacks something (no root, no
build users, a port taken); 7 you may not do this; 130 interrupted; 141 nobody
reads the output. exec, shell and ssh return the command's own; exec and shell
125 where the container cannot be entered, 126 and 127 where the command cannot
be run or found.`
	command.Flags = []cli.Flag{
		&cli.StringFlag{Name: "state-dir", Value: registry.DefaultStateDir, EnvVars: []string{"DEVHOST_STATE_DIR"}, Usage: "`FOLDER` that holds all state"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEVHOST_DEBUG"}, Usage: "log what is done, on standard error"},
	}
	command.Commands = append([]*cli.Command{
		a.ensureCommand(),
		a.listCommand(), a.statusCommand(), a.ipCommand(),
		a.startCommand(), a.stopCommand(), a.restartCommand(), a.destroyCommand(),
		a.execCommand(), a.shellCommand(), a.sshCommand(), a.sshConfigCommand(), a.logsCommand(),
		a.keepCommand(), a.unkeepCommand(), a.undeleteCommand(), a.expireCommand(), a.pruneCommand(),
		a.cloneCommand(), a.renameCommand(), a.snapshotCommand(),
		a.generationsCommand(), a.rollbackCommand(), a.diffCommand(),
		a.ingressCommand(), a.doctorCommand(), a.hostCommand(),
		a.superviseCommand(), a.repairCommand(), a.refreshCommand(), a.bootCommand(),
	}, cliargs.Documents("devhost", 8, a.streams.Out)...)
	a.guard(command.Commands, "")
	cliargs.SetUp(command, "NAME", a.completeNames)
	return command
}

// reorder puts flags where urfave/cli looks for them. exec and ssh end their flags
// at the first argument.
func (a *app) reorder(command *cli.App, args []string) []string {
	return cliargs.Reorder(command, args, "exec", "ssh")
}

// layout is the state folder's layout. As root it must be root's alone.
func (a *app) layout(c *cli.Context) (registry.Layout, error) {
	layout, err := registry.NewLayout(c.String("state-dir"))
	if err != nil || os.Geteuid() != 0 {
		return layout, err
	}
	if err := layout.CheckTrusted(); err != nil {
		return layout, &cliargs.UsageError{Err: err}
	}
	speaker, _, err := caller()
	if err != nil {
		return layout, err
	}
	if speaker.UID != 0 {
		if err := layout.CheckKnown(); err != nil {
			return layout, &cliargs.UsageError{Err: err}
		}
	}
	return layout, nil
}

func (a *app) logger(c *cli.Context) hclog.Logger {
	level := hclog.Off
	if c.Bool("debug") {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: "devhost", Level: level, Output: a.streams.Err})
}

// completeNames completes flags, and the names of containers where they can
// be read.
func (a *app) completeNames(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	layout, err := a.layout(c)
	if err != nil {
		return
	}
	entries, err := registry.New(layout).List()
	if err != nil {
		return
	}
	for _, entry := range entries {
		fmt.Fprintln(a.streams.Out, entry.Name)
	}
}

// oneName is the only argument of most commands.
func oneName(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("give the name of one container: %s %s", c.Command.HelpName, c.Command.ArgsUsage)}
	}
	return c.Args().First(), nil
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("%s takes no arguments, but was given %q", cliargs.CommandName(c), c.Args().First())}
	}
	return nil
}

// printUnits tells a person which units are not as they should be.
func printUnits(w io.Writer, name string, units []container.Unit) {
	sort.Slice(units, func(i, j int) bool { return units[i].Name < units[j].Name })
	for _, unit := range units {
		if unit.State == "failed" {
			fmt.Fprintf(w, "unit %s failed (%s); its last log lines:\n", unit.Name, unit.Description)
			for _, line := range unit.Log {
				fmt.Fprintf(w, "  %s\n", line)
			}
			fmt.Fprintf(w, "  more: devhost logs %s --unit %s\n", name, unit.Name)
		} else {
			fmt.Fprintf(w, "unit %s still starts (%s)\n", unit.Name, unit.Description)
		}
	}
}
