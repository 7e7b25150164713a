package devhost

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

// Names by which existing batou projects call devhost.
const (
	buildDialect  = "fc-build-dev-container"
	vmDialect     = "fc-devhost"
	nixosDialect  = "nixos-container"
	manageDialect = "fc-manage"
)

// HostDialects are the names by which devhost answers on a host: links to it on
// PATH.
func HostDialects() []string { return []string{buildDialect, vmDialect, nixosDialect} }

// dialect is the program's other command line, if args ask for one.
func (a *app) dialect(args []string) func(ctx context.Context, args []string) int {
	if len(args) == 0 {
		return nil
	}
	switch filepath.Base(args[0]) {
	case buildDialect:
		return func(ctx context.Context, args []string) int { return a.runDialect(ctx, a.buildCommands(), args, true) }
	case vmDialect:
		return func(ctx context.Context, args []string) int { return a.runDialect(ctx, a.vmCommands(), args, true) }
	case nixosDialect:
		return a.nixosContainer
	case manageDialect:
		return func(ctx context.Context, args []string) int {
			return a.runDialect(ctx, a.manageCommands(), args, false)
		}
	}
	return nil
}

// runDialect runs one of them. guarded keeps batou's sign for a failed
// fc-manage out of the output.
func (a *app) runDialect(ctx context.Context, command *cli.App, args []string, guarded bool) int {
	a.program = command.Name
	run := func() int { return a.report(ctx, command.RunContext(ctx, a.reorder(command, args))) }
	if guarded {
		return a.withoutDefects(run)
	}
	return run()
}

// dialectApp is the frame of a dialect's command line.
func (a *app) dialectApp(name, usage, description string, commands ...*cli.Command) *cli.App {
	command := &cli.App{
		Name: name, HelpName: name, Usage: usage, Description: description,
		Version: Version, HideVersion: true, HideHelpCommand: true,
		Writer: a.streams.Out, ErrWriter: a.streams.Err,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   cliargs.OnUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Value: registry.DefaultStateDir, EnvVars: []string{"DEVHOST_STATE_DIR"}, Hidden: true},
			&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEVHOST_DEBUG"}, Hidden: true},
		},
		Commands: commands,
	}
	if len(commands) > 0 {
		command.Action = func(c *cli.Context) error {
			if !c.Args().Present() {
				return &cliargs.UsageError{Err: fmt.Errorf("need to specify an action: %s", strings.Join(actionsOf(c.App), ", "))}
			}
			return &cliargs.UsageError{Err: fmt.Errorf("there is no action %q; there are: %s", c.Args().First(), strings.Join(actionsOf(c.App), ", "))}
		}
		a.guard(command.Commands, name+" ")
	}
	for _, sub := range command.Commands {
		sub.OnUsageError = cliargs.OnUsageError
		sub.HideHelpCommand = true
		sub.CustomHelpTemplate = dialectHelp(name)
	}
	return command
}

func actionsOf(command *cli.App) []string {
	var actions []string
	for _, sub := range command.VisibleCommands() {
		actions = append(actions, sub.Name)
	}
	return actions
}

// dialectHelp is the help of one action.
func dialectHelp(name string) string {
	return name + ` {{.Name}} - {{.Usage}}

USAGE: ` + name + ` {{.Name}}{{if .VisibleFlags}} [options]{{end}} {{.ArgsUsage}}
{{if .VisibleFlags}}
OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}
{{end}}`
}

// checkDialects refuses where the host's settings turn the dialects off.
func (a *app) checkDialects(c *cli.Context) error {
	layout, err := a.layout(c)
	if err != nil {
		return err
	}
	if host, _ := a.hostSettings(layout); !host.Batou.Enable {
		return &cliargs.HostError{Err: fmt.Errorf("%s is turned off on this host (batou.enable is false in %s); an admin of this host can turn it on, or use: devhost ensure", a.programName(), layout.Settings())}
	}
	return nil
}

// dialectRequest is what ensure of both dialects asks for.
type dialectRequest struct {
	name, channel string
	aliases       []string
	more          func(*container.EnsureRequest)
}

// dialectEnsure makes or updates a container in the way of a dialect: what is
// there is never switched, and what only fc-manage can mend is no failure.
func (a *app) dialectEnsure(c *cli.Context, wanted dialectRequest) error {
	if err := a.checkDialects(c); err != nil {
		return err
	}
	request := container.EnsureRequest{
		Name: wanted.name, Channel: &wanted.channel, Aliases: &wanted.aliases, Dialect: a.program,
		Timeout: dialectTimeout, LockTimeout: dialectTimeout,
	}
	if wanted.more != nil {
		wanted.more(&request)
	}
	if err := request.Validate(); err != nil {
		return &cliargs.UsageError{Err: err}
	}
	manager, err := a.manager(c)
	if err != nil {
		return err
	}
	if request.Caller, request.Owner, err = caller(); err != nil {
		return err
	}
	if _, request.AccountKeys, err = a.memberKeys(c, request); err != nil {
		return err
	}
	began := time.Now()
	result, err := manager.Ensure(c.Context, request)
	if err != nil {
		return err
	}
	var degraded degradedError
	if err := a.printEnsured(c, manager, result, time.Since(began)); err != nil && !errors.As(err, &degraded) {
		return err
	}
	// The next command of batou's logs in by the name, and tries once.
	if err := manager.WaitForLogin(c.Context, result.Container, dialectTimeout); err != nil {
		return err
	}
	return a.checkResolves(c.Context, result.Container)
}

// dialectTimeout is how long each step may take: batou itself has no time-out.
const dialectTimeout = 5 * time.Minute

// checkResolves asks the host, as ssh will, for the container's name.
func (a *app) checkResolves(ctx context.Context, record *registry.Container) error {
	output, err := execx.New().Output(ctx, execx.Command{Name: "getent", Args: []string{"ahostsv4", record.Name}, Timeout: 30 * time.Second})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	address, _, _ := strings.Cut(strings.TrimSpace(string(output)), " ")
	var failed *execx.Error
	switch {
	case err != nil && errors.As(err, &failed) && !failed.NotFound, err == nil && address != record.Address.IPv4:
		found := "nothing"
		if address != "" {
			found = address
		}
		return &cliargs.HostError{Err: fmt.Errorf("container %s is up, but on this host its name leads to %s and not to %s; see that the line \"hosts:\" of /etc/nsswitch.conf begins with \"files\"", record.Name, found, record.Address.IPv4)}
	}
	return err
}

// destroyQuietly removes a container; that there is none is as good.
func (a *app) destroyQuietly(c *cli.Context, name string) error {
	manager, err := a.managerFor(c, name)
	if err != nil {
		return err
	}
	err = manager.Destroy(c.Context, name)
	var missing *registry.NotRegistered
	var owner *container.NotOwner
	switch {
	case errors.As(err, &missing):
		fmt.Fprintf(a.streams.Out, "%s: does not exist\n", name)
		return nil
	case errors.As(err, &owner) && madeByDialect(manager, name):
		return a.destroyColleagues(c, manager, name, owner.Owner)
	case errors.As(err, &owner):
		return fmt.Errorf("%w: sudo devhost destroy --force %s", err, name)
	case err != nil:
		return err
	}
	fmt.Fprintf(a.streams.Out, "%s: destroyed\n", name)
	return nil
}

func madeByDialect(manager *container.Manager, name string) bool {
	record, err := manager.Registry.Load(name)
	return err == nil && record.Dialect != ""
}

// destroyColleagues removes a batou project's container that somebody else has
// made. batou knows no --force: --provision-rebuild is what its users say, and a
// project's developers share its containers. So that nothing is lost, the
// container is archived first.
func (a *app) destroyColleagues(c *cli.Context, manager *container.Manager, name, owner string) error {
	manager.Force = true
	if err := a.destroyArchived(c, manager, name); err != nil {
		return err
	}
	fmt.Fprintf(a.streams.Out, "%s: destroyed; it was made by %s and is archived, see: devhost undelete --list\n", name, owner)
	return nil
}

// splitAliases understands aliases in one argument. Some releases of batou quote
// it once too often.
func splitAliases(text string) []string {
	for _, quote := range []string{`"`, "'"} {
		if len(text) > 1 && strings.HasPrefix(text, quote) && strings.HasSuffix(text, quote) {
			text = text[1 : len(text)-1]
		}
	}
	aliases := []string{}
	for _, alias := range strings.Fields(text) {
		if !slices.Contains(aliases, alias) {
			aliases = append(aliases, alias)
		}
	}
	return aliases
}

func (a *app) programName() string {
	if a.program == "" {
		return "devhost"
	}
	return a.program
}

// buildCommands is fc-build-dev-container, which batou up to 2.5 calls.
func (a *app) buildCommands() *cli.App {
	return a.dialectApp(buildDialect, "development containers for batou", `Makes containers for batou's provisioner "fc-nixos-dev-container". URL is a
channel: the URL of a nixexprs.tar.xz, or whatever devhost ensure --channel takes.
ALIASES are one argument, separated by spaces.`,
		&cli.Command{
			Name: "ensure", Usage: "make a container, or start it and bring aliases and channel up to date", ArgsUsage: "NAME URL 'ALIASES'",
			Action: func(c *cli.Context) error {
				arguments := c.Args().Slice()
				switch {
				case len(arguments) == 0:
					return &cliargs.UsageError{Command: "ensure", Err: errors.New("need to specify container name")}
				case len(arguments) == 1:
					return &cliargs.UsageError{Command: "ensure", Err: errors.New("need to specify channel url")}
				case len(arguments) > 3:
					return &cliargs.UsageError{Command: "ensure", Err: fmt.Errorf("the aliases are one argument, as 'app api'; found %d arguments after the channel url", len(arguments)-2)}
				}
				return a.dialectEnsure(c, dialectRequest{name: arguments[0], channel: arguments[1], aliases: splitAliases(strings.Join(arguments[2:], " "))})
			},
		},
		&cli.Command{
			Name: "destroy", Usage: "remove a container; it need not exist", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				if c.Args().Len() != 1 {
					return &cliargs.UsageError{Command: "destroy", Err: errors.New("need to specify container name")}
				}
				return a.destroyQuietly(c, c.Args().First())
			},
		},
	)
}
