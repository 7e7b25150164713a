package devhost

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/archive"
	"devhost/internal/container"
	"devhost/internal/disk"
	"devhost/internal/engine"
	"devhost/internal/engine/direct"
	"devhost/internal/engine/supervisor"
	"devhost/internal/engine/systemd"
	"devhost/internal/execx"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// hostsFile is where the names of containers are published.
const hostsFile = "/etc/hosts"

// hostNetwork is the network of a state folder.
func hostNetwork(layout registry.Layout) *container.HostNetwork {
	return &container.HostNetwork{Layout: layout, HostsFile: hostsFile, Runner: execx.New()}
}

// caller is the person on whose behalf the command runs, and the login that is
// recorded as the owner.
func caller() (person.Person, string, error) {
	current, err := person.Current()
	return current, current.Login, err
}

// managerFor checks the name before anything else looks at it, and then makes
// the manager.
func (a *app) managerFor(c *cli.Context, name string) (*container.Manager, error) {
	if err := names.Container(name); err != nil {
		return nil, err
	}
	return a.manager(c)
}

// manager wires the real parts together.
func (a *app) manager(c *cli.Context) (*container.Manager, error) {
	if err := needRoot(os.Args); err != nil {
		return nil, err
	}
	layout, err := a.layout(c)
	if err != nil {
		return nil, err
	}
	speaker, _, err := caller()
	if err != nil {
		return nil, err
	}
	// Who needs them in order has been refused before.
	host, _ := a.hostSettings(layout)
	records := registry.New(layout)
	network := hostNetwork(layout)
	engine := a.engine(layout, records, network)
	client := a.nixClient(c)
	reporter := progress.For(a.streams.Err, c.Bool("quiet"))
	return &container.Manager{
		Registry: records, Settings: host, Caller: speaker, Force: c.Bool("force"), Engine: engine, Network: network, Guest: guests{engine},
		Systems:  container.NewNixSystems(layout, client, reporter, host.AllowedURIs),
		Profiles: container.NixProfiles{Client: client},
		Archiver: archive.Tar{Runner: execx.New()}, Disk: disk.Host{Runner: execx.New()}, Watch: a.watch(layout),
		Logger: a.logger(c).Named("container"), Now: a.now, Reporter: reporter, OnStep: a.onStep,
		LockTimeout: lockTimeout(c), Program: "/proc/self/exe",
	}, nil
}

// lockTimeout is that of the flag; zero, of a command without it, means the
// usual one.
func lockTimeout(c *cli.Context) time.Duration {
	if !c.IsSet("lock-timeout") {
		return 0
	}
	return max(c.Duration("lock-timeout"), time.Nanosecond)
}

// runtimeEngine is an engine with what the command line asks of it besides.
type runtimeEngine interface {
	engine.Engine
	enterable
}

// engineVariable names the environment variable that chooses the engine "direct"
// where systemd would be it, for tests and for who repairs a host.
const engineVariable = "DEVHOST_ENGINE"

// engine is the one for this host: systemd where that is PID 1.
func (a *app) engine(layout registry.Layout, records *registry.Registry, network supervisor.Network) runtimeEngine {
	if systemd.Booted() && os.Getenv(engineVariable) != "direct" {
		return unitEngine(layout, records, network)
	}
	return &direct.Engine{
		Layout: layout, Load: records.Load, Runner: execx.New(), Network: network,
		Supervise: func(name string) []string {
			return []string{"/proc/self/exe", "--state-dir", layout.State, "supervise", name}
		},
	}
}

func (a *app) nixClient(c *cli.Context) *nix.Client {
	return nix.New(execx.New(), a.logger(c).Named("nix"))
}

func (a *app) superviseCommand() *cli.Command {
	return &cli.Command{
		Name: "supervise", Usage: "run a container and wait for its end (this is what start starts)", ArgsUsage: "NAME", Hidden: true,
		Flags: unitFlags(),
		Action: func(c *cli.Context) error {
			name, err := oneName(c)
			if err != nil {
				return err
			}
			if err := names.Container(name); err != nil {
				return err
			}
			if err := needRoot(os.Args); err != nil {
				return err
			}
			layout, err := a.layout(c)
			if err != nil {
				return err
			}
			records := registry.New(layout)
			network := hostNetwork(layout)
			if phase, ok := unitPhase(c); ok {
				return phase(c.Context, a.unit(layout, records, network, name))
			}
			// The supervisor handles signals itself: a second one kills.
			return supervisor.Run(context.WithoutCancel(c.Context), supervisor.Options{
				Layout: layout, Name: name, Load: records.Load, Runner: execx.New(),
				Network: network, Refresh: func() error { return refreshGuest(records, network, name) },
				// Its output is the supervisor's log.
				Logger: hclog.New(&hclog.LoggerOptions{Name: "supervisor", Level: hclog.Info, Output: a.streams.Err}),
			})
		},
	}
}
