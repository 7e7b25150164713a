package devhost

import (
	"fmt"

	"devhost/internal/cli/cliargs"

	"github.com/urfave/cli/v2"
)

func (a *app) hostCommand() *cli.Command {
	return &cli.Command{
		Name: "host", Usage: "about this host itself: its settings, and what is installed on it",
		Subcommands: []*cli.Command{a.hostCheckCommand(), a.hostApplyCommand(), a.hostInstallCommand(), a.hostUninstallCommand(), a.hostStatusCommand()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &cliargs.UsageError{Command: "host", Err: fmt.Errorf("devhost host has no command %q", c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}
