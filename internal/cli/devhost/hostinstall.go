package devhost

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/hostinstall"
	"devhost/internal/names"
	"devhost/internal/registry"
	"devhost/internal/sudoers"
)

func dryRunFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: usage}
}

func (a *app) hostInstallCommand() *cli.Command {
	return &cli.Command{
		Name: "install", Usage: "make this machine a dev host",
		Description: `Installs this program as ` + hostinstall.Program + `, with its other
names beside it, the units of systemd, the rules for sudo, the group devhost
whose members may use it, a user for evaluations, and a file of settings if there
is none; enables and starts the units. What is in place already stays as it is,
so it can be run again: after an update, and after a change of allowedGroups in
the settings. On NixOS, services.devhost.enable does all this.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "public-address", Usage: "the host's public `NAME`, for a settings file that is made: containers are at https://ALIAS.CONTAINER.NAME"},
			dryRunFlag("only say what would be done"),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if err := needRoot(os.Args); err != nil {
				return err
			}
			if address := c.String("public-address"); address != "" {
				if err := names.Domain(address); err != nil {
					return &cliargs.UsageError{Command: "host install", Err: err}
				}
			}
			installer, end, err := a.installer(c)
			if err != nil {
				return err
			}
			defer end()
			return installer.Install(c.Context)
		},
	}
}

func (a *app) hostUninstallCommand() *cli.Command {
	return &cli.Command{
		Name: "uninstall", Usage: "remove from this machine what install put there",
		Description: `Never removes a container: while there are some it refuses, or, with --keep, stops
them and leaves them on disk for a later install. The state folder, with archives
and the certificate authority, stays in any case, and so do settings that were
changed.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep", Usage: "also where containers remain: stop them and leave them on disk"},
			stopTimeoutFlag("timeout"), dryRunFlag("only say what would be done"),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			installer, end, err := a.installer(c)
			if err != nil {
				return err
			}
			defer end()
			if err := a.stopAll(c, manager, installer); err != nil {
				return err
			}
			return installer.Uninstall(c.Context)
		},
	}
}

// stopAll stops the containers that --keep leaves on disk. They stay enabled:
// after a later install they come back.
func (a *app) stopAll(c *cli.Context, manager *container.Manager, installer *hostinstall.Installer) error {
	entries, err := manager.Registry.List()
	if err != nil || len(entries) == 0 {
		return err
	}
	if !c.Bool("keep") {
		remaining := &hostinstall.Remaining{}
		for _, entry := range entries {
			remaining.Names = append(remaining.Names, entry.Name)
		}
		return remaining
	}
	for _, entry := range entries {
		state, err := manager.Engine.State(entry.Name)
		if err != nil {
			return err
		}
		switch {
		case state.Status == engine.Stopped:
		case installer.DryRun:
			installer.Say("would stop " + entry.Name)
		default:
			if err := manager.Engine.Stop(c.Context, entry.Name, c.Duration("timeout")); err != nil {
				return err
			}
			installer.Say("stopped " + entry.Name)
		}
	}
	installer.Say(fmt.Sprintf("%d containers stay in %s", len(entries), manager.Registry.Containers()))
	return nil
}

func (a *app) hostStatusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "say what is installed on this machine, what differs, and what runs",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			// The rules of sudo are for root to read.
			if err := needRoot(os.Args); err != nil {
				return err
			}
			installer, end, err := a.installer(c)
			if err != nil {
				return err
			}
			defer end()
			status, err := installer.Look(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = a.printJSON(status)
			} else {
				a.printInstallation(status)
			}
			if err == nil && !status.Complete() {
				return &cliargs.StatusError{Status: cliargs.ExitHost}
			}
			return err
		},
	}
}

func (a *app) printInstallation(status hostinstall.Status) {
	for _, part := range status.Parts {
		line := fmt.Sprintf("%-10s %s", part.State, part.Name)
		if part.Detail != "" {
			line += ": " + part.Detail
		}
		fmt.Fprintln(a.streams.Out, line)
	}
	for _, unit := range status.Units {
		enabled := "enabled"
		if !unit.Enabled {
			enabled = "not enabled"
		}
		fmt.Fprintf(a.streams.Out, "%-10s %s, %s\n", unit.Active, unit.Name, enabled)
	}
	if len(status.Units) == 0 {
		fmt.Fprintln(a.streams.Out, "systemd is not PID 1 here: no unit runs")
	}
	if !status.Complete() {
		fmt.Fprintln(a.streams.Out, "To install what is missing or differs: devhost host install")
	}
}

// installer is for the default state folder: the units serve that one.
func (a *app) installer(c *cli.Context) (*hostinstall.Installer, func(), error) {
	layout, err := a.layout(c)
	if err != nil {
		return nil, nil, err
	}
	if layout.State != registry.DefaultStateDir {
		return nil, nil, &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("only %s can be installed; leave out --state-dir", registry.DefaultStateDir)}
	}
	// Who needs them in order has been refused before.
	host, _ := a.hostSettings(layout)
	systemd, end, err := hostinstall.Connect(c.Context)
	if err != nil {
		return nil, nil, err
	}
	return &hostinstall.Installer{
		Root: "/", Runner: execx.New(), Systemd: systemd, Source: "/proc/self/exe",
		SettingsFile: layout.Settings(), Settings: host, PublicAddress: c.String("public-address"), Sudoers: sudoers.Text,
		DryRun: c.Bool("dry-run"), Say: func(line string) { fmt.Fprintln(a.streams.Out, line) },
	}, end, nil
}
