package devbox

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/devbox"
	"devhost/internal/hypervisor"
	"devhost/internal/progress"
)

// stopTimeout is how long a guest may take to power off, unless asked.
const stopTimeout = "30"

func (a *app) vmCommand() *cli.Command {
	group := &cli.Command{
		Name: "vm", Usage: "single operations on VMs, without a flake",
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return cli.ShowSubcommandHelp(c)
			}
			return cliargs.UnknownCommand(c, c.Command.VisibleCommands(), "vm")
		},
		Subcommands: []*cli.Command{
			a.vmCreateCommand(), a.vmStartCommand(), a.stopCommand("stop"), a.vmRemoveCommand(),
			a.vmIPCommand(), a.vmWaitSSHCommand(), a.vmBootISOCommand(), a.vmResizeCommand(),
		},
	}
	return group
}

func nestedFlag() cli.Flag {
	return &cli.BoolFlag{Name: "nested", Usage: "let the guest run VMs itself"}
}

func portFlag() cli.Flag {
	return &cli.IntFlag{Name: "ssh-port", Usage: "the `PORT` of 127.0.0.1 that leads to the guest's sshd (qemu)"}
}

func (a *app) vmCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a VM with an empty disk", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "hypervisor", Value: "tart", Usage: "what runs it: `tart|qemu`"},
			&cli.IntFlag{Name: "disk", Value: devbox.DefaultDiskGB, Usage: "size of its disk in `GB`; it takes room only as it fills"},
			&cli.IntFlag{Name: "memory", Usage: "its memory in `MB` (default: what the hypervisor gives)"},
			&cli.IntFlag{Name: "cpus", Usage: "its number of processors, `N`"},
			&cli.StringFlag{Name: "system", Usage: "the guest's `SYSTEM`, x86_64-linux or aarch64-linux (default: that of this machine)"},
			portFlag(),
			&cli.BoolFlag{Name: "force", Usage: "replace a VM of that name, and all that its disk holds"},
			jsonFlag(),
		},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			system := c.String("system")
			if system == "" {
				system = hypervisor.NativeSystem(hypervisor.Machine())
			}
			if c.Int("disk") <= 0 {
				return &cliargs.UsageError{Command: "vm create", Err: fmt.Errorf("--disk=%d: give the size in GB, such as 50", c.Int("disk"))}
			}
			_, err := manager.Create(c.Context, devbox.CreateOptions{
				Name: name, Hypervisor: c.String("hypervisor"), System: system,
				DiskGB: c.Int("disk"), MemoryMB: c.Int("memory"), CPUs: c.Int("cpus"),
				SSHPort: c.Int("ssh-port"), Force: c.Bool("force"),
			})
			if err != nil {
				return err
			}
			return a.said(c, name, "created", true)
		}),
	}
}

func (a *app) vmStartCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a VM from its disk; it runs on when devbox-cli ends", ArgsUsage: "NAME",
		Flags: []cli.Flag{nestedFlag(), portFlag(), jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			manager.Reporter.Phase(startPhase)
			started, err := manager.Start(c.Context, name, devbox.StartOptions{Nested: c.Bool("nested"), SSHPort: c.Int("ssh-port")})
			if err != nil {
				return err
			}
			return a.saidStarted(c, manager, name, started)
		}),
	}
}

func (a *app) saidStarted(c *cli.Context, manager *devbox.Manager, name string, started bool) error {
	manager.Reporter.Done("")
	if !started {
		return a.said(c, name, "runs already", false)
	}
	return a.said(c, name, "started", true)
}

// startPhase is the phase in which a VM starts, stopPhase that in which it
// powers off.
const (
	startPhase progress.Phase = "starting the VM"
	stopPhase  progress.Phase = "powering the VM off"
)

// stopCommand is "vm stop", and "down".
func (a *app) stopCommand(word string) *cli.Command {
	return &cli.Command{
		Name: word, Usage: "power a VM off; its disk stays", ArgsUsage: "NAME",
		Flags: []cli.Flag{timeoutFlag("how long the guest may take before it is ended hard", stopTimeout), jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			limit, err := timeout(c)
			if err != nil {
				return err
			}
			manager.Reporter.Phase(stopPhase)
			ran, clean, err := manager.Stop(c.Context, name, limit)
			if err != nil {
				return err
			}
			manager.Reporter.Done("")
			switch {
			case !ran:
				return a.said(c, name, "was not running", false)
			case !clean:
				manager.Reporter.Warn(fmt.Sprintf("the guest did not power off within %s and was ended hard", limit.Round(time.Second)))
			}
			return a.said(c, name, "stopped", true)
		}),
	}
}

func (a *app) vmRemoveCommand() *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "stop a VM and remove it with its disk; asks nothing", ArgsUsage: "NAME",
		Flags: []cli.Flag{jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			if err := manager.Remove(c.Context, name); err != nil {
				return err
			}
			return a.said(c, name, "removed", true)
		}),
	}
}

func (a *app) vmIPCommand() *cli.Command {
	return &cli.Command{
		Name: "ip", Usage: "print the address of a running VM", ArgsUsage: "NAME",
		Description: `With qemu that is 127.0.0.1, and a port of its own leads to the VM's sshd:
--json prints both, ssh-config what ssh needs.`,
		Flags: []cli.Flag{jsonFlag()},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			endpoint, err := manager.Endpoint(c.Context, name)
			if err != nil {
				return err
			}
			return a.printEndpoint(c, endpoint)
		}),
	}
}

func (a *app) printEndpoint(c *cli.Context, endpoint hypervisor.Endpoint) error {
	if c.Bool("json") {
		return a.printJSON(map[string]any{"address": endpoint.Address, "sshPort": endpoint.Port})
	}
	_, err := fmt.Fprintln(a.streams.Out, endpoint.Address)
	return err
}

func (a *app) vmWaitSSHCommand() *cli.Command {
	return &cli.Command{
		Name: "wait-ssh", Usage: "wait until a user can log in by ssh, and print the VM's address", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Usage: "the `USER` to log in as (default: that of the flake's host)"},
			timeoutFlag("how long to wait", "120"), jsonFlag(),
		},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			limit, err := timeout(c)
			if err != nil {
				return err
			}
			user, err := userOf(c, manager, name)
			if err != nil {
				return err
			}
			endpoint, err := manager.WaitSSH(c.Context, name, user, limit)
			if err != nil {
				return err
			}
			manager.Reporter.Done("")
			return a.printEndpoint(c, endpoint)
		}),
	}
}

func (a *app) vmBootISOCommand() *cli.Command {
	return &cli.Command{
		Name: "boot-iso", Usage: "boot a VM from an ISO image, and wait until it is off again", ArgsUsage: "NAME ISO",
		Description: `Shows the last line of the VM's console meanwhile. Ctrl-C ends only the
waiting: the VM runs on.`,
		Flags: []cli.Flag{nestedFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 2 {
				return &cliargs.UsageError{Command: "vm boot-iso", Err: errors.New("give the name of a VM and the path of an ISO image: devbox-cli vm boot-iso NAME ISO")}
			}
			return a.with(c, func(manager *devbox.Manager) error {
				name := c.Args().First()
				if err := manager.BootISO(c.Context, name, c.Args().Get(1), c.Bool("nested")); err != nil {
					return err
				}
				manager.Reporter.Done("")
				return a.said(c, name, "is off again", true)
			})
		},
	}
}

func (a *app) vmResizeCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "change the disk, memory or processors of a VM that does not run", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "disk", Usage: "new size of its disk in `GB`; disks only grow"},
			&cli.IntFlag{Name: "memory", Usage: "its memory in `MB`"},
			&cli.IntFlag{Name: "cpus", Usage: "its number of processors, `N`"},
			jsonFlag(),
		},
		Action: a.onVM(func(c *cli.Context, manager *devbox.Manager, name string) error {
			options := devbox.ResizeOptions{DiskGB: c.Int("disk"), MemoryMB: c.Int("memory"), CPUs: c.Int("cpus")}
			if options == (devbox.ResizeOptions{}) {
				return &cliargs.UsageError{Command: "vm resize", Err: errors.New("say what to change: --disk=GB, --memory=MB or --cpus=N")}
			}
			record, err := manager.Resize(c.Context, name, options)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.printJSON(record)
			}
			return a.said(c, name, "resized", true)
		}),
	}
}
