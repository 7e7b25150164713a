package devhost

import (
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/nix"
)

func (a *app) generationsCommand() *cli.Command {
	return &cli.Command{
		Name: "generations", Usage: "list the systems that a container had", ArgsUsage: "NAME",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			generations, err := manager.Profiles.Generations(manager.Registry.Profile(record.Name))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.printJSON(generations)
			}
			table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "GENERATION\tDATE\tSYSTEM\t")
			for _, generation := range generations {
				current := ""
				if generation.Current {
					current = "(current)"
				}
				fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", generation.Number, generation.Time.Local().Format(time.DateTime), generation.Path, current)
			}
			return table.Flush()
		},
	}
}

func (a *app) rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "go back to the system before the current one", ArgsUsage: "NAME",
		Description: `Switches a running container to an older generation, or lets a stopped one start
with it. The next ensure builds what it is asked for, as always.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "to", Usage: "go to generation `NUMBER`"},
			&cli.DurationFlag{Name: "timeout", Value: defaultTimeout, Usage: "how long the switch may take (`DURATION`)", Action: atLeast("timeout", time.Second)},
			lockTimeoutFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			manager, record, err := a.registered(c)
			if err != nil {
				return err
			}
			if c.IsSet("to") && c.Int("to") < 1 {
				return &cliargs.UsageError{Command: "rollback", Err: fmt.Errorf("--to %d: generations are counted from 1", c.Int("to"))}
			}
			generation, err := manager.Rollback(c.Context, record.Name, c.Int("to"), c.Duration("timeout"))
			if err != nil {
				return err
			}
			return a.said(c, record.Name, true, fmt.Sprintf("back at generation %d", generation), "", nil)
		},
	}
}

func (a *app) diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "show what changed between two generations: versions and sizes", ArgsUsage: "NAME [FROM [TO]]",
		Description: "Without numbers, the generation before the current one is compared with the\ncurrent one; with FROM alone, FROM is compared with the current one.",
		Flags:       []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Len() < 1 || c.Args().Len() > 3 {
				return &cliargs.UsageError{Command: "diff", Err: fmt.Errorf("give a container and at most two generations: devhost diff NAME [FROM [TO]]")}
			}
			name := c.Args().First()
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			if _, err := manager.Registry.Load(name); err != nil {
				return err
			}
			generations, err := manager.Profiles.Generations(manager.Registry.Profile(name))
			if err != nil {
				return err
			}
			from, to, err := pickGenerations(name, generations, c.Args().Slice()[1:])
			if err != nil {
				return err
			}
			client := a.nixClient(c)
			before, err := client.QueryClosure(c.Context, from.Path)
			if err != nil {
				return err
			}
			after, err := client.QueryClosure(c.Context, to.Path)
			if err != nil {
				return err
			}
			changes := nix.DiffClosures(before, after)
			if c.Bool("json") {
				return a.printJSON(changes)
			}
			fmt.Fprintf(a.streams.Out, "generation %d -> %d\n", from.Number, to.Number)
			return nix.WriteChanges(a.streams.Out, changes)
		},
	}
}

// pickGenerations finds the two generations that the arguments name.
func pickGenerations(name string, generations []nix.Generation, numbers []string) (from, to nix.Generation, err error) {
	find := func(text string) (nix.Generation, error) {
		number, err := strconv.Atoi(text)
		if err != nil {
			return nix.Generation{}, &cliargs.UsageError{Command: "diff", Err: fmt.Errorf("%q is no number of a generation", text)}
		}
		for _, generation := range generations {
			if generation.Number == number {
				return generation, nil
			}
		}
		return nix.Generation{}, &cliargs.UsageError{Err: fmt.Errorf("container %s has no generation %d; see: devhost generations %s", name, number, name)}
	}
	current := -1
	for i, generation := range generations {
		if generation.Current {
			current = i
		}
	}
	if current < 0 {
		return from, to, fmt.Errorf("container %s has no current generation", name)
	}
	to = generations[current]
	switch len(numbers) {
	case 0:
		if current == 0 {
			return from, to, fmt.Errorf("container %s has no generation before its current one, number %d", name, to.Number)
		}
		return generations[current-1], to, nil
	case 2:
		if to, err = find(numbers[1]); err != nil {
			return from, to, err
		}
	}
	from, err = find(numbers[0])
	return from, to, err
}
