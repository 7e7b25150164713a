package devhost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/execx"
	"devhost/internal/names"
	"devhost/internal/registry"
)

// publishedContainer is what everybody may know of a container.
type publishedContainer struct {
	Name    string   `json:"name"`
	Owner   string   `json:"owner"`
	IPv4    string   `json:"ipv4"`
	Aliases []string `json:"aliases"`
}

// publishedContainers are those of a state folder, by name. It needs no root.
func publishedContainers(layout registry.Layout) ([]publishedContainer, error) {
	entries, err := os.ReadDir(layout.Published())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []publishedContainer
	for _, entry := range entries {
		name, isJSON := strings.CutSuffix(entry.Name(), ".json")
		if !isJSON || names.Container(name) != nil {
			continue
		}
		one := publishedContainer{Name: name}
		// What cannot be read has a name all the same.
		if data, err := os.ReadFile(filepath.Join(layout.Published(), entry.Name())); err == nil {
			_ = json.Unmarshal(data, &one)
			one.Name = name
		}
		found = append(found, one)
	}
	return found, nil
}

// realVariable keeps two devhosts, one of them behind a wrapper, from calling
// each other.
const realVariable = "DEVHOST_NIXOS_CONTAINER"

// realNixosContainer is the program of NixOS, "" if there is none.
func realNixosContainer() string {
	if os.Getenv(realVariable) != "" {
		return ""
	}
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return ""
	}
	for _, folder := range append(filepath.SplitList(os.Getenv("PATH")), "/run/current-system/sw/bin") {
		path := filepath.Join(folder, nixosDialect)
		info, err := os.Stat(path)
		if err == nil && filepath.IsAbs(folder) && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !os.SameFile(info, own) {
			return path
		}
	}
	return ""
}

// nixosContainer is nixos-container: our containers by us, all else by the real
// one.
func (a *app) nixosContainer(ctx context.Context, args []string) int {
	a.program = nixosDialect
	real := realNixosContainer()
	command := a.nixosCommands(real)
	action, name := "", ""
	if len(args) > 1 {
		action = args[1]
	}
	if len(args) > 2 {
		name = args[2]
	}
	if real != "" && action != "list" && (command.Command(action) == nil || !a.isOurs(name)) {
		return a.report(ctx, a.runReal(ctx, real, args[1:]))
	}
	return a.report(ctx, command.RunContext(ctx, args))
}

// isOurs tells whether a container of that name is known here.
func (a *app) isOurs(name string) bool {
	if names.Container(name) != nil {
		return false
	}
	layout, err := registry.NewLayout(stateFolder())
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(layout.Published(), name+".json"))
	return err == nil
}

func stateFolder() string {
	if folder := os.Getenv("DEVHOST_STATE_DIR"); folder != "" {
		return folder
	}
	return registry.DefaultStateDir
}

// runReal continues as the real program.
func (a *app) runReal(ctx context.Context, real string, args []string) error {
	if err := a.admitElsewhere(real); err != nil {
		return err
	}
	err := execx.New().Run(ctx, execx.Command{
		Name: real, Args: args, Env: append(os.Environ(), realVariable+"=1"), Passthrough: true,
		Stdin: a.streams.In, Stdout: a.streams.Out, Stderr: a.streams.Err,
	})
	var failed *execx.Error
	if errors.As(err, &failed) && failed.ExitCode > 0 {
		return &cliargs.StatusError{Status: failed.ExitCode}
	}
	return err
}

func (a *app) nixosCommands(real string) *cli.App {
	app := a.dialectApp(nixosDialect, "containers of devhost, and those of NixOS where there are any", `list shows all; status, start, stop, run and destroy work on devhost's. Everything
else is handed to NixOS' own nixos-container, if this host has one.`,
		&cli.Command{
			Name: "list", Usage: "list the containers, one name a line",
			Action: func(c *cli.Context) error { return a.nixosList(c, real) },
		},
		&cli.Command{
			Name: "status", Usage: "say whether a container is up or down", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				manager, record, err := a.registered(c)
				if err != nil {
					return err
				}
				state, err := manager.Engine.State(record.Name)
				if err != nil {
					return err
				}
				up := map[bool]string{true: "up", false: "down"}
				fmt.Fprintln(a.streams.Out, up[state.Status == engine.Running || state.Status == engine.Starting])
				return nil
			},
		},
		&cli.Command{
			Name: "start", Usage: "start a container and wait until its sshd answers", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				manager, record, err := a.registered(c)
				if err != nil {
					return err
				}
				_, err = manager.Start(c.Context, record.Name, dialectTimeout)
				return err
			},
		},
		&cli.Command{
			Name: "stop", Usage: "power a container off", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				manager, record, err := a.registered(c)
				if err != nil {
					return err
				}
				_, err = manager.Stop(c.Context, record.Name, dialectStopTimeout)
				return err
			},
		},
		&cli.Command{
			Name: "run", Usage: "run a command in a container, as root", ArgsUsage: "NAME -- COMMAND [ARGUMENT...]",
			Action: func(c *cli.Context) error {
				name, command, err := nameAndRest(c)
				if err != nil {
					return err
				}
				if len(command) == 0 {
					return &cliargs.UsageError{Command: "run", Err: errors.New("no command given")}
				}
				return a.enter(c, name, enter.Options{Argv: command, User: "root", TTY: isTerminal(a.streams.In) && isTerminal(a.streams.Out)})
			},
		},
		&cli.Command{
			Name: "destroy", Usage: "remove a container with all its files", ArgsUsage: "NAME",
			Action: func(c *cli.Context) error {
				name, err := oneName(c)
				if err != nil {
					return err
				}
				manager, err := a.managerFor(c, name)
				if err != nil {
					return err
				}
				return manager.Destroy(c.Context, name)
			},
		},
	)
	if real == "" {
		unknown := app.Action
		app.Action = func(c *cli.Context) error {
			err := unknown(c)
			if c.Args().Present() {
				err = &cliargs.UsageError{Err: fmt.Errorf("%w; this host has no nixos-container of NixOS for anything else", err)}
			}
			return err
		}
	}
	return app
}

// dialectStopTimeout is how long a guest may take to power off.
const dialectStopTimeout = 30 * 1e9

// nixosList needs no root, and what the real program has to say never fails it:
// batou takes a failure for that of its deployment.
func (a *app) nixosList(c *cli.Context, real string) error {
	layout, err := registry.NewLayout(c.String("state-dir"))
	if err != nil {
		return err
	}
	ours, err := publishedContainers(layout)
	if err != nil {
		return err
	}
	all := map[string]bool{}
	for _, one := range ours {
		all[one.Name] = true
	}
	if real != "" {
		output, err := execx.New().Output(c.Context, execx.Command{Name: real, Args: []string{"list"}, Env: append(os.Environ(), realVariable+"=1")})
		if err != nil {
			fmt.Fprintf(a.streams.Err, "nixos-container: warning: those of NixOS are not listed: %v\n", err)
		}
		for _, name := range strings.Fields(string(output)) {
			all[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintln(a.streams.Out, name)
	}
	return nil
}
