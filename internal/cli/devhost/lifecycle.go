package devhost

import (
	"bufio"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/engine"
	"devhost/internal/expiry"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// listed is one container in the output of list and status.
type listed struct {
	Name string `json:"name"`
	// Status is the engine's state, or "broken".
	Status  string   `json:"status"`
	IPv4    string   `json:"ipv4,omitempty"`
	IPv6    string   `json:"ipv6,omitempty"`
	Owner   string   `json:"owner,omitempty"`
	Aliases []string `json:"aliases"`
	// ForwardPorts are ports of the host that lead to it.
	ForwardPorts []registry.ForwardPort `json:"forwardPorts"`
	Channel      string                 `json:"channel,omitempty"`
	Revision     string                 `json:"revision,omitempty"`
	System       string                 `json:"system,omitempty"`
	Limits       *registry.Limits       `json:"limits,omitempty"`
	Nesting      bool                   `json:"nesting,omitempty"`
	// Network is "host" for a container that has the host's network, where SSHPort
	// is its sshd's; both are missing for others.
	Network string `json:"network,omitempty"`
	SSHPort uint16 `json:"sshPort,omitempty"`
	// Declared says that the host's configuration decides about it.
	Declared       bool       `json:"declared,omitempty"`
	CreatedAt      *time.Time `json:"createdAt,omitempty"`
	LastDeployment *time.Time `json:"lastDeployment,omitempty"`
	StartedAt      *time.Time `json:"startedAt,omitempty"`
	// ExpiresStop and ExpiresDelete are when it is stopped and deleted at the
	// earliest, KeepUntil is until when it is kept; each is missing for never.
	ExpiresStop   *time.Time `json:"expiresStop,omitempty"`
	ExpiresDelete *time.Time `json:"expiresDelete,omitempty"`
	KeepUntil     *time.Time `json:"keepUntil,omitempty"`
	KeptForever   bool       `json:"keptForever,omitempty"`
	// Warnings are about what is near.
	Warnings []string `json:"warnings,omitempty"`
	// Disk is what its files take, where that is known, and Snapshots counts
	// its snapshots. Only status has them.
	Disk      *container.DiskUsage `json:"disk,omitempty"`
	Snapshots *int                 `json:"snapshots,omitempty"`
	// Detail says why a container is broken or failed.
	Detail string           `json:"detail,omitempty"`
	Units  []container.Unit `json:"units,omitempty"`
}

func describe(manager *container.Manager, name string, record *registry.Container, state engine.State, err error) listed {
	if err != nil || record == nil {
		return listed{Name: name, Status: "broken", Aliases: []string{}, ForwardPorts: []registry.ForwardPort{}, Detail: fmt.Sprint(err)}
	}
	entry := listed{
		Name: name, Status: string(state.Status), Detail: state.Detail,
		IPv4: record.Address.IPv4, IPv6: record.Address.IPv6, Owner: record.Owner, Aliases: record.Aliases,
		Channel: record.Pin.Reference, Revision: record.Pin.Revision, System: manager.System(record), Limits: &record.Limits, Nesting: record.Nesting, Declared: record.Declared != nil,
		CreatedAt: &record.CreatedAt, LastDeployment: &record.LastDeployment,
	}
	entry.ForwardPorts = append([]registry.ForwardPort{}, record.ForwardPorts...)
	if record.Address.OnHost() {
		entry.Network, entry.SSHPort = settings.NetworkHost, record.Address.SSHPort
	}
	if !state.StartedAt.IsZero() {
		entry.StartedAt = &state.StartedAt
	}
	if entry.Aliases == nil {
		entry.Aliases = []string{}
	}
	return entry
}

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Aliases: []string{"ls"}, Usage: "list the containers of this host",
		Flags: []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "names", Usage: "print names only, one a line"}},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			// A listing is short: up to a limit, in bytes, keeping garbage costs
			// less than collecting it.
			debug.SetGCPercent(-1)
			debug.SetMemoryLimit(256 << 20)
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			entries, err := manager.Registry.List()
			if err != nil {
				return err
			}
			containers := describeAll(manager, entries)
			for i, entry := range entries {
				if entry.Container != nil {
					containers[i].addOutlook(a.outlook(manager, entry.Container, containers[i].Status == string(engine.Running)))
				}
			}
			return a.printList(c, containers)
		},
	}
}

// describeAll asks the engine for many containers at once: each costs a few
// reads.
func describeAll(manager *container.Manager, entries []registry.Entry) []listed {
	containers := make([]listed, len(entries))
	var group sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for first := range workers {
		group.Go(func() {
			for i := first; i < len(entries); i += workers {
				entry := entries[i]
				state, err := manager.Engine.State(entry.Name)
				containers[i] = describe(manager, entry.Name, entry.Container, state, errors.Join(entry.Err, err))
			}
		})
	}
	group.Wait()
	return containers
}

func (a *app) printList(c *cli.Context, containers []listed) error {
	switch {
	case c.Bool("json"):
		return a.printJSON(containers)
	case c.Bool("names"):
		for _, entry := range containers {
			fmt.Fprintln(a.streams.Out, entry.Name)
		}
		return nil
	case len(containers) == 0:
		fmt.Fprintln(a.streams.Err, "There are no containers yet. Make one: devhost ensure NAME --channel ./channels/offline")
		return nil
	}
	// A tabwriter writes every cell by itself.
	buffered := bufio.NewWriter(a.streams.Out)
	table, now := tabwriter.NewWriter(buffered, 0, 0, 2, ' ', 0), a.now()
	fmt.Fprintln(table, "NAME\tSTATUS\tADDRESS\tALIASES\tOWNER\tDEPLOYED\tEXPIRES")
	for _, entry := range containers {
		deployed := "-"
		if entry.LastDeployment != nil && !entry.LastDeployment.IsZero() {
			deployed = units.HumanDuration(time.Since(*entry.LastDeployment)) + " ago"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", entry.Name, entry.Status,
			cliargs.OrDash(entry.IPv4), cliargs.OrDash(strings.Join(entry.Aliases, " ")), cliargs.OrDash(entry.Owner), deployed, entry.expires(now))
	}
	if err := errors.Join(table.Flush(), buffered.Flush()); err != nil {
		return err
	}
	for _, entry := range containers {
		if entry.Status == "broken" {
			fmt.Fprintf(a.streams.Err, "%s: %s\n", entry.Name, entry.Detail)
		}
		for _, warning := range entry.Warnings {
			fmt.Fprintf(a.streams.Err, "%s; %s\n", warning, expiry.Remedy(entry.Name))
		}
	}
	return nil
}

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show one container: state, addresses, system, units that are not up", ArgsUsage: "NAME",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			state, err := manager.Engine.State(record.Name)
			entry := describe(manager, record.Name, record, state, err)
			outlook := a.outlook(manager, record, state.Status == engine.Running)
			entry.addOutlook(outlook)
			if state.Status == engine.Running {
				entry.Units, err = manager.TroubledUnits(c.Context, record.Name)
				if err != nil {
					entry.Detail = "cannot ask the guest for its units: " + err.Error()
				}
			}
			a.addDisk(manager, record, &entry)
			if c.Bool("json") {
				return a.printJSON(entry)
			}
			a.printStatus(entry, outlook)
			return nil
		},
	}
}

func (a *app) printStatus(entry listed, outlook expiry.Outlook) {
	table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			fmt.Fprintf(table, "%s\t%s\n", key, value)
		}
	}
	row("name", entry.Name)
	row("status", entry.Status)
	row("detail", entry.Detail)
	row("addresses", strings.TrimSpace(entry.IPv4+" "+entry.IPv6))
	if entry.Network != "" {
		row("network", fmt.Sprintf("the host's; ssh on port %d", entry.SSHPort))
	}
	row("aliases", strings.Join(entry.Aliases, " "))
	row("forwarded ports", describePorts(entry.ForwardPorts))
	row("owner", entry.Owner)
	row("channel", strings.TrimSpace(entry.Channel+" "+entry.Revision))
	row("system", entry.System)
	if entry.Limits != nil {
		row("limits", describeLimits(*entry.Limits))
	}
	if entry.Declared {
		row("declared", "by the configuration of this host, which decides about it")
	}
	if entry.Nesting {
		row("nesting", "on")
	}
	row("disk", describeDisk(entry.Disk))
	if entry.Snapshots != nil && *entry.Snapshots > 0 {
		row("snapshots", strconv.Itoa(*entry.Snapshots))
	}
	if entry.LastDeployment != nil {
		row("deployed", entry.LastDeployment.Local().Format(time.DateTime))
	}
	row("expires", describeOutlook(outlook))
	if entry.StartedAt != nil {
		row("started", entry.StartedAt.Local().Format(time.DateTime))
	}
	_ = table.Flush()
	for _, warning := range entry.Warnings {
		fmt.Fprintf(a.streams.Err, "%s; %s\n", warning, expiry.Remedy(entry.Name))
	}
	printUnits(a.streams.Out, entry.Name, entry.Units)
}

func describePorts(ports []registry.ForwardPort) string {
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = port.String()
	}
	return strings.Join(texts, " ")
}

func describeLimits(limits registry.Limits) string {
	var parts []string
	if limits.MemoryBytes > 0 {
		parts = append(parts, "memory "+units.BytesSize(float64(limits.MemoryBytes)))
	}
	if limits.CPUs > 0 {
		parts = append(parts, fmt.Sprintf("cpus %g", limits.CPUs))
	}
	if limits.Tasks > 0 {
		parts = append(parts, fmt.Sprintf("tasks %d", limits.Tasks))
	}
	if limits.IOWeight > 0 {
		parts = append(parts, fmt.Sprintf("io weight %d", limits.IOWeight))
	}
	if limits.DiskBytes > 0 {
		parts = append(parts, "disk "+units.BytesSize(float64(limits.DiskBytes)))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// registered is the manager and the record of the command's only argument.
func (a *app) registered(c *cli.Context) (*container.Manager, *registry.Container, error) {
	name, err := oneName(c)
	if err != nil {
		return nil, nil, err
	}
	manager, err := a.managerFor(c, name)
	if err != nil {
		return nil, nil, err
	}
	record, err := manager.Registry.Load(name)
	return manager, record, mentionArchive(manager, err)
}

func (a *app) ipCommand() *cli.Command {
	return &cli.Command{
		Name: "ip", Usage: "print a container's IPv4 address", ArgsUsage: "NAME",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "6", Usage: "print the IPv6 address"}, jsonFlag()},
		Action: func(c *cli.Context) error {
			_, record, err := a.registered(c)
			if err != nil {
				return err
			}
			switch {
			case c.Bool("json"):
				return a.printJSON(map[string]string{"ipv4": record.Address.IPv4, "ipv6": record.Address.IPv6})
			case c.Bool("6") && record.Address.OnHost():
				return fmt.Errorf("container %s has the network of this host, and no IPv6 address of its own", record.Name)
			case c.Bool("6") && record.Address.IPv6 == "":
				return fmt.Errorf("container %s has no IPv6 address: this host has no IPv6", record.Name)
			case c.Bool("6"):
				fmt.Fprintln(a.streams.Out, record.Address.IPv6)
			default:
				fmt.Fprintln(a.streams.Out, record.Address.IPv4)
			}
			return nil
		},
	}
}

func (a *app) startCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a container and wait until its sshd answers", ArgsUsage: "NAME",
		Flags: []cli.Flag{startTimeoutFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			started, err := manager.Start(c.Context, record.Name, c.Duration("timeout"))
			return a.said(c, record.Name, started, "started", "runs already", err)
		},
	}
}

// said prints what became of a container: whether anything changed, and in
// which words.
func (a *app) said(c *cli.Context, name string, changed bool, yes, no string, err error) error {
	if err != nil {
		return err
	}
	if !changed {
		yes = no
	}
	if c.Bool("json") {
		return a.printJSON(map[string]any{"name": name, "changed": changed, "result": yes})
	}
	fmt.Fprintf(a.streams.Out, "%s: %s\n", name, yes)
	return nil
}

func lockTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "lock-timeout", Value: container.LockTimeout, Usage: "how long to wait for another command for this container (`DURATION`)", Action: func(_ *cli.Context, timeout time.Duration) error {
		if timeout < 0 {
			return errors.New("--lock-timeout must not be negative")
		}
		return nil
	}}
}

// startTimeoutFlag is how long a start may take until sshd answers.
func startTimeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: "how long the start may take until sshd answers (`DURATION`, such as 90s or 5m)", Action: atLeast("timeout", time.Second)}
}

// stopTimeoutFlag is how long a guest may take to power off.
func stopTimeoutFlag(name string) cli.Flag {
	return &cli.DurationFlag{Name: name, Value: 30 * time.Second, Usage: "how long the guest may take to power off before it is killed (`DURATION`)", Action: atLeast(name, 0)}
}

// atLeast checks the value of a flag.
func atLeast(flag string, least time.Duration) func(*cli.Context, time.Duration) error {
	return func(c *cli.Context, value time.Duration) error {
		if value < least {
			return &cliargs.UsageError{Command: cliargs.CommandName(c), Err: fmt.Errorf("--%s %s: give at least %s, such as 90s or 5m", flag, value, least)}
		}
		return nil
	}
}

func (a *app) stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "power a container off; its files stay", ArgsUsage: "NAME",
		Flags: []cli.Flag{stopTimeoutFlag("timeout"), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			stopped, err := manager.Stop(c.Context, record.Name, c.Duration("timeout"))
			return a.said(c, record.Name, stopped, "stopped", "was not running", err)
		},
	}
}

func (a *app) restartCommand() *cli.Command {
	return &cli.Command{
		Name: "restart", Usage: "stop and start a container", ArgsUsage: "NAME",
		Flags: []cli.Flag{startTimeoutFlag(), stopTimeoutFlag("stop-timeout"), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			err = manager.Restart(c.Context, record.Name, c.Duration("stop-timeout"), c.Duration("timeout"))
			return a.said(c, record.Name, true, "restarted", "", err)
		},
	}
}

func (a *app) destroyCommand() *cli.Command {
	return &cli.Command{
		Name: "destroy", Usage: "stop and remove containers with all their files", ArgsUsage: "NAME...",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "missing-ok", Usage: "it is no error when there is no such container"}, &cli.BoolFlag{Name: "archive", Usage: "archive it first, so that undelete can bring it back"}, forceFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				_, err := oneName(c)
				return err
			}
			for _, name := range c.Args().Slice() {
				manager, err := a.managerFor(c, name)
				if err != nil {
					return err
				}
				if c.Bool("archive") {
					err = a.destroyArchived(c, manager, name)
				} else {
					err = manager.Destroy(c.Context, name)
				}
				var missing *registry.NotRegistered
				if errors.As(err, &missing) && c.Bool("missing-ok") {
					continue
				}
				if err := a.said(c, name, true, "destroyed", "", err); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
