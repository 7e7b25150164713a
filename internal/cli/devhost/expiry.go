package devhost

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"github.com/xhit/go-str2duration/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/expiry"
	"devhost/internal/names"
	"devhost/internal/registry"
)

// Now replaces the clock by which containers expire, for tests.
func Now(now func() time.Time) Option { return func(a *app) { a.now = now } }

const (
	// hostsOwn as a length of time means that the host's settings decide.
	hostsOwn = "host"
	// longestKeep keeps typing errors such as 2206-12-24 out.
	longestKeep = 10 * 365 * 24 * time.Hour
)

// parseDuration reads a length of time such as 14d, 36h or 1w2d.
func parseDuration(flag, text string) (time.Duration, error) {
	parsed, err := str2duration.ParseDuration(text)
	switch {
	case err != nil || parsed <= 0:
		return 0, fmt.Errorf("--%s %q is no length of time; write it as 14d, 36h or 2w", flag, text)
	case parsed > longestKeep:
		return 0, fmt.Errorf("--%s %s is more than ten years; to keep a container for good: devhost keep NAME --forever", flag, text)
	}
	return parsed, nil
}

// parseUntil reads a time in the host's time zone; a day lasts until its end.
func parseUntil(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02 15:04", time.RFC3339} {
		at, err := time.ParseInLocation(form, text, time.Local)
		if err != nil {
			continue
		}
		if form == time.DateOnly {
			at = at.AddDate(0, 0, 1)
		}
		switch {
		case !at.After(now):
			return at, fmt.Errorf("--until %s is over; give a time that is still to come", text)
		case at.Sub(now) > longestKeep:
			return at, fmt.Errorf("--until %s is more than ten years away; to keep a container for good: devhost keep NAME --forever", text)
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("--until %q is no time; write it as 2026-12-24 (to the end of that day), 2026-12-24T18:00 or 2026-12-24T18:00:00+01:00", text)
}

func (a *app) keepCommand() *cli.Command {
	return &cli.Command{
		Name: "keep", Usage: "keep a container from being stopped and deleted", ArgsUsage: "NAME",
		Description: `Containers that nobody deploys to are stopped and, later, archived and deleted.
This puts that off, or changes how long it takes for one container:

  devhost keep demo --for 14d
  devhost keep demo --until 2026-12-24
  devhost keep demo --forever
  devhost keep demo --stop-after 2d --delete-after 90d
  devhost keep demo --stop-after host            as for all others

devhost unkeep takes --for, --until and --forever back.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Usage: "from now on for this `TIME`, such as 14d, 36h or 2w"},
			&cli.StringFlag{Name: "until", Usage: "until then: `DATE`, such as 2026-12-24 or 2026-12-24T18:00"},
			&cli.BoolFlag{Name: "forever", Usage: "it never expires"},
			&cli.StringFlag{Name: "stop-after", Usage: "stop it this `TIME` after its last deployment; 'host' for that of the host"},
			&cli.StringFlag{Name: "delete-after", Usage: "delete it this `TIME` after its last deployment; 'host' for that of the host"},
			forceFlag(), lockTimeoutFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			name, err := oneName(c)
			if err != nil {
				return err
			}
			change, err := keepChange(c, a.now())
			if err != nil {
				return &cliargs.UsageError{Command: "keep", Err: err}
			}
			return a.changeExpiry(c, name, change)
		},
	}
}

func keepChange(c *cli.Context, now time.Time) (expiry.Change, error) {
	var change expiry.Change
	ways := 0
	for _, flag := range []string{"for", "until", "forever"} {
		if c.IsSet(flag) {
			ways++
		}
	}
	if ways > 1 {
		return change, errors.New("--for, --until and --forever exclude each other; give one of them")
	}
	if ways == 0 && !c.IsSet("stop-after") && !c.IsSet("delete-after") {
		return change, errors.New("say how long: devhost keep NAME --for 14d, --until 2026-12-24 or --forever")
	}
	if ways > 0 {
		var until time.Time
		var err error
		switch {
		case c.IsSet("for"):
			var length time.Duration
			length, err = parseDuration("for", c.String("for"))
			until = now.Add(length)
		case c.IsSet("until"):
			until, err = parseUntil(c.String("until"), now)
		}
		if err != nil {
			return change, err
		}
		until = until.UTC()
		forever := c.Bool("forever")
		change.KeepUntil, change.Off = &until, &forever
		if forever {
			change.KeepUntil = &time.Time{}
		}
	}
	for flag, field := range map[string]**time.Duration{"stop-after": &change.StopAfter, "delete-after": &change.DeleteAfter} {
		if !c.IsSet(flag) {
			continue
		}
		var length time.Duration
		if text := c.String(flag); text != hostsOwn {
			var err error
			if length, err = parseDuration(flag, text); err != nil {
				return change, err
			}
			const least = time.Hour
			if length < least {
				return change, fmt.Errorf("--%s %s: give at least 1h, so that there is time for a warning", flag, text)
			}
		}
		*field = &length
	}
	return change, nil
}

func (a *app) unkeepCommand() *cli.Command {
	return &cli.Command{
		Name: "unkeep", Usage: "let a container expire as all others do", ArgsUsage: "NAME",
		Description: `Takes back what devhost keep --for, --until or --forever did. Before the container
is stopped or deleted, people are warned in any case.`,
		Flags: []cli.Flag{forceFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			name, err := oneName(c)
			if err != nil {
				return err
			}
			return a.changeExpiry(c, name, expiry.Change{KeepUntil: &time.Time{}, Off: new(bool)})
		},
	}
}

func (a *app) changeExpiry(c *cli.Context, name string, change expiry.Change) error {
	manager, err := a.managerFor(c, name)
	if err != nil {
		return err
	}
	if _, err := manager.Registry.Load(name); err != nil {
		return err
	}
	timeout := c.Duration("lock-timeout")
	kept, err := expiry.Apply(c.Context, manager, manager.Settings.Expiry, name, change, timeout)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		entry := listed{Name: name}
		entry.addOutlook(kept.Outlook)
		return a.printJSON(map[string]any{
			"name": name, "keepUntil": entry.KeepUntil, "keptForever": entry.KeptForever, "expiresStop": entry.ExpiresStop, "expiresDelete": entry.ExpiresDelete,
		})
	}
	fmt.Fprintf(a.streams.Out, "%s: %s\n", name, describeOutlook(kept.Outlook))
	if !kept.Running {
		how := ""
		if !kept.Record.Expiry.StoppedAt.IsZero() {
			how = " (it expired on " + expiry.Format(kept.Record.Expiry.StoppedAt) + ")"
		}
		fmt.Fprintf(a.streams.Err, "Container %s is stopped%s; start it: devhost start %s\n", name, how, name)
	}
	return nil
}

// describeOutlook is what lies before a container, in one line.
func describeOutlook(outlook expiry.Outlook) string {
	var parts []string
	if outlook.Forever {
		return "never expires"
	}
	if !outlook.Kept.IsZero() {
		parts = append(parts, "kept until "+expiry.Format(outlook.Kept))
	}
	if !outlook.Stop.IsZero() {
		parts = append(parts, "stopped on "+expiry.Format(outlook.Stop))
	}
	if !outlook.Delete.IsZero() {
		parts = append(parts, "deleted on "+expiry.Format(outlook.Delete))
	}
	if len(parts) == 0 {
		return "never expires"
	}
	return strings.Join(parts, ", ")
}

// addOutlook adds what lies before a container to what list and status say.
func (l *listed) addOutlook(outlook expiry.Outlook) {
	l.ExpiresStop, l.ExpiresDelete, l.KeepUntil = timeOrNil(outlook.Stop), timeOrNil(outlook.Delete), timeOrNil(outlook.Kept)
	l.KeptForever, l.Warnings = outlook.Forever, outlook.Warnings
}

func timeOrNil(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC()
	return &at
}

// expires is the cell of list: what happens next, with a mark where people are
// to know.
func (l *listed) expires(now time.Time) string {
	var text string
	switch {
	case l.Status == "broken":
		return "-"
	case l.KeptForever:
		return "never"
	case l.ExpiresStop != nil && (l.ExpiresDelete == nil || l.ExpiresStop.Before(*l.ExpiresDelete)):
		text = "stop " + inTime(*l.ExpiresStop, now)
	case l.ExpiresDelete != nil:
		text = "delete " + inTime(*l.ExpiresDelete, now)
	default:
		return "never"
	}
	if len(l.Warnings) > 0 {
		text += " !"
	}
	return text
}

func inTime(at, now time.Time) string {
	if !at.After(now) {
		return "now"
	}
	return "in " + strings.ToLower(units.HumanDuration(at.Sub(now)))
}

func (a *app) expireCommand() *cli.Command {
	return &cli.Command{
		Name: "expire", Usage: "warn about, stop and delete containers that nobody deploys to (a timer runs this)",
		Description: `Goes over all containers. When it is time for one, people are warned; later it is
stopped; in the end it is archived and deleted. A container in which somebody is
logged in or runs a command is never stopped: they are told, and it is tried again
the next time. How long each takes is in the host's settings.`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only say what would be done"}, jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			if !manager.Settings.Expiry.Enable && !c.Bool("json") {
				fmt.Fprintln(a.streams.Err, "Containers do not expire on this host: expiry.enable is off in its settings.")
			}
			entrance := a.entrance(manager.Engine)
			sweep := expiry.Sweep{
				Manager: manager, Settings: manager.Settings.Expiry, Now: a.now, DryRun: c.Bool("dry-run"),
				Use: func(name string) (enter.Use, error) {
					guest, err := entrance.Guest(name)
					if err != nil {
						return enter.Use{}, err
					}
					record, err := manager.Registry.Load(name)
					if err != nil {
						return enter.Use{}, err
					}
					return enter.InUse(guest, record.Address.OnHostSSH())
				},
				OnEvent: func(event expiry.Event) { a.sweeped(c, event) },
			}
			events, err := sweep.Run(c.Context)
			if c.Bool("json") {
				return errors.Join(a.printJSON(events), err)
			}
			return err
		},
	}
}

// sweeped says and writes down what became of a container.
func (a *app) sweeped(c *cli.Context, event expiry.Event) {
	written := map[expiry.Action]bool{expiry.WarnStop: true, expiry.Stop: true, expiry.WarnDelete: true, expiry.Delete: true, expiry.DropArchive: true}
	if written[event.Action] && !c.Bool("dry-run") {
		a.auditAction(c, "expire "+string(event.Action), event.Name, event.Began, event.Err)
	}
	if c.Bool("json") {
		return
	}
	text := event.Text
	if event.Action == expiry.Delete && !event.At.IsZero() && event.Err == nil {
		text += "; until " + expiry.Format(event.At) + " it comes back with: devhost undelete " + event.Name
	}
	if c.Bool("dry-run") {
		text += " (dry run)"
	}
	if event.Error != "" {
		fmt.Fprintf(a.streams.Err, "%s: not done: %s: %s\n", event.Name, text, event.Error)
		return
	}
	fmt.Fprintf(a.streams.Out, "%s: %s\n", event.Name, text)
}

func (a *app) undeleteCommand() *cli.Command {
	return &cli.Command{
		Name: "undelete", Usage: "bring back a container that has expired", ArgsUsage: "NAME",
		Description: `Makes a container of the newest archive of that name, with all its files and keys,
and starts it. Its addresses may be new. The archive goes when the container is
back. Snapshots of the container are not in its archive.

  devhost undelete --list
  devhost undelete demo
  devhost undelete demo --as demo-old`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "list", Aliases: []string{"l"}, Usage: "list the archives, of all names or of NAME"},
			&cli.StringFlag{Name: "as", Usage: "give the container this `NAME`"},
			&cli.StringFlag{Name: "archive", Usage: "take the archive with this `ID`, as --list shows it"},
			&cli.BoolFlag{Name: "no-start", Usage: "leave the container stopped, such as one that does not come up any more"},
			startTimeoutFlag(), forceFlag(), lockTimeoutFlag(), jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.Bool("list") {
				return a.listArchives(c)
			}
			name, err := oneName(c)
			if err != nil {
				return err
			}
			if c.IsSet("as") {
				if err := names.Container(c.String("as")); err != nil {
					return err
				}
			}
			manager, err := a.managerFor(c, name)
			if err != nil {
				return err
			}
			result, err := manager.Undelete(c.Context, container.UndeleteRequest{Name: name, As: c.String("as"), ID: c.String("archive"), NoStart: c.Bool("no-start"), Timeout: c.Duration("timeout")})
			if err != nil {
				return err
			}
			for _, warning := range result.Warnings {
				fmt.Fprintf(a.streams.Err, "devhost: warning: %s\n", warning)
			}
			if err := a.said(c, result.Container.Name, true, "is back", "", nil); err != nil || len(result.Units) == 0 {
				return err
			}
			printUnits(a.streams.Err, result.Container.Name, result.Units)
			return degradedError{}
		},
	}
}

// archived is one archive in the output of undelete --list.
type archived struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	ArchivedAt *time.Time `json:"archivedAt,omitempty"`
	// KeptUntil is missing where archives are kept for good.
	KeptUntil *time.Time `json:"keptUntil,omitempty"`
	Owner     string     `json:"owner,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Bytes     int64      `json:"bytes,omitempty"`
	// Problem says why it cannot be used.
	Problem string `json:"problem,omitempty"`
}

func (a *app) listArchives(c *cli.Context) error {
	name := c.Args().First()
	if c.Args().Len() > 1 {
		return &cliargs.UsageError{Command: "undelete", Err: errors.New("give one name at most: devhost undelete --list [NAME]")}
	}
	if name != "" {
		if err := names.Container(name); err != nil {
			return err
		}
	}
	manager, err := a.manager(c)
	if err != nil {
		return err
	}
	entries, err := manager.Registry.ListArchives(name)
	if err != nil {
		return err
	}
	archives := make([]archived, 0, len(entries))
	for _, entry := range entries {
		one := archived{Name: entry.Name, ID: entry.ID}
		if entry.Err != nil {
			one.Problem = entry.Err.Error()
		} else {
			one.ArchivedAt, one.Owner, one.Reason, one.Bytes = &entry.Archive.ArchivedAt, entry.Archive.Record.Owner, entry.Archive.Reason, entry.Archive.Bytes
			if keep := time.Duration(manager.Settings.Expiry.ArchiveFor); keep > 0 {
				one.KeptUntil = timeOrNil(entry.Archive.ArchivedAt.Add(keep))
			}
		}
		archives = append(archives, one)
	}
	return a.printArchives(c, archives)
}

func (a *app) printArchives(c *cli.Context, archives []archived) error {
	if c.Bool("json") {
		return a.printJSON(archives)
	}
	if len(archives) == 0 {
		fmt.Fprintln(a.streams.Err, "There are no archives.")
		return nil
	}
	table := tabwriter.NewWriter(a.streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tARCHIVE\tSIZE\tOWNER\tKEPT UNTIL\tWHY")
	for _, one := range archives {
		size, kept := "-", "-"
		if one.Problem == "" {
			size = units.BytesSize(float64(one.Bytes))
		}
		if one.KeptUntil != nil {
			kept = expiry.Format(*one.KeptUntil)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", one.Name, one.ID, size, cliargs.OrDash(one.Owner), kept, cliargs.OrDash(one.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, one := range archives {
		if one.Problem != "" {
			fmt.Fprintf(a.streams.Err, "%s: %s\n", one.Name, one.Problem)
		}
	}
	return nil
}

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name: "prune", Usage: "remove what nothing uses: old generations, archives past their time, leftovers",
		Description: `Removes old generations of systems, archives whose time is over, roots of the
garbage collector that belong to nothing any more, and what interrupted commands
left. Store paths that nothing else keeps are removed by the next garbage
collection of the host: nix-collect-garbage.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only say what would be removed"},
			&cli.IntFlag{Name: "keep-generations", Value: 2, Usage: "keep this `NUMBER` of generations beside the current one"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Int("keep-generations") < 0 {
				return &cliargs.UsageError{Command: "prune", Err: fmt.Errorf("--keep-generations %d: give 0 or more", c.Int("keep-generations"))}
			}
			manager, err := a.manager(c)
			if err != nil {
				return err
			}
			pruned, err := manager.Prune(c.Context, container.PruneRequest{
				Generations: c.Int("keep-generations"), ArchiveFor: time.Duration(manager.Settings.Expiry.ArchiveFor), DryRun: c.Bool("dry-run"),
			})
			return errors.Join(a.printPruned(c, pruned), err)
		},
	}
}

func (a *app) printPruned(c *cli.Context, pruned []container.Pruned) error {
	if c.Bool("json") {
		if pruned == nil {
			pruned = []container.Pruned{}
		}
		return a.printJSON(pruned)
	}
	verb, store := "removed", false
	if c.Bool("dry-run") {
		verb = "would be removed"
	}
	var bytes int64
	for _, one := range pruned {
		subject := one.Text
		if one.Name != "" {
			subject = one.Name + ": " + one.Text
		}
		fmt.Fprintf(a.streams.Out, "%s: %s %s\n", one.Kind, subject, verb)
		bytes += one.Bytes
		store = store || one.Bytes == 0
	}
	if len(pruned) == 0 {
		fmt.Fprintln(a.streams.Err, "There is nothing to remove.")
		return nil
	}
	fmt.Fprintf(a.streams.Err, "%d things %s, %s on the disk.\n", len(pruned), verb, units.BytesSize(float64(bytes)))
	if store && !c.Bool("dry-run") {
		fmt.Fprintln(a.streams.Err, "What these kept in the store is removed by: nix-collect-garbage")
	}
	return nil
}

// destroyArchived is destroy --archive.
func (a *app) destroyArchived(c *cli.Context, manager *container.Manager, name string) error {
	_, login, err := caller()
	if err != nil {
		return err
	}
	_, err = manager.DestroyArchived(c.Context, name, "destroyed by "+login)
	return err
}

// outlook is what lies before a listed container.
func (a *app) outlook(manager *container.Manager, record *registry.Container, running bool) expiry.Outlook {
	return expiry.Look(record, manager.Settings.Expiry, running, a.now())
}

// expiryWarnings are what is near for a container, if there is one.
func (a *app) expiryWarnings(manager *container.Manager, name string) []string {
	record, err := manager.Registry.Load(name)
	if err != nil {
		return nil
	}
	state, err := manager.Engine.State(name)
	return a.outlook(manager, record, err == nil && state.Status == engine.Running).Warnings
}

// expiryNews is what ensure says about what was near before and is near now.
func (a *app) expiryNews(manager *container.Manager, record *registry.Container, before []string) []string {
	outlook := a.outlook(manager, record, true)
	if len(outlook.Warnings) > 0 {
		return []string{strings.Join(outlook.Warnings, ", ") + "; " + expiry.Remedy(record.Name)}
	}
	if len(before) > 0 {
		return []string{fmt.Sprintf("%s was about to expire; this deployment puts that off: %s", record.Name, describeOutlook(outlook))}
	}
	return nil
}

// mentionArchive adds to the error about a missing container that there was
// one.
func mentionArchive(manager *container.Manager, err error) error {
	var missing *registry.NotRegistered
	if !errors.As(err, &missing) {
		return err
	}
	if archives, listErr := manager.Registry.ListArchives(missing.Name); listErr != nil || len(archives) == 0 {
		return err
	}
	return fmt.Errorf("%w; an archived one comes back with: devhost undelete %s", err, missing.Name)
}
