// Package deploy is the command line of devhost-deploy: flags, output and exit
// codes. What the commands do is in internal/deploy.
package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/deploy"
	"devhost/internal/environment"
	"devhost/internal/execx"
)

// Version is set at link time.
var Version = "0.1.0-dev"

// Streams are the process' standard streams.
type Streams = deploy.Streams

// app is one run of the program.
type app struct {
	streams Streams
	runner  execx.Runner
	now     func() time.Time
}

// Main runs the program and returns its exit status.
func Main(ctx context.Context, args []string, streams Streams) int {
	a := &app{streams: streams, runner: execx.New(), now: time.Now}
	command := a.command()
	err := command.RunContext(ctx, cliargs.Reorder(command, args, "ssh"))
	return a.report(ctx, err)
}

func (a *app) command() *cli.App {
	command := cliargs.NewApp("devhost-deploy", Version, a.streams.Out, a.streams.Err)
	command.Usage = "from an environment of your project to a running, synced, reachable container"
	command.Description = `Reads environments/ENV/ of the project around the current folder
(environment.cfg, provision.nix, provision.sh) as batou does, and makes its
containers on the dev host over ssh.

First steps:
  devhost-deploy init --host dev.example.org    writes environments/dev
  devhost-deploy deploy dev                     makes its containers
  devhost-deploy ssh dev                        logs in
  devhost-deploy destroy dev                    removes them

Exit codes: 0 done; 1 failed, and the message says what holds now; 2 wrong
input; 3 with deploy --strict: the containers are up, but not all of the
provisioning worked; 4 no such container; 5 in use by another command; 6 the dev
host cannot be reached, is none, or lacks something; 7 you may not do this; 130
interrupted. ssh returns the command's own.`
	// A pattern may have commas.
	command.DisableSliceFlagSeparator = true
	command.Flags = []cli.Flag{
		&cli.StringFlag{Name: "project", Usage: "`FOLDER` of the project (default: the nearest above with a folder environments)"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
		&cli.BoolFlag{Name: "debug", Usage: "log what is done, on standard error; values are masked"},
	}
	command.Commands = append([]*cli.Command{
		a.deployCommand(), a.destroyCommand(), a.statusCommand(), a.sshCommand(), a.urlsCommand(),
		a.validateCommand(), a.initCommand(),
		a.syncCommand(), a.forwardCommand(),
	}, cliargs.Documents("devhost-deploy", 1, a.streams.Out)...)
	cliargs.SetUp(command, "ENV", a.completeEnvironments)
	return command
}

func (a *app) logger(c *cli.Context) hclog.Logger {
	level := hclog.Off
	if c.Bool("debug") {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: "devhost-deploy", Level: level, Output: a.streams.Err})
}

// root is the project's folder.
func (a *app) root(c *cli.Context) (string, error) {
	if folder := c.String("project"); folder != "" {
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return "", &cliargs.UsageError{Err: fmt.Errorf("--project %s: there is no such folder", folder)}
		}
		return filepath.Abs(folder)
	}
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return environment.FindRoot(folder)
}

// environment is the one that the first argument names. It tells about doubts.
func (a *app) environment(c *cli.Context) (*environment.Environment, error) {
	if !c.Args().Present() {
		return nil, &cliargs.UsageError{Command: c.Command.Name, Err: fmt.Errorf("give the name of an environment: %s %s", c.Command.HelpName, c.Command.ArgsUsage)}
	}
	root, err := a.root(c)
	if err != nil {
		return nil, err
	}
	e, err := environment.Load(root, c.Args().First())
	if err != nil {
		return nil, err
	}
	for _, warning := range e.Warnings {
		fmt.Fprintf(a.streams.Err, "devhost-deploy: warning: %s\n", warning)
	}
	return e, nil
}

// onlyEnvironment is for commands that take nothing else.
func (a *app) onlyEnvironment(c *cli.Context) (*environment.Environment, error) {
	if c.Args().Len() > 1 {
		return nil, &cliargs.UsageError{Command: c.Command.Name, Err: fmt.Errorf("%s takes one environment, but was given %q too", c.Command.Name, c.Args().Get(1))}
	}
	return a.environment(c)
}

// deployed is the environment that the first argument names, which was deployed
// from this checkout.
func (a *app) deployed(c *cli.Context) (*environment.Environment, error) {
	e, err := a.environment(c)
	if err != nil {
		return nil, err
	}
	return e, deploy.Deployed(e)
}

// completeEnvironments completes flags, and the names of environments.
func (a *app) completeEnvironments(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	root, err := a.root(c)
	if err != nil || c.NArg() > 0 {
		return
	}
	for _, name := range environment.List(root) {
		fmt.Fprintln(a.streams.Out, name)
	}
}

func (a *app) options(c *cli.Context) deploy.Options {
	return deploy.Options{Runner: a.loggedRunner(c), Streams: a.streams, Quiet: c.Bool("quiet"), Debug: c.Bool("debug"), Now: a.now}
}
