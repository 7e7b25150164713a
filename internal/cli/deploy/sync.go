package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/deploy"
	"devhost/internal/environment"
	"devhost/internal/filesync"
	"devhost/internal/sshlink"
)

func (a *app) syncCommand() *cli.Command {
	return &cli.Command{
		Name: "sync", Usage: "make folders in a container equal to folders here", ArgsUsage: "ENV [SRC:DEST ...]",
		Description: `Each SRC (a folder, or a file) goes to DEST, an absolute path in the container,
as the service user; the files of a folder come directly below DEST. Without
SRC:DEST, the folders of [sync] in environment.cfg are synced.

What DEST has too much is removed there, unless --no-delete is given. What
.gitignore or --exclude leave out is neither sent nor removed, and neither is a
folder .git. An empty or missing SRC removes nothing.

With --watch it goes on until Ctrl-C, and sends what changes when it changes.
When the connection is lost or the container stops, it tries again until it is
back, and then makes everything equal.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on, and send what changes"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "leave out `PATTERN`, a line as in .gitignore that comes before those; can be given more than once"},
			&cli.BoolFlag{Name: "no-delete", Usage: "remove nothing in the container"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be sent and removed"},
			&cli.StringFlag{Name: "host", Usage: "the `HOST` of the environment (default: host in [sync], or the only one)"},
		},
		Action: a.sync,
	}
}

func (a *app) sync(c *cli.Context) error {
	if c.Bool("watch") && c.Bool("dry-run") {
		return &cliargs.UsageError{Command: "sync", Err: errors.New("--dry-run shows one sync; leave out --watch")}
	}
	e, err := a.deployed(c)
	if err != nil {
		return err
	}
	pairs, err := pairsOf(e, c.Args().Tail())
	if err != nil {
		return err
	}
	word := c.String("host")
	if word == "" {
		word = e.Sync.Host
	}
	host, err := e.Host(word)
	if err != nil {
		return err
	}
	return a.withSockets(c, e, func(folder string) error {
		options := filesync.Options{
			User: e.ServiceUserOf(host), Exclude: append(c.StringSlice("exclude"), e.Sync.Exclude...),
			KeepExtra: c.Bool("no-delete"), DryRun: c.Bool("dry-run"), Say: a.say(c),
		}
		at, link := sshlink.Host{Config: e.SSHConfig(), Name: host.Name}, sshlink.Options{Folder: folder}
		if c.Bool("watch") {
			return usualEnd(c, filesync.Watch(c.Context, a.loggedRunner(c), at, link, pairs, options))
		}
		return filesync.Run(c.Context, a.loggedRunner(c), at, link, pairs, options)
	})
}

// pairsOf are the folders of the command line, whose paths start at the current
// folder, or those of environment.cfg.
func pairsOf(e *environment.Environment, words []string) ([]filesync.Pair, error) {
	folders := e.Sync.Folders
	if len(words) > 0 {
		base, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		folders = nil
		for _, word := range words {
			folder, err := e.ParseSyncFolder(base, word)
			if err != nil {
				return nil, &cliargs.UsageError{Command: "sync", Err: err}
			}
			folders = append(folders, folder)
		}
	}
	if len(folders) == 0 {
		return nil, &cliargs.UsageError{Command: "sync", Err: fmt.Errorf(`there is nothing to sync: give SRC:DEST, such as src:/srv/%s/src, or write into %s
  [sync]
  folders = src:/srv/%s/src`, e.ServiceUser, e.File, e.ServiceUser)}
	}
	var pairs []filesync.Pair
	for _, folder := range folders {
		pairs = append(pairs, filesync.Pair{Source: strings.TrimSuffix(folder.Source, "/"), Destination: folder.Target})
	}
	return pairs, nil
}

// say tells what happens; what matters to scripts is the exit code.
func (a *app) say(c *cli.Context) func(string) {
	if c.Bool("quiet") {
		return func(string) {}
	}
	return func(line string) { fmt.Fprintln(a.streams.Err, line) }
}

// usualEnd is the end of a command that goes on until Ctrl-C: there is nothing to
// say about that then.
func usualEnd(c *cli.Context, err error) error {
	if c.Err() != nil && errors.Is(err, context.Canceled) {
		return &explained{code: cliargs.ExitInterrupted}
	}
	return err
}

// withSockets calls use with a folder for ssh's sockets.
func (a *app) withSockets(c *cli.Context, e *environment.Environment, use func(folder string) error) error {
	folder, err := deploy.RuntimeFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	err = use(folder)
	var unreachable *sshlink.Unreachable
	if errors.As(err, &unreachable) && c.Err() == nil {
		return fmt.Errorf("%w\nA container that is stopped, or gone, is brought up by: devhost-deploy deploy %s", err, e.Name)
	}
	return err
}
