package devhost

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/audit"
	"devhost/internal/channel"
	"devhost/internal/cli/cliargs"
	"devhost/internal/person"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// rule says what a command is, and so who may run it and what is written down.
type rule int

const (
	// reads changes nothing.
	reads rule = 1 << iota
	// changes is written down: who, what, when, and the result.
	changes
	// uses enters a container; it is written down, without the arguments of
	// what runs there.
	uses
	// forAdmins is for root, and for people who may be root anyway.
	forAdmins
	// open is for everybody; what needs root finds that out by itself.
	open
	// anySettings works also where the host's settings cannot be used: these
	// must never keep anybody from looking, stopping and removing.
	anySettings
)

// rules has every command, by its full name.
var rules = map[string]rule{
	"ensure":           changes,
	"list":             reads | anySettings,
	"status":           reads | anySettings,
	"ip":               reads | anySettings,
	"start":            changes,
	"stop":             changes | anySettings,
	"restart":          changes,
	"destroy":          changes | anySettings,
	"exec":             uses | anySettings,
	"shell":            uses | anySettings,
	"ssh":              uses | anySettings,
	"ssh-config":       uses | anySettings,
	"logs":             reads | anySettings,
	"generations":      reads | anySettings,
	"rollback":         changes,
	"clone":            changes,
	"rename":           changes,
	"snapshot":         reads | open | anySettings,
	"snapshot create":  changes,
	"snapshot list":    reads | anySettings,
	"snapshot restore": changes,
	"snapshot remove":  changes | anySettings,
	"keep":             changes,
	"unkeep":           changes,
	"undelete":         changes,
	"expire":           changes | forAdmins,
	"prune":            changes | forAdmins,
	"diff":             reads | anySettings,
	"ingress":          reads | forAdmins,
	"doctor":           reads | open | anySettings,
	"completion":       reads | open | anySettings,
	"man":              reads | open | anySettings,
	"repair":           reads | forAdmins | anySettings,
	"supervise":        reads | forAdmins | anySettings,
	"refresh":          reads | forAdmins | anySettings,
	"boot":             changes | forAdmins | anySettings,
	"host":             reads | open | anySettings,
	"host check":       reads | open | anySettings,
	"host apply":       changes | forAdmins,
	"host install":     changes | forAdmins,
	"host uninstall":   changes | forAdmins | anySettings,
	"host status":      reads | open | anySettings,

	"fc-build-dev-container ensure":  changes,
	"fc-build-dev-container destroy": changes | anySettings,
	"fc-devhost ensure":              changes,
	"fc-devhost destroy":             changes | anySettings,
	"fc-devhost list":                reads | open | anySettings,
	"nixos-container list":           reads | open | anySettings,
	"nixos-container status":         reads | anySettings,
	"nixos-container start":          changes,
	"nixos-container stop":           changes | anySettings,
	"nixos-container run":            uses | anySettings,
	"nixos-container destroy":        changes | anySettings,
}

// NotAllowed says that a person may not do something here.
type NotAllowed struct{ Login, What, Remedy string }

func (n *NotAllowed) Error() string {
	return fmt.Sprintf("%s may not %s; %s", n.Login, n.What, n.Remedy)
}

// guard puts the rules around every command.
func (a *app) guard(commands []*cli.Command, above string) {
	for _, command := range commands {
		path := above + command.Name
		if command.Action != nil {
			command.Action = a.guarded(path, command.Action)
		}
		a.guard(command.Subcommands, path+" ")
	}
}

// guarded is a command's action for those who may run it; what it changed is
// written down. A command without a rule counts as one for admins.
func (a *app) guarded(path string, action cli.ActionFunc) cli.ActionFunc {
	rule, known := rules[path]
	if !known {
		rule = changes | forAdmins
	}
	return func(c *cli.Context) error {
		// Without root nothing can be changed, and each command says so.
		if os.Geteuid() != 0 {
			return action(c)
		}
		began := time.Now()
		// Who destroys the last container of a state folder could not name it
		// afterwards.
		if layout, err := a.layout(c); err == nil {
			a.auditPath, a.stateMarker = layout.Audit(), layout.Marker()
		}
		refusal := a.admit(c, path, rule)
		err := refusal
		if refusal == nil {
			err = action(c)
		}
		if rule&(changes|uses) != 0 || refusal != nil {
			a.writeDown(c, path, rule, began, err)
		}
		return err
	}
}

// admit tells whether the person may run the command now.
func (a *app) admit(c *cli.Context, path string, rule rule) error {
	if rule&open != 0 {
		return nil
	}
	layout, err := a.layout(c)
	if err != nil {
		return err
	}
	speaker, _, err := caller()
	if err != nil {
		return err
	}
	host, unusable := a.hostSettings(layout)
	if err := admitted(speaker, host, path, rule); err != nil {
		return err
	}
	if unusable != nil && rule&anySettings == 0 {
		return &cliargs.HostError{Err: unusable}
	}
	return nil
}

// admitted tells whether the settings let a person run a command.
func admitted(speaker person.Person, host settings.Settings, path string, rule rule) error {
	switch {
	case speaker.UID == 0 || speaker.InGroup(host.AdminGroups...):
		return nil
	case rule&forAdmins != 0:
		return &NotAllowed{Login: speaker.Login, What: fmt.Sprintf("run devhost %s, which is for admins of this host", path), Remedy: "ask one of them"}
	case speaker.InGroup(host.AllowedGroups...):
		return nil
	}
	remedy := "an admin of this host can allow it, by allowedGroups of its settings"
	if len(host.AllowedGroups) > 0 {
		group := host.AllowedGroups[0]
		remedy = fmt.Sprintf("being in one of the groups %s would allow it; an admin of this host sees to that with: groupadd --force --system %s && usermod --append --groups %s %s",
			strings.Join(host.AllowedGroups, ", "), group, group, speaker.Login)
	}
	return &NotAllowed{Login: speaker.Login, What: "use devhost on this host", Remedy: remedy}
}

// admitElsewhere tells whether the person may run another program of the host by
// way of devhost, with the rights that devhost has.
func (a *app) admitElsewhere(program string) error {
	speaker, _, err := caller()
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	layout, err := registry.NewLayout(registry.DefaultStateDir)
	if err != nil {
		return err
	}
	host, _ := a.hostSettings(layout)
	if speaker.UID == 0 || speaker.InGroup(host.AdminGroups...) {
		return nil
	}
	return &NotAllowed{Login: speaker.Login, What: fmt.Sprintf("run %s as root", program), Remedy: "that is for admins of this host; ask one of them"}
}

// hostSettings are the settings of the host, read once. With an error, what
// could be read of them holds.
func (a *app) hostSettings(layout registry.Layout) (settings.Settings, error) {
	if a.settings == nil {
		loaded, err := settings.Load(layout.Settings())
		a.settings, a.settingsErr = &loaded, err
	}
	return *a.settings, a.settingsErr
}

// writeDown adds a command to the audit log. That it cannot does not undo what
// was done.
func (a *app) writeDown(c *cli.Context, path string, rule rule, began time.Time, err error) {
	entry := audit.Entry{
		Time: began.UTC(), Operation: path, Containers: containersOf(c), Options: optionsOf(c, rule),
		ExitCode: exitCode(c.Context, err), Error: firstLine(err), Milliseconds: time.Since(began).Milliseconds(),
	}
	a.addToLog(c, entry)
}

// auditAction writes down one action of a command that does many, such as each
// container that devhost expire stops.
func (a *app) auditAction(c *cli.Context, operation, container string, began time.Time, err error) {
	a.addToLog(c, audit.Entry{
		Time: began.UTC(), Operation: operation, Containers: []string{container},
		ExitCode: exitCode(c.Context, err), Error: firstLine(err), Milliseconds: time.Since(began).Milliseconds(),
	})
}

func (a *app) addToLog(c *cli.Context, entry audit.Entry) {
	if speaker, login, err := caller(); err == nil {
		entry.Who = audit.Who{Login: login, UID: speaker.UID, Via: person.Via()}
	}
	log := audit.Log{Largest: audit.DefaultLargest, Send: audit.HostLog()}
	// The folder is not made for this, and one that cannot be trusted is left
	// alone.
	if _, err := os.Lstat(a.stateMarker); err == nil {
		log.Path = a.auditPath
	}
	if err := log.Write(c.Context, entry); err != nil {
		fmt.Fprintf(a.streams.Err, "devhost: warning: %v\n", err)
	}
}

func firstLine(err error) string {
	var status *cliargs.StatusError
	if err == nil || errors.As(err, &status) {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// containersOf are the arguments that name containers.
func containersOf(c *cli.Context) []string {
	arguments, names := c.Args().Slice(), 0
	for _, word := range strings.Fields(c.Command.ArgsUsage) {
		switch word {
		case "NAME...":
			names = len(arguments)
		case "NAME", "NEW":
			names++
		default:
			return arguments[:min(names, len(arguments))]
		}
	}
	return arguments[:min(names, len(arguments))]
}

// optionsOf are the options and arguments of a command but for the containers'
// names. What a command inside is told may hold secrets: only its own name is
// kept.
func optionsOf(c *cli.Context, rule rule) []string {
	var options []string
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if rule&uses != 0 && name != "user" {
			continue
		}
		if c.IsSet(name) {
			options = append(options, fmt.Sprintf("--%s=%s", name, channel.HideSecret(fmt.Sprint(valueOf(c, name)))))
		}
	}
	slices.Sort(options)
	arguments := c.Args().Slice()[len(containersOf(c)):]
	if rule&uses != 0 {
		if len(arguments) > 0 && arguments[0] == "--" {
			arguments = arguments[1:]
		}
		arguments = arguments[:min(1, len(arguments))]
	}
	for _, argument := range arguments {
		options = append(options, channel.HideSecret(argument))
	}
	return options
}

// valueOf is the value of a flag as it was given.
func valueOf(c *cli.Context, name string) any {
	if list := c.StringSlice(name); list != nil {
		return strings.Join(list, " ")
	}
	return c.Value(name)
}

// forceFlag lets a person do away with what belongs to somebody else.
func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "also when it belongs to somebody else"}
}
