package devhost

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/registry"
)

func (a *app) snapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Usage: "keep what a container is now, and bring it back",
		Description: `A snapshot holds the files of a container, its system and its provision. It lies
beside the container, does not count as part of its --disk-size, and goes with
it when it is destroyed; clone does not copy it.`,
		Subcommands: []*cli.Command{a.snapshotCreateCommand(), a.snapshotListCommand(), a.snapshotRestoreCommand(), a.snapshotRemoveCommand()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &cliargs.UsageError{Command: "snapshot", Err: fmt.Errorf("devhost snapshot has no command %q", c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func (a *app) snapshotCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make a snapshot; without SNAPSHOT, the time is its name", ArgsUsage: "NAME [SNAPSHOT]",
		Flags: []cli.Flag{standFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Len() < 1 || c.Args().Len() > 2 {
				return &cliargs.UsageError{Command: "snapshot create", Err: errors.New("give a container, and a name for the snapshot if you like: devhost snapshot create NAME [SNAPSHOT]")}
			}
			name := c.Args().First()
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			made, err := manager.CreateSnapshot(c.Context, name, c.Args().Get(1), c.Bool("stop"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.printJSON(describeSnapshot(registry.SnapshotEntry{Name: made.Name, Snapshot: made}))
			}
			_, err = fmt.Fprintf(a.streams.Out, "%s: snapshot %s, by %s, while it was %s\n", name, made.Name, made.Way, made.State)
			return err
		},
	}
}

// listedSnapshot is one snapshot in the output of snapshot list.
type listedSnapshot struct {
	Name      string     `json:"name"`
	CreatedAt *time.Time `json:"createdAt,omitempty"`
	Automatic bool       `json:"automatic"`
	State     string     `json:"state,omitempty"`
	Way       string     `json:"way,omitempty"`
	System    string     `json:"system,omitempty"`
	Channel   string     `json:"channel,omitempty"`
	Revision  string     `json:"revision,omitempty"`
	// Detail says why it cannot be used.
	Detail string `json:"detail,omitempty"`
}

func describeSnapshot(entry registry.SnapshotEntry) listedSnapshot {
	if entry.Err != nil {
		return listedSnapshot{Name: entry.Name, Detail: entry.Err.Error()}
	}
	snapshot := entry.Snapshot
	return listedSnapshot{
		Name: entry.Name, CreatedAt: &snapshot.CreatedAt, Automatic: snapshot.Automatic, State: snapshot.State, Way: snapshot.Way,
		System: snapshot.Record.System, Channel: snapshot.Record.Pin.Reference, Revision: snapshot.Record.Pin.Revision,
	}
}

func (a *app) snapshotListCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Aliases: []string{"ls"}, Usage: "list the snapshots of a container", ArgsUsage: "NAME",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			entries, err := manager.Registry.ListSnapshots(record.Name)
			if err != nil {
				return err
			}
			snapshots := make([]listedSnapshot, len(entries))
			for i, entry := range entries {
				snapshots[i] = describeSnapshot(entry)
			}
			if c.Bool("json") {
				return a.printJSON(snapshots)
			}
			if len(snapshots) == 0 {
				_, err := fmt.Fprintf(a.streams.Err, "Container %s has no snapshots. Make one: devhost snapshot create %[1]s\n", record.Name)
				return err
			}
			table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "SNAPSHOT\tDATE\tMADE\tSYSTEM")
			for _, one := range snapshots {
				date, made := "-", "broken"
				if one.CreatedAt != nil {
					date, made = one.CreatedAt.Local().Format(time.DateTime), "by hand"
				}
				if one.Automatic {
					made = "by restore"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", one.Name, date, made, cliargs.OrDash(one.System))
			}
			if err := table.Flush(); err != nil {
				return err
			}
			for _, one := range snapshots {
				if one.Detail != "" {
					fmt.Fprintln(a.streams.Err, one.Detail)
				}
			}
			return nil
		},
	}
}

func (a *app) snapshotRestoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "bring back what a snapshot holds", ArgsUsage: "NAME SNAPSHOT",
		Description: `The files, the system and the provision become those of the snapshot; name,
addresses, keys, aliases and limits stay. A running container is stopped
meanwhile. What there was before becomes a snapshot of its own, so that this can
be taken back too.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: timeoutUsage, Action: atLeast("timeout", time.Second)},
			lockTimeoutFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			name, snapshot, err := twoNames(c, "snapshot restore", "give a container and one of its snapshots")
			if err != nil {
				return err
			}
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			result, err := manager.RestoreSnapshot(c.Context, name, snapshot, c.Duration("timeout"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = a.printJSON(result)
			} else {
				_, err = fmt.Fprintf(a.streams.Out, "%s: has what is in snapshot %s; what there was before is in snapshot %s\n", name, snapshot, result.Kept)
			}
			if err != nil {
				return err
			}
			return a.unitsOf(name, result.Units)
		},
	}
}

func (a *app) snapshotRemoveCommand() *cli.Command {
	return &cli.Command{
		Name: "remove", Aliases: []string{"rm"}, Usage: "remove a snapshot", ArgsUsage: "NAME SNAPSHOT",
		Flags: []cli.Flag{forceFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			name, snapshot, err := twoNames(c, "snapshot remove", "give a container and one of its snapshots")
			if err != nil {
				return err
			}
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			err = manager.RemoveSnapshot(c.Context, name, snapshot)
			return a.said(c, name, true, "snapshot "+snapshot+" is removed", "", err)
		},
	}
}
