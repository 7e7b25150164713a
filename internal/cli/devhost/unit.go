package devhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"devhost/internal/container"
	"devhost/internal/engine/supervisor"
	"devhost/internal/engine/systemd"
	"devhost/internal/execx"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// unitEngine is the engine whose containers are units of systemd.
func unitEngine(layout registry.Layout, records *registry.Registry, network supervisor.Network) *systemd.Engine {
	// Only where /proc is missing there is none, and nothing else works either.
	program, _ := os.Executable()
	return &systemd.Engine{Layout: layout, Load: records.Load, Runner: execx.New(), Network: network, Program: program}
}

// unitPhases are the processes of a container's unit, by the flag of supervise
// that asks for them.
var unitPhases = []struct {
	flag, usage string
	run         func(context.Context, *supervisor.Unit) error
}{
	{"exec", "become systemd-nspawn (ExecStart of the container's unit)", func(ctx context.Context, unit *supervisor.Unit) error { return unit.Become(ctx) }},
	{"started", "connect the guest that was started (ExecStartPost)", func(ctx context.Context, unit *supervisor.Unit) error {
		pid, err := strconv.Atoi(os.Getenv("MAINPID"))
		if err != nil {
			return fmt.Errorf("MAINPID is no process: %w", err)
		}
		return unit.Started(ctx, pid)
	}},
	{"ended", "clear what the guest left that ended (ExecStopPost)", func(ctx context.Context, unit *supervisor.Unit) error {
		// Also when systemd asks it to hurry.
		return unit.Ended(context.WithoutCancel(ctx), supervisor.Ending{
			Result: os.Getenv("SERVICE_RESULT"), Code: os.Getenv("EXIT_CODE"), Status: os.Getenv("EXIT_STATUS"),
		})
	}},
}

func unitFlags() []cli.Flag {
	var flags []cli.Flag
	for _, phase := range unitPhases {
		flags = append(flags, &cli.BoolFlag{Name: phase.flag, Usage: phase.usage})
	}
	return flags
}

// unitPhase is the phase that the flags ask for.
func unitPhase(c *cli.Context) (func(context.Context, *supervisor.Unit) error, bool) {
	for _, phase := range unitPhases {
		if c.Bool(phase.flag) {
			return phase.run, true
		}
	}
	return nil, false
}

// unit is one container as a unit of systemd.
func (a *app) unit(layout registry.Layout, records *registry.Registry, network supervisor.Network, name string) *supervisor.Unit {
	engine := unitEngine(layout, records, network)
	return &supervisor.Unit{
		Layout: layout, Name: name, Load: records.Load, Network: network, Runner: execx.New(),
		// Its output is in the journal, which knows the time.
		Logger: hclog.New(&hclog.LoggerOptions{Name: "devhost", Level: hclog.Info, Output: a.streams.Err, DisableTime: true}),
		SetLimits: func(ctx context.Context, limits registry.Limits) error {
			return engine.Limit(ctx, name, limits)
		},
		ForgetLimits: func() error { return engine.ForgetLimits(name) },
		Unregister:   func(ctx context.Context) error { return engine.Unregister(ctx, name) },
		LastWords:    func(ctx context.Context, since time.Time) string { return engine.LastWords(ctx, name, since) },
	}
}

// refreshGuest brings up to date what a guest is told of the host.
func refreshGuest(records *registry.Registry, network *container.HostNetwork, name string) error {
	return errors.Join(network.RefreshResolvers(name), container.RefreshKeys(records, name))
}

func (a *app) refreshCommand() *cli.Command {
	return &cli.Command{
		Name: "refresh", Usage: "bring up to date what guests are told of the host (this is what devhost-refresh.service does)", Hidden: true,
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
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
			entries, err := records.List()
			if err != nil {
				return err
			}
			network := hostNetwork(layout)
			var problems []error
			for _, entry := range entries {
				// Who is broken, or being made, is told nothing.
				if entry.Err != nil {
					continue
				}
				if err := refreshGuest(records, network, entry.Name); err != nil {
					problems = append(problems, fmt.Errorf("container %s: %w", entry.Name, err))
				}
			}
			return errors.Join(problems...)
		},
	}
}

func (a *app) bootCommand() *cli.Command {
	return &cli.Command{
		Name: "boot", Usage: "repair what a crash left, and start every container that was running when the host went down", Hidden: true,
		Flags: []cli.Flag{startTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			// Many containers at once have no line of their own.
			manager.Reporter = progress.Quiet(a.streams.Err)
			results, err := manager.Boot(c.Context, c.Duration("timeout"))
			if err != nil {
				return err
			}
			return a.printBooted(c, results)
		},
	}
}

func (a *app) printBooted(c *cli.Context, results []container.Booted) error {
	type row struct {
		Name   string `json:"name"`
		Result string `json:"result"`
		Error  string `json:"error,omitempty"`
	}
	rows := []row{}
	var failed []string
	for _, result := range results {
		line := row{Name: result.Name, Result: string(result.Result)}
		if result.Err != nil {
			line.Error = result.Err.Error()
			failed = append(failed, result.Name)
		}
		rows = append(rows, line)
	}
	if c.Bool("json") {
		if err := a.printJSON(rows); err != nil {
			return err
		}
	} else {
		for _, line := range rows {
			if line.Error != "" {
				fmt.Fprintf(a.streams.Err, "devhost: %s: %s\n", line.Name, line.Error)
				continue
			}
			fmt.Fprintf(a.streams.Out, "%s: %s\n", line.Name, line.Result)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d containers did not start", len(failed), len(results))
	}
	return nil
}
