package devhost

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/person"
	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

func (a *app) sshCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh", Usage: "log in to a container by ssh, as developer", ArgsUsage: "NAME [SSH ARGUMENTS...]",
		Description: `Runs ssh with the container's key and its pinned host key. What follows NAME
goes to ssh: devhost ssh demo -L 5432:localhost:5432, devhost ssh demo uptime.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "user", Aliases: []string{"l"}, Usage: "log in as `USER`"}},
		Action: func(c *cli.Context) error {
			name, arguments, err := nameAndRest(c)
			if err != nil {
				return err
			}
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			record, err := manager.Registry.Load(name)
			if err != nil {
				return err
			}
			state, err := manager.Engine.State(name)
			if err != nil {
				return err
			}
			if state.Status != engine.Running {
				return fmt.Errorf("container %s is %s; start it with: devhost start %s", name, state.Status, name)
			}
			return a.runSSH(c, record, manager.SSHFiles(name), arguments)
		},
	}
}

// runSSH runs ssh with the rights of the person who called sudo: its arguments
// can name commands and files of the host.
func (a *app) runSSH(c *cli.Context, record *registry.Container, files sshaccess.Files, arguments []string) error {
	who, _, err := caller()
	if err != nil {
		return err
	}
	config := files.Config()
	command := execx.Command{Name: "ssh", Passthrough: true, Stdin: a.streams.In, Stdout: a.streams.Out, Stderr: a.streams.Err}
	if int(who.UID) != os.Geteuid() {
		// The key is root's: the person gets a copy for as long as ssh runs.
		folder, err := os.MkdirTemp("", "devhost-ssh-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		if err := os.Chown(folder, int(who.UID), int(who.GID)); err != nil {
			return err
		}
		if config, err = writeSSH(who, record, files, folder); err != nil {
			return err
		}
		command.Credential = &execx.Credential{UID: who.UID, GID: who.GID}
		command.Env = append(os.Environ(), "HOME="+who.Home, "USER="+who.Login, "LOGNAME="+who.Login)
	}
	command.Args = []string{"-F", config}
	if user := c.String("user"); user != "" {
		command.Args = append(command.Args, "-o", "User="+user)
	}
	// ssh reads options up to the host name and once more after it.
	command.Args = append(append(command.Args, record.Name), arguments...)
	// A signal ends ssh first, which sits on the same terminal.
	return cliargs.PassStatus(execx.New().Run(c.Context, command))
}

// nameAndRest splits NAME [--] REST.
func nameAndRest(c *cli.Context) (string, []string, error) {
	arguments := c.Args().Slice()
	if len(arguments) == 0 {
		_, err := oneName(c)
		return "", nil, err
	}
	name, rest := arguments[0], arguments[1:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	return name, rest, nil
}

func (a *app) sshConfigCommand() *cli.Command {
	return &cli.Command{
		Name: "ssh-config", Usage: "print a ssh_config for a container, or write one with its keys", ArgsUsage: "NAME",
		Description: `Prints a ssh_config(5) block that works with plain ssh, scp, rsync and editors;
the host key is pinned. The key file is root's; --output writes a copy of
config, key and known_hosts that belongs to the person who called sudo:

  sudo devhost ssh-config demo --output ~/.ssh/demo
  ssh -F ~/.ssh/demo/config demo`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write config, key and known_hosts into `FOLDER`"}},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			files := manager.SSHFiles(record.Name)
			if c.String("output") != "" {
				return a.exportSSH(c, record, files)
			}
			config, err := os.ReadFile(files.Config())
			if err != nil {
				return err
			}
			_, err = a.streams.Out.Write(config)
			return err
		},
	}
}

// exportSSH writes the ssh files for the person who called sudo.
func (a *app) exportSSH(c *cli.Context, record *registry.Container, files sshaccess.Files) error {
	folder, err := filepath.Abs(c.String("output"))
	if err != nil {
		return err
	}
	who, _, err := caller()
	if err != nil {
		return err
	}
	config, err := writeSSH(who, record, files, folder)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.streams.Out, "ssh -F %s %s\n", config, record.Name)
	return nil
}

// writeSSH writes config, key and known_hosts with the rights of a person, so
// that no folder is written that this person may not write. It returns the
// config's path.
func writeSSH(who person.Person, record *registry.Container, files sshaccess.Files, folder string) (string, error) {
	key, err := os.ReadFile(files.Identity())
	if err != nil {
		return "", err
	}
	known, err := os.ReadFile(files.KnownHosts())
	if err != nil {
		return "", err
	}
	exported := sshaccess.Files{Host: folder}
	config := sshaccess.RenderConfig(record.Name, record.Address.IPv4, record.Address.SSHPort, sshaccess.HumanUser, exported.Identity(), exported.KnownHosts())
	return exported.Config(), who.Do(func() error {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		for path, content := range map[string][]byte{exported.Identity(): key, exported.KnownHosts(): known, exported.Config(): []byte(config)} {
			if err := renameio.WriteFile(path, content, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
