package devhost

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/nix"
	"devhost/internal/registry"
	"devhost/internal/settings"
	"devhost/internal/terminal"
)

// mostSettings bounds what host check reads, in bytes.
const mostSettings = 2 << 20

func (a *app) hostCheckCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check the settings of this host, or those in a file", ArgsUsage: "[FILE]",
		Description: `Says what is wrong in the file, a line each: FILE:LINE:COLUMN: KEY: REASON. It
needs no root for a FILE that can be read. Ends with 2 where the file cannot be
used. docs/settings.md explains all keys; --default prints them with what holds
where a file does not say it. Groups of this host do not matter to a FILE in
the Nix store. --containers checks declared containers, see host
apply: those of this host with its settings, those in FILE with --settings.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "containers", Usage: "check the declared containers of this host, or those in FILE"},
			&cli.PathFlag{Name: "settings", Usage: "with --containers: the `FILE` with the settings that they must fit"},
			&cli.BoolFlag{Name: "json", Usage: "print the settings that hold, as JSON"},
			&cli.BoolFlag{Name: "default", Usage: "print the settings that hold without a file, as JSON"},
		},
		Action: a.hostCheck,
	}
}

func (a *app) hostCheck(c *cli.Context) error {
	if c.Args().Len() > 1 || (c.Bool("default") && (c.Args().Present() || c.Bool("containers"))) {
		return &cliargs.UsageError{Err: errors.New("give one file, or none for that of this host: devhost host check [FILE]")}
	}
	if c.IsSet("settings") && !c.Bool("containers") {
		return &cliargs.UsageError{Err: errors.New("--settings is for --containers; give the file itself: devhost host check FILE")}
	}
	if c.Bool("default") {
		return a.printSettings(settings.Default())
	}
	if c.Bool("containers") {
		return a.checkDeclarations(c)
	}
	found, err := a.settingsOf(c, c.Args().First(), !c.Args().Present())
	if err != nil {
		return err
	}
	switch {
	case a.printProblems(found.path, found.problems):
		return &cliargs.StatusError{Status: cliargs.ExitUsage}
	case c.Bool("json"):
		return a.printSettings(found.Settings)
	case found.missing:
		fmt.Fprintf(a.streams.Out, "%s does not exist: the defaults hold\n", found.path)
	default:
		fmt.Fprintf(a.streams.Out, "%s is good\n", terminal.Line(found.path))
	}
	fmt.Fprint(a.streams.Out, summary(found.Settings))
	if !c.Args().Present() {
		a.printCertificateFindings(found.Ingress)
	}
	return nil
}

// foundSettings are what a file says, with what is wrong in it.
type foundSettings struct {
	settings.Settings
	path     string
	problems []settings.Problem
	// missing says that there is no file, so that these are the defaults.
	missing bool
}

// settingsOf reads the settings in a file, or those of this host.
func (a *app) settingsOf(c *cli.Context, path string, isHosts bool) (foundSettings, error) {
	if isHosts {
		layout, err := a.layout(c)
		if err != nil {
			return foundSettings{}, err
		}
		path = layout.Settings()
	}
	text, missing, err := readSettings(path, isHosts)
	if err != nil {
		return foundSettings{}, err
	}
	found := foundSettings{Settings: settings.Default(), path: path, missing: missing}
	if !missing {
		found.Settings, found.problems = settings.Parse(text)
	}
	found.problems = ofFile(path, found.problems)
	return found, nil
}

// ofFile leaves out what only this host lacks, where the file is for another one
// as well: Nix builds settings in a sandbox, and often on another machine.
func ofFile(path string, problems []settings.Problem) []settings.Problem {
	if !strings.HasPrefix(filepath.Clean(path), nix.StoreDir+"/") {
		return problems
	}
	return slices.DeleteFunc(slices.Clone(problems), func(problem settings.Problem) bool { return problem.OfHost })
}

// printProblems tells whether one of them keeps the file from being used.
func (a *app) printProblems(path string, problems []settings.Problem) (unusable bool) {
	for _, problem := range problems {
		unusable = unusable || !problem.Warning
		// Editors and compilers' output filters know this form.
		fmt.Fprintf(a.streams.Err, "%s:%s\n", terminal.Line(path), problem)
	}
	return unusable
}

// readSettings reads a file with the rights of the person. That of the host
// must be root's, and may be missing.
func readSettings(path string, isHosts bool) (text []byte, missing bool, err error) {
	if isHosts {
		_, err := settings.Load(path)
		var untrusted *settings.Untrusted
		if errors.As(err, &untrusted) {
			return nil, false, &cliargs.HostError{Err: err}
		}
	}
	who, _, err := caller()
	if err != nil {
		return nil, false, err
	}
	text, err = who.ReadFile(path, mostSettings)
	if isHosts && errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot check the settings: %w", err)
	}
	return text, false, nil
}

func (a *app) printSettings(checked settings.Settings) error {
	err := json.MarshalWrite(a.streams.Out, checked, jsontext.WithIndent("  "))
	fmt.Fprintln(a.streams.Out)
	return err
}

// summary is what an admin wants to see at a glance.
func summary(s settings.Settings) string {
	var text strings.Builder
	row := func(key, value string) { fmt.Fprintf(&text, "  %-14s %s\n", key, value) }
	list := func(values []string, none string) string {
		if len(values) == 0 {
			return none
		}
		return strings.Join(values, " ")
	}
	public := s.PublicAddress
	if public == "" {
		public = defaultDomain + " (this machine only)"
	}
	row("reached at", strings.TrimSpace(public+" "+strings.Join(s.Domains, " ")))
	row("certificates", describeTLS(s.Ingress))
	row("allowed groups", list(s.AllowedGroups, "none"))
	row("admins", list(s.AdminGroups, "root alone"))
	row("channels", list(s.AllowedChannels, "any"))
	row("new ones get", describeLimits(registryLimits(s.Defaults)))
	row("at most", describeLimits(registryLimits(s.Maximum)))
	expiry := "never stopped or deleted"
	if s.Expiry.Enable {
		expiry = describeExpiry(s.Expiry)
	}
	row("unused ones", expiry)
	return text.String()
}

func describeTLS(ingress settings.Ingress) string {
	tls := ingressTLS(ingress)
	switch {
	case tls.ACME != nil:
		return "from " + terminal.Line(tls.ACME.URL())
	case len(tls.Files) > 0:
		return fmt.Sprintf("from files (%d)", len(tls.Files))
	}
	return "of an own certificate authority"
}

func describeExpiry(expiry settings.Expiry) string {
	stopped, deleted := "never stopped", "never deleted"
	if expiry.StopAfter > 0 {
		stopped = fmt.Sprintf("stopped after %s", expiry.StopAfter)
	}
	if expiry.DeleteAfter > 0 {
		deleted = fmt.Sprintf("deleted after %s, archived for %s", expiry.DeleteAfter, expiry.ArchiveFor)
		if expiry.ArchiveFor == 0 {
			deleted = fmt.Sprintf("deleted after %s, archived for good", expiry.DeleteAfter)
		}
	}
	return stopped + ", " + deleted
}

func registryLimits(limits settings.Limits) registry.Limits {
	return registry.Limits{
		MemoryBytes: int64(limits.Memory), CPUs: limits.CPUs, Tasks: limits.Tasks, IOWeight: limits.IOWeight, DiskBytes: int64(limits.Disk),
	}
}
