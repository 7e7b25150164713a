package devhost

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/fcmanage"
)

// manageCommands is fc-manage, in a container.
func (a *app) manageCommands() *cli.App {
	command := a.dialectApp(manageDialect, "build this container's system and switch to it", `Builds the system from the channel in /etc/nixos/enc.json, which the host
wrote, and all modules /etc/local/nixos/*.nix, and switches to it. Nothing happens
while nothing has changed.`)
	command.ArgsUsage = " "
	command.UsageText = "sudo fc-manage -c"
	command.Flags = append(command.Flags,
		&cli.BoolFlag{Name: "channel", Aliases: []string{"c"}, Usage: "build and switch"},
		&cli.BoolFlag{Name: "build", Aliases: []string{"b"}, Usage: "the same: the host alone updates the channel"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "show what builders say"},
		&cli.BoolFlag{Name: "lazy", Aliases: []string{"l"}, Usage: "accepted: it is always so"},
		&cli.BoolFlag{Name: "directory", Aliases: []string{"e"}, Usage: "accepted and not used: the host writes /etc/nixos/enc.json"},
		&cli.BoolFlag{Name: "system-state", Aliases: []string{"s"}, Usage: "accepted and not used"},
		&cli.BoolFlag{Name: "fast", Usage: "accepted and not used"},
		&cli.IntFlag{Name: "timeout", Aliases: []string{"t"}, Value: 3600, Usage: "give up after this many `SECONDS`"},
	)
	command.UseShortOptionHandling = true
	command.Action = a.manage
	return command
}

func (a *app) manage(c *cli.Context) error {
	switch {
	case c.Args().Present() && c.Args().First() != "switch":
		return &cliargs.UsageError{Help: true, Err: fmt.Errorf("%s takes no arguments, but was given %q", manageDialect, c.Args().First())}
	case !c.Bool("channel") && !c.Bool("build") && !c.Args().Present():
		return &cliargs.UsageError{Help: true, Err: errors.New("say what to do: fc-manage -c builds this container's system and switches to it")}
	case c.Int("timeout") <= 0:
		return &cliargs.UsageError{Help: true, Err: fmt.Errorf("--timeout %d: give a positive number of seconds", c.Int("timeout"))}
	}
	if _, err := os.Stat(filepath.Join("/", "run/devhost/name")); err != nil {
		return errors.New("this is no container of devhost (there is no /run/devhost); on the host, use: devhost ensure")
	}
	if err := needRoot(append([]string{manageDialect}, os.Args[1:]...)); err != nil {
		return err
	}
	manager := &fcmanage.Manager{
		Runner: execx.New(), Root: "/", System: nspawn.GuestSystem, Next: nspawn.GuestNext,
		Out: a.streams.Out, Err: a.streams.Err, Verbose: c.Bool("verbose"), Timeout: time.Duration(c.Int("timeout")) * time.Second,
	}
	err := manager.Switch(c.Context)
	var bad *fcmanage.BadEnc
	if errors.As(err, &bad) {
		return &cliargs.HostError{Err: err}
	}
	return err
}
