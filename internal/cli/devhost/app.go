// Package devhost is the command line of devhost: flags, output and exit
// codes. What the commands do is in internal/container.
package devhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/container"
	"devhost/internal/names"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Version is set at link time.
var Version = "0.1.0-dev"

// Streams are the process' standard streams. In and Out are files where a
// command hands them to a child.
type Streams struct{ In, Out, Err *os.File }

// app is one run of the program.
type app struct {
	streams Streams
	// program is the name that it answers to, "" for its own.
	program string
	// onStep is container.Manager.OnStep, for tests that kill a command at a
	// step.
	onStep func(step string)
	// now is the clock by which containers expire.
	now func() time.Time
	// settings are those of the host, once they were read; settingsErr says
	// what is wrong with them.
	settings    *settings.Settings
	settingsErr error
	// auditPath is the audit log of the state folder that stateMarker marks; ""
	// where that cannot be used.
	auditPath, stateMarker string
}

// Option changes a run of the program.
type Option func(*app)

// OnStep has a function called at every journalled step of a change.
func OnStep(hook func(step string)) Option { return func(a *app) { a.onStep = hook } }

// EndSignals are those that end a command in an orderly way. A closed terminal
// does, unless nohup(1) or the like says that it shall not.
func EndSignals() []os.Signal {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		ends = append(ends, syscall.SIGHUP)
	}
	return ends
}

// Main runs the program and returns its exit status.
func Main(ctx context.Context, args []string, streams Streams, options ...Option) int {
	cleanEnvironment()
	// A closed pipe makes a write fail, and does not end the program: what was
	// changed is still to be written down.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	a := &app{streams: streams, now: time.Now}
	for _, option := range options {
		option(a)
	}
	if dialect := a.dialect(args); dialect != nil {
		return dialect(ctx, args)
	}
	command := a.command()
	err := command.RunContext(ctx, a.reorder(command, args))
	return a.report(ctx, err)
}

func (a *app) command() *cli.App {
	command := &cli.App{
		Name:  "devhost",
		Usage: "development containers with NixOS on a shared Linux host",
		Description: `devhost makes, runs and removes development containers (systemd-nspawn).
Each is built from a channel and a provision.nix, and is reachable by ssh and
at https://ALIAS.CONTAINER.DOMAIN.

First steps:
  devhost doctor                                       is this host ready?
  devhost ensure demo --channel ./channels/offline     make a container
  devhost ssh demo                                     log in
  devhost destroy demo                                 remove it

Exit codes: 0 done; 1 failed, and the message says what holds now; 2 wrong
input; 3 the container is up, but units failed or still start; 4 no such
container; 5 in use by another command; 6 the host lacks something (no root, no
build users, a port taken); 7 you may not do this; 130 interrupted; 141 nobody
reads the output. exec, shell and ssh return the command's own; exec and shell
125 where the container cannot be entered, 126 and 127 where the command cannot
be run or found.`,
		Version:                Version,
		EnableBashCompletion:   true,
		UseShortOptionHandling: false,
		Suggest:                true,
		Writer:                 a.streams.Out,
		ErrWriter:              a.streams.Err,
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           explainFlag,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return unknownCommand(c)
			}
			return cli.ShowAppHelp(c)
		},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Value: registry.DefaultStateDir, EnvVars: []string{"DEVHOST_STATE_DIR"}, Usage: "`FOLDER` that holds all state"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
			&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEVHOST_DEBUG"}, Usage: "log what is done, on standard error"},
		},
		Commands: []*cli.Command{
			a.ensureCommand(),
			a.listCommand(), a.statusCommand(), a.ipCommand(),
			a.startCommand(), a.stopCommand(), a.restartCommand(), a.destroyCommand(),
			a.execCommand(), a.shellCommand(), a.sshCommand(), a.sshConfigCommand(), a.logsCommand(),
			a.keepCommand(), a.unkeepCommand(), a.undeleteCommand(), a.expireCommand(), a.pruneCommand(),
			a.cloneCommand(), a.renameCommand(), a.snapshotCommand(),
			a.generationsCommand(), a.rollbackCommand(), a.diffCommand(),
			a.ingressCommand(), a.doctorCommand(), a.hostCommand(),
			a.completionCommand(), a.manCommand(), a.superviseCommand(), a.repairCommand(), a.refreshCommand(), a.bootCommand(),
		},
	}
	a.guard(command.Commands, "")
	commands := slices.Clone(command.Commands)
	for _, sub := range command.Commands {
		commands = append(commands, sub.Subcommands...)
	}
	for _, sub := range commands {
		sub.OnUsageError = explainFlag
		// Else "devhost ensure help" would not be about a container named help.
		sub.HideHelpCommand = true
		if sub.BashComplete == nil && strings.HasPrefix(sub.ArgsUsage, "NAME") {
			sub.BashComplete = a.completeNames
		}
	}
	return command
}

func unknownCommand(c *cli.Context) error {
	name := c.Args().First()
	var known []string
	for _, command := range c.App.VisibleCommands() {
		known = append(known, command.Names()...)
	}
	text := fmt.Sprintf("there is no command %q", name)
	if meant := names.Closest(name, known); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", meant)
	}
	return &usageError{err: errors.New(text + " See: devhost --help")}
}

// explainFlag says what is wrong with a flag, as people write flags.
func explainFlag(c *cli.Context, err error, isSubcommand bool) error {
	var command string
	known, unknown := c.App.VisibleFlags(), "there is no option "
	if isSubcommand {
		command, known = commandName(c), c.Command.VisibleFlags()
		unknown = command + " has no option "
	}
	text := err.Error()
	if flag, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		var spelled []string
		for _, flag := range known {
			spelled = append(spelled, flag.Names()...)
		}
		text = unknown + withDashes(flag)
		if meant := names.Closest(flag, spelled); meant != "" {
			text += fmt.Sprintf("; did you mean %s?", withDashes(meant))
		}
	} else if flag, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		text = fmt.Sprintf("the option %s needs a value", withDashes(flag))
	} else if start, rest, ok := strings.Cut(text, " for flag -"); ok {
		flag, reason, _ := strings.Cut(rest, ": ")
		text = fmt.Sprintf("%s for %s: %s", start, withDashes(flag), reason)
	}
	return &usageError{command: command, help: command == "", err: errors.New(text)}
}

func withDashes(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

// reorder puts the flags of a command before its arguments, so that
// "devhost ensure demo --channel X" works as people type it, and global flags
// before the command. exec, ssh and
// supervise end their flags at the first argument.
func (a *app) reorder(command *cli.App, args []string) []string {
	global := takesValue(command.Flags)
	position := 1
	for position < len(args) && strings.HasPrefix(args[position], "-") && args[position] != "--" {
		name, hasValue := flagName(args[position])
		position++
		if global[name] && !hasValue {
			position++
		}
	}
	if position >= len(args) {
		return args
	}
	sub, words := command.Command(args[position]), 1
	if sub != nil && len(sub.Subcommands) > 0 && position+1 < len(args) {
		// A group: its commands are two words long.
		name := args[position+1]
		words = 2
		if i := slices.IndexFunc(sub.Subcommands, func(one *cli.Command) bool { return one.HasName(name) }); i >= 0 {
			sub = sub.Subcommands[i]
		}
	}
	if sub == nil || sub.SkipFlagParsing || sub.Name == "exec" || sub.Name == "ssh" || len(sub.Subcommands) > 0 {
		return args
	}
	own := takesValue(sub.Flags)
	var globals, flags, arguments []string
	rest := args[position+words:]
	for i := 0; i < len(rest); i++ {
		argument := rest[i]
		if argument == "--" {
			arguments = append(arguments, rest[i:]...)
			break
		}
		if !strings.HasPrefix(argument, "-") || argument == "-" {
			arguments = append(arguments, argument)
			continue
		}
		name, hasValue := flagName(argument)
		place, valued := &flags, own[name]
		if _, isOwn := own[name]; !isOwn {
			if _, isGlobal := global[name]; isGlobal {
				place, valued = &globals, global[name]
			}
		}
		*place = append(*place, argument)
		if valued && !hasValue {
			if i++; i == len(rest) {
				// Its value is missing: an argument put behind it would become it.
				arguments = nil
				break
			}
			*place = append(*place, rest[i])
		}
	}
	reordered := append(append([]string{}, args[:position]...), globals...)
	reordered = append(append(reordered, args[position:position+words]...), flags...)
	return append(reordered, arguments...)
}

// flagName is the name of a flag as it was typed.
func flagName(argument string) (name string, hasValue bool) {
	name, _, hasValue = strings.Cut(strings.TrimLeft(argument, "-"), "=")
	return name, hasValue
}

// takesValue tells for each name of the flags whether a value follows.
func takesValue(flags []cli.Flag) map[string]bool {
	valued := map[string]bool{}
	for _, flag := range flags {
		_, isBool := flag.(*cli.BoolFlag)
		for _, name := range flag.Names() {
			valued[name] = !isBool
		}
	}
	return valued
}

// layout is the state folder's layout. As root it must be root's alone.
func (a *app) layout(c *cli.Context) (registry.Layout, error) {
	layout, err := registry.NewLayout(c.String("state-dir"))
	if err != nil || os.Geteuid() != 0 {
		return layout, err
	}
	if err := layout.CheckTrusted(); err != nil {
		return layout, &usageError{err: err}
	}
	speaker, _, err := caller()
	if err != nil {
		return layout, err
	}
	if speaker.UID != 0 {
		if err := layout.CheckKnown(); err != nil {
			return layout, &usageError{err: err}
		}
	}
	return layout, nil
}

func (a *app) logger(c *cli.Context) hclog.Logger {
	level := hclog.Off
	if c.Bool("debug") {
		level = hclog.Debug
	}
	return hclog.New(&hclog.LoggerOptions{Name: "devhost", Level: level, Output: a.streams.Err})
}

// completeNames completes flags, and the names of containers where they can
// be read.
func (a *app) completeNames(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	layout, err := a.layout(c)
	if err != nil {
		return
	}
	entries, err := registry.New(layout).List()
	if err != nil {
		return
	}
	for _, entry := range entries {
		fmt.Fprintln(a.streams.Out, entry.Name)
	}
}

// commandName is the command as people type it behind the program's name, such
// as "snapshot list".
func commandName(c *cli.Context) string {
	_, name, _ := strings.Cut(c.Command.HelpName, " ")
	return name
}

// oneName is the only argument of most commands.
func oneName(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 {
		return "", &usageError{command: commandName(c), err: fmt.Errorf("give the name of one container: %s %s", c.Command.HelpName, c.Command.ArgsUsage)}
	}
	return c.Args().First(), nil
}

func noArguments(c *cli.Context) error {
	if c.Args().Present() {
		return &usageError{command: commandName(c), err: fmt.Errorf("%s takes no arguments, but was given %q", commandName(c), c.Args().First())}
	}
	return nil
}

// printUnits tells a person which units are not as they should be.
func printUnits(w io.Writer, name string, units []container.Unit) {
	sort.Slice(units, func(i, j int) bool { return units[i].Name < units[j].Name })
	for _, unit := range units {
		if unit.State == "failed" {
			fmt.Fprintf(w, "unit %s failed (%s); its last log lines:\n", unit.Name, unit.Description)
			for _, line := range unit.Log {
				fmt.Fprintf(w, "  %s\n", line)
			}
			fmt.Fprintf(w, "  more: devhost logs %s --unit %s\n", name, unit.Name)
		} else {
			fmt.Fprintf(w, "unit %s still starts (%s)\n", unit.Name, unit.Description)
		}
	}
}
