package deploy

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/execx"
)

// loggedRunner logs what it runs and how long that took, with --debug. No
// argument vector holds a secret: those travel by standard input.
func (a *app) loggedRunner(c *cli.Context) execx.Runner {
	if !c.Bool("debug") {
		return a.runner
	}
	return &logged{Runner: a.runner, logger: a.logger(c)}
}

type logged struct {
	execx.Runner
	logger hclog.Logger
}

func (l *logged) Run(ctx context.Context, command execx.Command) error {
	began := time.Now()
	err := l.Runner.Run(ctx, command)
	l.done(command, began, err)
	return err
}

func (l *logged) Output(ctx context.Context, command execx.Command) ([]byte, error) {
	began := time.Now()
	output, err := l.Runner.Output(ctx, command)
	l.done(command, began, err)
	return output, err
}

func (l *logged) Start(command execx.Command) (execx.Process, error) {
	l.logger.Debug("start", "argv", shortened(command))
	return l.Runner.Start(command)
}

func (l *logged) done(command execx.Command, began time.Time, err error) {
	l.logger.Debug("ran", "argv", shortened(command), "took", time.Since(began).Round(time.Millisecond), "good", err == nil)
}

// shortened leaves out scripts that never change.
func shortened(command execx.Command) string {
	argv := command.Argv()
	for i, argument := range argv {
		const longest = 300
		if len(argument) > longest {
			argv[i] = argument[:longest] + "..."
		}
	}
	return execx.Quote(argv)
}
