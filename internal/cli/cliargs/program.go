package cliargs

import (
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// The exit codes of our programs. What they mean with each is in its help text.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitDegraded    = 3
	ExitMissing     = 4
	ExitBusy        = 5
	ExitHost        = 6
	ExitNotAllowed  = 7
	ExitInterrupted = 130
	// ExitNoReader is that of a program which SIGPIPE ends.
	ExitNoReader = 141
)

// EndSignals are those that end a command in an orderly way. A closed terminal
// does, unless nohup(1) or the like says that it shall not.
func EndSignals() []os.Signal {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	return ends
}

// NewApp is the command line of a program with what all of ours have in common.
// Flags and commands are added to it; SetUp is called at last.
func NewApp(name, version string, out, errors io.Writer) *cli.App {
	return &cli.App{
		Name:                 name,
		Version:              version,
		EnableBashCompletion: true,
		Suggest:              true,
		Writer:               out,
		ErrWriter:            errors,
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         OnUsageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return UnknownCommand(c, c.App.VisibleCommands(), "")
			}
			return cli.ShowAppHelp(c)
		},
	}
}

// SetUp gives all commands of a program, those of groups too, what they have in
// common. Those whose first argument is the one given, such as NAME, complete it,
// unless they have a completion of their own.
func SetUp(app *cli.App, argument string, complete cli.BashCompleteFunc) {
	commands := slices.Clone(app.Commands)
	for _, sub := range app.Commands {
		commands = append(commands, sub.Subcommands...)
	}
	for _, sub := range commands {
		sub.OnUsageError = OnUsageError
		// Else "devhost ensure help" would not be about a container named help.
		sub.HideHelpCommand = true
		if sub.BashComplete == nil && strings.HasPrefix(sub.ArgsUsage, argument) {
			sub.BashComplete = complete
		}
	}
}

// OrDash is a text for a table's cell: a dash where there is none.
func OrDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
