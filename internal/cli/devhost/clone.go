package devhost

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/registry"
)

// twoNames are the only arguments of a command.
func twoNames(c *cli.Context, command, what string) (one, other string, err error) {
	if c.Args().Len() != 2 {
		return "", "", &cliargs.UsageError{Command: command, Err: fmt.Errorf("%s: devhost %s %s", what, command, c.Command.ArgsUsage)}
	}
	return c.Args().Get(0), c.Args().Get(1), nil
}

// standFlag has a running container stopped while it is copied.
func standFlag() cli.Flag {
	return &cli.BoolFlag{Name: "stop", Usage: "stop it while it is copied, and start it again; else it is frozen"}
}

func (a *app) cloneCommand() *cli.Command {
	return &cli.Command{
		Name: "clone", Usage: "make a new container of what another one is now", ArgsUsage: "NAME NEW",
		Description: `Copies the files of the container NAME and makes the container NEW of them, with
the same system, provision and limits, and with an owner (you), addresses, keys
and a machine id of its own. Nothing is built. Aliases, forwarded ports and
snapshots are not copied.

Where the file system shares blocks (btrfs, xfs with reflink), this takes about a
second, whatever the size; elsewhere everything is written once more. A running
container is frozen meanwhile, so that its files are those of one moment, as
after a power cut; with --stop it is powered off and started again.`,
		Flags: []cli.Flag{
			standFlag(),
			&cli.BoolFlag{Name: "no-start", Usage: "leave the clone stopped"},
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: timeoutUsage, Action: atLeast("timeout", time.Second)},
			lockTimeoutFlag(), jsonFlag(),
		},
		Action: a.clone,
	}
}

func (a *app) clone(c *cli.Context) error {
	source, name, err := twoNames(c, "clone", "give the container to clone, and the name of the clone")
	if err != nil {
		return err
	}
	manager, err := a.managerFor(c, source)
	if err != nil {
		return err
	}
	request := container.CloneRequest{Source: source, Name: name, Stop: c.Bool("stop"), NoStart: c.Bool("no-start"), Timeout: c.Duration("timeout")}
	person, owner, err := caller()
	if err != nil {
		return err
	}
	request.Owner = owner
	if _, request.AccountKeys, err = a.memberKeys(c, container.EnsureRequest{Caller: person}); err != nil {
		return &cliargs.UsageError{Command: "clone", Err: err}
	}
	began := time.Now()
	result, err := manager.Clone(c.Context, request)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = a.printJSON(result)
	} else {
		started := ""
		if !result.Started {
			started = "; it is stopped"
		}
		_, err = fmt.Fprintf(a.streams.Out, "%s: cloned from %s by %s, which was %s meanwhile%s (%s)\n", name, source, result.Way, result.State, started, time.Since(began).Round(time.Millisecond))
	}
	if err != nil {
		return err
	}
	return a.unitsOf(name, result.Units)
}

// unitsOf says which units are not up, and that this is the exit status.
func (a *app) unitsOf(name string, units []container.Unit) error {
	if len(units) == 0 {
		return nil
	}
	printUnits(a.streams.Err, name, units)
	return degradedError{}
}

func (a *app) renameCommand() *cli.Command {
	return &cli.Command{
		Name: "rename", Usage: "give a container another name", ArgsUsage: "NAME NEW",
		Description: `The container keeps its files, addresses, keys, generations and snapshots. A
running one is stopped and started again, because a guest learns its name when
it starts. The old name resolves no more.`,
		Flags: []cli.Flag{
			forceFlag(),
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: timeoutUsage, Action: atLeast("timeout", time.Second)},
			lockTimeoutFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			from, to, err := twoNames(c, "rename", "give a container and its new name")
			if err != nil {
				return err
			}
			manager, err := a.managerFor(c, from)
			if err != nil {
				return err
			}
			result, err := manager.Rename(c.Context, from, to, c.Duration("timeout"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = a.printJSON(result)
			} else {
				_, err = fmt.Fprintf(a.streams.Out, "%s: is called %s now\n", from, to)
			}
			if err != nil {
				return err
			}
			return a.unitsOf(to, result.Units)
		},
	}
}

// addDisk adds to a status what a listing leaves out.
func (a *app) addDisk(manager *container.Manager, record *registry.Container, entry *listed) {
	count := manager.Registry.CountSnapshots(record.Name)
	entry.Snapshots = &count
	usage, err := manager.DiskUsage(record)
	if err != nil {
		entry.Detail = joinDetails(entry.Detail, err.Error())
		return
	}
	entry.Disk = usage
}

func joinDetails(one, other string) string {
	if one == "" {
		return other
	}
	return one + "; " + other
}

func describeDisk(usage *container.DiskUsage) string {
	switch {
	case usage == nil:
		return ""
	case !usage.Enforced:
		return units.BytesSize(float64(usage.LimitBytes)) + " at most, which this file system does not enforce (no project quotas)"
	case usage.LimitBytes == 0:
		return units.BytesSize(float64(usage.UsedBytes)) + " used"
	}
	return fmt.Sprintf("%s of %s used", units.BytesSize(float64(usage.UsedBytes)), units.BytesSize(float64(usage.LimitBytes)))
}
