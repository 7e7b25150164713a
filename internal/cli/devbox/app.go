// Package devbox is the command line of devbox-cli: flags, output and exit
// codes. What the commands do is in internal/devbox.
package devbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/devbox"
	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/hypervisor/qemu"
	"devhost/internal/hypervisor/tart"
	"devhost/internal/progress"
)

// Version is set at link time.
var Version = "0.1.0-dev"

// Streams are the process' standard streams.
type Streams struct{ In, Out, Err *os.File }

// app is one run of the program.
type app struct{ streams Streams }

// Main runs the program and returns its exit status.
func Main(ctx context.Context, args []string, streams Streams) int {
	if status, ok := tart.KeepConsole(args); ok {
		return status
	}
	// A closed pipe makes a write fail, and does not end the program.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	a := &app{streams: streams}
	command := a.command()
	err := command.RunContext(ctx, cliargs.Reorder(command, args, "ssh"))
	return a.report(ctx, err)
}

func (a *app) command() *cli.App {
	command := cliargs.NewApp("devbox-cli", Version, a.streams.Out, a.streams.Err)
	command.Usage = "development VMs with NixOS on your own machine"
	command.Description = `devbox-cli makes VMs from the hosts of a flake, installs NixOS in them
unattended, and updates them. VMs run on Tart (Apple silicon) or QEMU.

First steps:
  devbox-cli init ./my-flake#my-devbox     build, install, start
  devbox-cli ssh my-devbox                 log in
  devbox-cli update ./my-flake#my-devbox   switch to what the flake says now
  devbox-cli down my-devbox                power off; up starts it again
  devbox-cli rm my-devbox                  remove it

Exit codes: 0 done; 1 failed, and the message says what holds now; 2 wrong
input; 3 updated, but units failed; 4 no such VM or host; 5 in use by another
command; 6 this machine lacks something (a hypervisor, Nix, a free port); 130
interrupted; 141 nobody reads the output. ssh returns the command's own.`
	command.Flags = []cli.Flag{
		&cli.StringFlag{Name: "state-dir", EnvVars: []string{"DEVBOX_STATE_DIR"}, Usage: "`FOLDER` that holds all VMs (default: devbox in $XDG_DATA_HOME, or in ~/.local/share)"},
		&cli.DurationFlag{Name: "lock-timeout", Value: 30 * time.Second, Usage: "how long to wait for another command for the same VM (`DURATION`)"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
	}
	command.Commands = append([]*cli.Command{
		a.initCommand(), a.updateCommand(), a.upCommand(), a.stopCommand("down"), a.rmCommand(),
		a.listCommand(), a.statusCommand(), a.sshCommand(), a.sshConfigCommand(), a.logsCommand(),
		a.vmCommand(),
	}, cliargs.Documents("devbox-cli", 1, a.streams.Out)...)
	cliargs.SetUp(command, "NAME", a.completeNames)
	return command
}

// layout is the state folder's layout.
func (a *app) layout(c *cli.Context) (devbox.Layout, error) {
	folder := c.String("state-dir")
	if folder == "" {
		var err error
		if folder, err = devbox.DefaultState(os.Getenv); err != nil {
			return devbox.Layout{}, &cliargs.HostError{Err: err}
		}
	}
	folder, err := filepath.Abs(folder)
	return devbox.Layout{State: folder}, err
}

// manager puts the parts together. It is the only place that knows the names of
// hypervisors.
func (a *app) manager(c *cli.Context) (*devbox.Manager, error) {
	layout, err := a.layout(c)
	if err != nil {
		return nil, err
	}
	if c.Duration("lock-timeout") < 0 {
		return nil, &cliargs.UsageError{Err: errors.New("--lock-timeout must not be negative")}
	}
	runner := execx.New()
	return &devbox.Manager{
		Layout: layout,
		Hypervisors: map[string]hypervisor.Hypervisor{
			"qemu": qemu.New(runner),
			"tart": tart.New(runner),
		},
		Runner:      runner,
		Reporter:    progress.For(a.streams.Err, c.Bool("quiet")),
		LockTimeout: c.Duration("lock-timeout"),
		Now:         time.Now,
	}, nil
}

// completeNames completes flags and the names of VMs.
func (a *app) completeNames(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	layout, err := a.layout(c)
	if err != nil {
		return
	}
	for _, name := range layout.Names() {
		fmt.Fprintln(a.streams.Out, name)
	}
}

// oneName is the only argument of most commands.
func oneName(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("give the name of one VM: %s %s", c.Command.HelpName, c.Command.ArgsUsage)}
	}
	return c.Args().First(), nil
}

// onVM is the action of a command whose only argument is the name of a VM.
func (a *app) onVM(do func(c *cli.Context, manager *devbox.Manager, name string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		name, err := oneName(c)
		if err != nil {
			return err
		}
		return a.with(c, func(manager *devbox.Manager) error { return do(c, manager, name) })
	}
}

// with calls do with a manager, and ends what it reports where it fails.
func (a *app) with(c *cli.Context, do func(*devbox.Manager) error) error {
	manager, err := a.manager(c)
	if err != nil {
		return err
	}
	err = do(manager)
	if err != nil {
		manager.Reporter.Failed()
	}
	return err
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("%s takes no arguments, but was given %q", cliargs.CommandName(c), c.Args().First())}
	}
	return nil
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func (a *app) printJSON(value any) error {
	encoder := json.NewEncoder(a.streams.Out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// said prints what became of a VM.
func (a *app) said(c *cli.Context, name, result string, changed bool) error {
	if c.Bool("json") {
		return a.printJSON(map[string]any{"name": name, "changed": changed, "result": result})
	}
	_, err := fmt.Fprintf(a.streams.Out, "%s: %s\n", name, result)
	return err
}

// timeout reads --timeout: a number of seconds, or a duration such as
// 5m.
func timeout(c *cli.Context) (time.Duration, error) {
	text := c.String("timeout")
	if count, err := strconv.Atoi(text); err == nil && count >= 0 && count <= int(math.MaxInt64/time.Second) {
		return time.Duration(count) * time.Second, nil
	}
	if limit, err := time.ParseDuration(text); err == nil && limit >= 0 {
		return limit, nil
	}
	return 0, &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("--timeout=%s: give seconds, such as 120, or a time such as 5m", text)}
}

func timeoutFlag(usage, value string) cli.Flag {
	return &cli.StringFlag{Name: "timeout", Value: value, Usage: usage + " (`SECS`, or a time such as 5m)"}
}
