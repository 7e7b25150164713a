package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/environment"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "write a first environment, with comments, and what git is to ignore", ArgsUsage: "[ENV]",
		Description: `Writes environments/ENV (dev, if not given) into the project, or into the current
folder: environment.cfg, provision.nix and provision.sh, with comments. Files that
are there stay. To .gitignore it adds what is each checkout's alone.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "host", Value: "dev.example.org", Usage: "the dev `HOST`"},
			&cli.StringFlag{Name: "channel", Usage: "where NixOS comes from: `URL|FLAKE|FOLDER` of the dev host"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 1 {
				return &cliargs.UsageError{Command: "init", Err: fmt.Errorf("init takes one name, but was given %q too", c.Args().Get(1))}
			}
			name := c.Args().First()
			if name == "" {
				name = "dev"
			}
			root, err := a.root(c)
			if err != nil {
				if root, err = os.Getwd(); err != nil {
					return err
				}
			}
			written, err := environment.Init(root, name, c.String("host"), c.String("channel"))
			if err != nil {
				return &cliargs.UsageError{Command: "init", Err: err}
			}
			for _, file := range written {
				fmt.Fprintln(a.streams.Out, file)
			}
			if config := filepath.Join("environments", name, "environment.cfg"); c.String("channel") == "" && slices.Contains(written, config) {
				fmt.Fprintf(a.streams.Err, "devhost-deploy: write into %s where NixOS comes from (channel), before the first deploy\n", config)
			}
			if len(written) == 0 {
				fmt.Fprintf(a.streams.Err, "devhost-deploy: environments/%s and .gitignore have all that init would write\n", name)
			}
			return nil
		},
	}
}
