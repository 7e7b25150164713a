package devbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"devhost/internal/cli/cliargs"
	"devhost/internal/devbox"
	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/progress"
	"devhost/internal/terminal"
)

// onHost is the action of a command whose only argument is a host of a flake,
// and which has a --timeout.
func (a *app) onHost(do func(c *cli.Context, manager *devbox.Manager, host devbox.Reference, limit time.Duration) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Len() != 1 {
			return &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("give one host of a flake: %s ./my-flake#my-devbox", c.Command.HelpName)}
		}
		host, err := devbox.ParseReference(c.Args().First())
		if err != nil {
			return err
		}
		limit, err := timeout(c)
		if err != nil {
			return err
		}
		return a.with(c, func(manager *devbox.Manager) error { return do(c, manager, host, limit) })
	}
}

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "build a host of a flake, and install it in a new VM", ArgsUsage: "FLAKE#HOST",
		Description: `Builds the installer, makes the VM named HOST, installs NixOS in it, starts it
and waits until it answers. What was interrupted goes on where it stopped when
the command is given again. The keys travel on a disk of their own, which is
removed afterwards: they are never in the Nix store.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ssh-key", EnvVars: []string{"DEVBOX_SSH_KEY"}, Usage: "`PATH` of a private key for the VM's user, put into the VM"},
			&cli.StringFlag{Name: "parent-pubkey", EnvVars: []string{"DEVBOX_PARENT_PUBKEY"}, Usage: "`PATH` of a public key that may log in to the VM, besides devbox-cli's own"},
			timeoutFlag("how long the installed VM may take to answer", "10m"),
			jsonFlag(),
		},
		Action: a.onHost(func(c *cli.Context, manager *devbox.Manager, host devbox.Reference, limit time.Duration) error {
			result, err := manager.Init(c.Context, devbox.InitOptions{Reference: host, SSHKey: c.String("ssh-key"), ParentKey: c.String("parent-pubkey"), Timeout: limit})
			if err != nil {
				return err
			}
			manager.Reporter.Done("installed")
			if c.Bool("json") {
				return a.printJSON(map[string]any{"name": host.Host, "changed": true, "result": "installed", "resumed": result.Resumed, "login": result.Record.Login, "address": result.Endpoint.Address, "sshPort": result.Endpoint.Port})
			}
			fmt.Fprintf(a.streams.Out, "%s: installed\n", host.Host)
			manager.Reporter.Note("log in with: devbox-cli ssh " + host.Host)
			if result.Record.Install.Mode == "bootstrap" {
				manager.Reporter.Note("it runs a minimal system; bring it to its flake's with: devbox-cli update " + host.String())
			}
			return nil
		}),
	}
}

func (a *app) updateCommand() *cli.Command {
	return &cli.Command{
		Name: "update", Usage: "bring a running VM to what its flake says now", ArgsUsage: "FLAKE#HOST",
		Description: `Sends the flake's source to the VM (without .git and result), builds there and
switches. A VM that does not answer afterwards goes back by itself to the system
that it ran before.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "build-host", Usage: "`local` builds on this machine, and copies the result"},
			timeoutFlag("how long the VM may take to answer after the switch", "120"),
			jsonFlag(),
		},
		Action: a.onHost(func(c *cli.Context, manager *devbox.Manager, host devbox.Reference, limit time.Duration) error {
			const least = 5 * time.Second
			if limit < least {
				return &cliargs.UsageError{Command: "update", Err: fmt.Errorf("--timeout=%s: give at least %s, or the VM goes back before anybody can look", c.String("timeout"), least)}
			}
			where := c.String("build-host")
			if where != "" && where != "local" {
				return &cliargs.UsageError{Command: "update", Err: fmt.Errorf("--build-host=%s: the only other machine to build on is this one: --build-host=local", where)}
			}
			result, err := manager.Update(c.Context, devbox.UpdateOptions{Reference: host, BuildLocally: where == "local", Timeout: limit})
			if err != nil {
				return err
			}
			text := "updated"
			if !result.Changed {
				text = "unchanged"
			}
			manager.Reporter.Done(text)
			if c.Bool("json") {
				return a.printJSON(map[string]any{"name": host.Host, "changed": result.Changed, "result": text, "before": result.Before, "after": result.After})
			}
			_, err = fmt.Fprintf(a.streams.Out, "%s: %s\n", host.Host, text)
			return err
		}),
	}
}

func (a *app) upCommand() *cli.Command {
	return &cli.Command{
		Name: "up", Usage: "start a VM, and wait until it answers", ArgsUsage: "NAME",
		Flags: []cli.Flag{nestedFlag(), timeoutFlag("how long it may take to answer", "5m"), jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			limit, err := timeout(c)
			if err != nil {
				return err
			}
			record, err := manager.Load(name)
			if err == nil {
				err = record.CheckInstalled()
			}
			if err != nil {
				return err
			}
			manager.Reporter.Phase(startPhase)
			started, err := manager.Start(c.Context, name, devbox.StartOptions{Nested: c.Bool("nested")})
			// A VM of vm create has no user that is known.
			if err == nil && record.Login != "" {
				manager.Reporter.Phase(progress.Ready)
				_, err = manager.WaitSSH(c.Context, name, record.Login, limit)
			}
			if err != nil {
				return err
			}
			return a.saidStarted(c, manager, name, started)
		}),
	}
}

func (a *app) rmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "stop a VM and remove it with its disk", ArgsUsage: "NAME",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}, jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			if _, err := manager.Load(name); err != nil {
				var broken *devbox.Broken
				if !errors.As(err, &broken) {
					return err
				}
			}
			if !c.Bool("yes") {
				if err := a.confirm(c.Context, fmt.Sprintf("Remove VM %s and all that its disk holds? [y/N] ", name)); err != nil {
					return err
				}
			}
			if err := manager.Remove(c.Context, name); err != nil {
				return err
			}
			return a.said(c, name, "removed", true)
		}),
	}
}

// confirm asks a person. Where there is none, the answer is no.
func (a *app) confirm(ctx context.Context, question string) error {
	if !term.IsTerminal(int(a.streams.In.Fd())) {
		return &cliargs.UsageError{Command: "rm", Err: errors.New("there is no terminal to ask at; say that you mean it with --yes")}
	}
	fmt.Fprint(a.streams.Err, question)
	answered := make(chan string, 1)
	go func() {
		// What cannot be read is no.
		answer, _ := bufio.NewReader(a.streams.In).ReadString('\n')
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.streams.Err)
		return ctx.Err()
	case answer := <-answered:
		if answer == "y" || answer == "yes" {
			return nil
		}
		return errors.New("nothing was removed")
	}
}

// view is a VM as list and status show it.
type view struct {
	Name        string     `json:"name"`
	Status      string     `json:"status"`
	Detail      string     `json:"detail,omitempty"`
	Hypervisor  string     `json:"hypervisor,omitempty"`
	Accelerator string     `json:"accelerator,omitempty"`
	System      string     `json:"system,omitempty"`
	PID         int        `json:"pid,omitempty"`
	StartedAt   *time.Time `json:"startedAt,omitempty"`
	Address     string     `json:"address,omitempty"`
	SSHPort     int        `json:"sshPort,omitempty"`
	Login       string     `json:"login,omitempty"`
	DiskGB      int        `json:"diskGB,omitempty"`
	MemoryMB    int        `json:"memoryMB,omitempty"`
	CPUs        int        `json:"cpus,omitempty"`
	Nested      bool       `json:"nested,omitempty"`
	// Flake is FLAKE#HOST.
	Flake     string          `json:"flake,omitempty"`
	Install   *devbox.Install `json:"install,omitempty"`
	CreatedAt *time.Time      `json:"createdAt,omitempty"`
	UpdatedAt *time.Time      `json:"updatedAt,omitempty"`
}

func viewOf(entry *devbox.Entry) view {
	shown := view{Name: entry.Name, Status: string(entry.State.Status), Detail: entry.State.Detail, Accelerator: entry.State.Accelerator, PID: entry.State.PID}
	if entry.Err != nil {
		shown.Status, shown.Detail = "broken", entry.Err.Error()
	}
	if !entry.State.StartedAt.IsZero() {
		shown.StartedAt = &entry.State.StartedAt
	}
	if record := entry.Record; record != nil {
		shown.Hypervisor, shown.System, shown.Login, shown.SSHPort = record.Hypervisor, record.System, record.Login, record.SSHPort
		shown.DiskGB, shown.MemoryMB, shown.CPUs, shown.Nested = record.DiskGB, record.MemoryMB, record.CPUs, record.Nested
		shown.Install, shown.CreatedAt = record.Install, &record.CreatedAt
		if record.Host != "" {
			shown.Flake = record.Flake + "#" + record.Host
		}
		if !record.UpdatedAt.IsZero() {
			shown.UpdatedAt = &record.UpdatedAt
		}
	}
	if entry.Endpoint != nil {
		shown.Address, shown.SSHPort = entry.Endpoint.Address, entry.Endpoint.Port
	}
	return shown
}

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Aliases: []string{"ls"}, Usage: "list all VMs",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			views := []view{}
			for _, entry := range manager.List(c.Context) {
				views = append(views, viewOf(entry))
			}
			if c.Bool("json") {
				return a.printJSON(views)
			}
			if len(views) == 0 {
				fmt.Fprintln(a.streams.Err, "there are no VMs; make one with: devbox-cli init FLAKE#HOST")
				return nil
			}
			table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tSTATUS\tHYPERVISOR\tDISK\tADDRESS\tFLAKE")
			for _, one := range views {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", one.Name, one.Status, cliargs.OrDash(one.Hypervisor), cliargs.OrDash(gigabytes(one.DiskGB)), cliargs.OrDash(place(one)), cliargs.OrDash(one.Flake))
			}
			return table.Flush()
		},
	}
}

func gigabytes(size int) string {
	if size == 0 {
		return ""
	}
	return fmt.Sprintf("%d GB", size)
}

func place(shown view) string {
	if shown.Address == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", shown.Address, shown.SSHPort)
}

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "say what a VM is and does", ArgsUsage: "NAME",
		Flags: []cli.Flag{jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			entry, err := manager.Status(c.Context, name)
			if err != nil {
				return err
			}
			shown := viewOf(entry)
			if c.Bool("json") {
				return a.printJSON(shown)
			}
			return a.printStatus(shown)
		}),
	}
}

func (a *app) printStatus(shown view) error {
	table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, value)
		}
	}
	row("name", shown.Name)
	row("status", shown.Status)
	row("", shown.Detail)
	row("hypervisor", strings.TrimSpace(shown.Hypervisor+" "+shown.Accelerator))
	row("system", shown.System)
	row("disk", gigabytes(shown.DiskGB))
	if shown.MemoryMB != 0 {
		row("memory", fmt.Sprintf("%d MB", shown.MemoryMB))
	}
	if shown.CPUs != 0 {
		row("cpus", fmt.Sprint(shown.CPUs))
	}
	if shown.Nested {
		row("nested", "yes")
	}
	if at := place(shown); at != "" {
		row("ssh", strings.TrimPrefix(shown.Login+"@"+at, "@"))
	} else {
		row("login", shown.Login)
	}
	row("flake", shown.Flake)
	if shown.Install != nil {
		row("installation", fmt.Sprintf("%s (%s, %s)", shown.Install.State, shown.Install.Mode, shown.Install.At.Local().Format(time.DateTime)))
		row("", terminal.Line(shown.Install.Message))
	}
	for _, one := range []struct {
		name string
		at   *time.Time
	}{{"made", shown.CreatedAt}, {"updated", shown.UpdatedAt}, {"started", shown.StartedAt}} {
		if one.at != nil {
			row(one.name, one.at.Local().Format(time.DateTime))
		}
	}
	return table.Flush()
}

func userFlag() cli.Flag {
	return &cli.StringFlag{Name: "user", Aliases: []string{"l"}, Usage: "log in as `USER` (default: that of the flake's host)"}
}

// userOf is the user that ssh logs in to a VM as.
func userOf(c *cli.Context, manager *devbox.Manager, name string) (string, error) {
	record, err := manager.Load(name)
	if err != nil {
		return "", err
	}
	return manager.Login(record, c.String("user"))
}

// login is where and as whom ssh goes to a VM.
func login(c *cli.Context, manager *devbox.Manager, name string) (hypervisor.Endpoint, string, error) {
	user, err := userOf(c, manager, name)
	if err != nil {
		return hypervisor.Endpoint{}, "", err
	}
	endpoint, err := manager.Endpoint(c.Context, name)
	return endpoint, user, err
}

func (a *app) sshCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh", Usage: "log in to a VM by ssh, or run a command there", ArgsUsage: "NAME [COMMAND...]",
		Description: `Options of ssh itself may stand behind NAME, as in
devbox-cli ssh my-devbox -L 8080:localhost:80`,
		Flags: []cli.Flag{userFlag()},
		Action: func(c *cli.Context) error {
			arguments := c.Args().Slice()
			if len(arguments) == 0 {
				_, err := oneName(c)
				return err
			}
			name, rest := arguments[0], arguments[1:]
			if len(rest) > 0 && rest[0] == "--" {
				rest = rest[1:]
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			endpoint, user, err := login(c, manager, name)
			if err != nil {
				return err
			}
			command := execx.Command{Name: "ssh", Args: append(manager.SSHArguments(name, user, endpoint), rest...), Passthrough: true, Stdin: a.streams.In, Stdout: a.streams.Out, Stderr: a.streams.Err}
			return cliargs.PassStatus(manager.Runner.Run(c.Context, command))
		},
	}
}

func (a *app) sshConfigCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh-config", Usage: "print a ssh_config for a running VM", ArgsUsage: "NAME",
		Description: `For plain ssh, scp, rsync and editors; the host key is pinned:

  devbox-cli ssh-config my-devbox > ~/.ssh/my-devbox
  ssh -F ~/.ssh/my-devbox my-devbox`,
		Flags: []cli.Flag{userFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			endpoint, user, err := login(c, manager, name)
			if err != nil {
				return err
			}
			_, err = io.WriteString(a.streams.Out, manager.SSHConfig(name, user, endpoint))
			return err
		}),
	}
}

func (a *app) logsCommand() *cli.Command {
	return &cli.Command{
		Name: "logs", Usage: "print what a VM printed on its console", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "hypervisor", Usage: "what the hypervisor itself said"},
			&cli.BoolFlag{Name: "previous", Usage: "the console of the run before"},
			&cli.BoolFlag{Name: "raw", Usage: "with the guest's control sequences, unchanged"},
		},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			if _, err := manager.Load(name); err != nil {
				return err
			}
			path := manager.Files(name).Console()
			switch {
			case c.Bool("hypervisor"):
				path = manager.Files(name).Log()
			case c.Bool("previous"):
				path = manager.ConsoleBefore(name)
			}
			log, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("there is no such log yet: VM %s has not been started", name)
			}
			if err != nil {
				return err
			}
			defer log.Close()
			if c.Bool("raw") {
				_, err = io.Copy(a.streams.Out, log)
				return err
			}
			var failed error
			lines := &execx.LineWriter{Line: func(line string) {
				if failed == nil {
					_, failed = fmt.Fprintln(a.streams.Out, terminal.Line(line))
				}
			}}
			_, err = io.Copy(lines, log)
			return errors.Join(err, lines.Close(), failed)
		}),
	}
}
