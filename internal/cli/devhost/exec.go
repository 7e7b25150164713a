package devhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"devhost/internal/cli/cliargs"
	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/execx"
)

// enterable is an engine whose containers can be entered.
type enterable interface {
	Guest(name string) (enter.Guest, error)
}

// guests implements container.Guest over an engine.
type guests struct{ engine enterable }

func (g guests) Run(ctx context.Context, name string, stdout, stderr io.Writer, argv ...string) (int, error) {
	guest, err := g.engine.Guest(name)
	if err != nil {
		return 0, err
	}
	return enter.Exec(ctx, guest, enter.Options{Runner: execx.New(), Argv: argv, Dir: "/", Stdout: stdout, Stderr: stderr})
}

// statusCannotEnter is the exit status of exec and shell when the command was
// not even looked for, as with chroot(1) and others.
const statusCannotEnter = 125

func userFlag(value string) cli.Flag {
	return &cli.StringFlag{Name: "user", Aliases: []string{"u"}, Value: value, Usage: "run as `USER` of the container"}
}

func (a *app) execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", Usage: "run a command in a container", ArgsUsage: "NAME [--] COMMAND [ARGUMENTS...]",
		Description: `Runs a command in the cgroup and all namespaces of a running container, as root
unless --user says otherwise, with nothing of the host's environment. Signals
and the exit status are passed on. Options go before NAME.`,
		Flags: []cli.Flag{
			userFlag("root"),
			&cli.StringFlag{Name: "chdir", Aliases: []string{"C"}, Usage: "run in `FOLDER` of the container"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `KEY=VALUE`; can be repeated"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal (also when standard input is none)"},
			&cli.BoolFlag{Name: "no-tty", Aliases: []string{"T"}, Usage: "give it no terminal"},
		},
		Action: func(c *cli.Context) error {
			name, command, err := nameAndRest(c)
			if err != nil {
				return err
			}
			if len(command) == 0 {
				return &cliargs.UsageError{Command: "exec", Err: errors.New("give a command: devhost exec NAME -- COMMAND; for a shell: devhost shell NAME")}
			}
			if strings.HasPrefix(command[0], "-") {
				return &cliargs.UsageError{Command: "exec", Err: fmt.Errorf("%s stands behind the container's name, where the command begins; options go before it: devhost exec %s %s COMMAND", command[0], command[0], name)}
			}
			for _, variable := range c.StringSlice("env") {
				if key, _, ok := strings.Cut(variable, "="); !ok || key == "" {
					return &cliargs.UsageError{Command: "exec", Err: fmt.Errorf("--env %q: give KEY=VALUE", variable)}
				}
			}
			tty := (isTerminal(a.streams.In) && isTerminal(a.streams.Out) || c.Bool("tty")) && !c.Bool("no-tty")
			return a.enter(c, name, enter.Options{Argv: command, User: c.String("user"), Dir: c.String("chdir"), Env: c.StringSlice("env"), TTY: tty})
		},
	}
}

func (a *app) shellCommand() *cli.Command {
	return &cli.Command{
		Name: "shell", Usage: "open a login shell in a container, as root", ArgsUsage: "NAME",
		Flags: []cli.Flag{userFlag("root")},
		Action: func(c *cli.Context) error {
			name, err := oneName(c)
			if err != nil {
				return err
			}
			return a.enter(c, name, enter.Options{User: c.String("user"), TTY: isTerminal(a.streams.In)})
		},
	}
}

func isTerminal(file *os.File) bool { return file != nil && term.IsTerminal(int(file.Fd())) }

func (a *app) enter(c *cli.Context, name string, options enter.Options) error {
	manager, err := a.managerFor(c, name)
	if err != nil {
		return err
	}
	if _, err := manager.Registry.Load(name); err != nil {
		return err
	}
	guest, err := a.entrance(manager.Engine).Guest(name)
	if err != nil {
		fmt.Fprintf(a.streams.Err, "devhost: %v\n", err)
		return &cliargs.StatusError{Status: statusCannotEnter}
	}
	options.Runner = execx.New()
	options.Stdin, options.Stdout, options.Stderr = a.streams.In, a.streams.Out, a.streams.Err
	if options.TTY {
		options.Term = os.Getenv("TERM")
		if isTerminal(a.streams.In) {
			options.Terminal = a.streams.In
		}
	}
	// Signals go to the command, which decides; devhost ends with it.
	status, err := enter.Exec(context.WithoutCancel(c.Context), guest, options)
	var failed *enter.Error
	if errors.As(err, &failed) {
		fmt.Fprintf(a.streams.Err, "devhost: %v\n", err)
		return &cliargs.StatusError{Status: failed.Status}
	}
	if err != nil || status == 0 {
		return err
	}
	return &cliargs.StatusError{Status: status}
}

func (a *app) entrance(engine engine.Engine) enterable {
	// Every engine of devhost can be entered.
	return engine.(enterable)
}

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "show a container's journal, or its console", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is written from now on"},
			&cli.StringFlag{Name: "unit", Aliases: []string{"u"}, Usage: "only of `UNIT`"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 200, Usage: "show the last `NUMBER` lines; 0 for all"},
			&cli.BoolFlag{Name: "console", Usage: "show the console, which is also there when the container is stopped"},
		},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			if c.Int("lines") < 0 {
				return &cliargs.UsageError{Command: "logs", Err: fmt.Errorf("--lines %d: give a number of lines, or 0 for all", c.Int("lines"))}
			}
			state, err := manager.Engine.State(record.Name)
			if err != nil {
				return err
			}
			if c.Bool("console") || state.Status != engine.Running {
				if c.String("unit") != "" {
					return fmt.Errorf("container %s is %s, and a unit's log is in its journal; start it: devhost start %s", record.Name, state.Status, record.Name)
				}
				if !c.Bool("console") {
					fmt.Fprintf(a.streams.Err, "container %s is %s: this is its console log\n", record.Name, state.Status)
				}
				if manager.Engine.Features().Journal {
					return a.consoleJournal(c, manager.Engine.(engine.Journal), record.Name)
				}
				return a.console(c, manager.Registry.Log(record.Name))
			}
			command := []string{"/run/current-system/sw/bin/journalctl", "--no-pager"}
			if lines := c.Int("lines"); lines > 0 {
				command = append(command, "--lines="+strconv.Itoa(lines))
			}
			if c.Bool("follow") {
				command = append(command, "--follow")
			}
			if unit := c.String("unit"); unit != "" {
				command = append(command, "--unit="+unit)
			}
			return a.enter(c, record.Name, enter.Options{Argv: command, User: "root", Dir: "/"})
		},
	}
}
