package devhost

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/urfave/cli/v2"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/settings"
	"devhost/internal/terminal"
)

func (a *app) hostApplyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "make the containers that the configuration of this host declares, and remove those that it declares no more", ArgsUsage: "[FILE]",
		Description: `FILE holds all declared containers, as JSON; without one it is that of this host,
/etc/devhost-containers.json (with another --state-dir, containers.json there). A
container is made, or brought up to date in place, when its declaration changed;
else it is left alone. One that was declared by the last file and is not in this
one is stopped, archived and removed. Containers that people made are never
touched. One that fails keeps no other from being done. docs/settings.md explains
all keys.`,
		Flags:  []cli.Flag{startTimeoutFlag(), lockTimeoutFlag(), jsonFlag()},
		Action: a.hostApply,
	}
}

// declarationsFile is the file that the command line names, as an absolute path.
func (a *app) declarationsFile(c *cli.Context) (string, error) {
	if c.Args().Len() > 1 {
		return "", &cliargs.UsageError{Err: errors.New("give one file, or none for that of this host")}
	}
	if c.Args().Present() {
		return filepath.Abs(c.Args().First())
	}
	layout, err := a.layout(c)
	return layout.Declarations(), err
}

func (a *app) checkDeclarations(c *cli.Context) error {
	path, err := a.declarationsFile(c)
	if err != nil {
		return err
	}
	text, missing, err := readSettings(path, false)
	if err != nil || missing {
		return err
	}
	host, err := a.settingsFor(c)
	if err != nil {
		return err
	}
	declared, problems := settings.ParseDeclarations(text, host)
	switch {
	case a.printProblems(path, problems):
		return &cliargs.StatusError{Status: cliargs.ExitUsage}
	case c.Bool("json"):
		err := json.MarshalWrite(a.streams.Out, declared, jsontext.WithIndent("  "))
		fmt.Fprintln(a.streams.Out)
		return err
	}
	fmt.Fprintf(a.streams.Out, "%s is good; containers in it: %d\n", terminal.Line(path), len(declared.Containers))
	return nil
}

// settingsFor are the settings that declared containers must fit: those of the
// file that --settings names, else of this host for its own containers, else nil.
func (a *app) settingsFor(c *cli.Context) (*settings.Settings, error) {
	path := c.String("settings")
	if path == "" && c.Args().Present() {
		return nil, nil
	}
	found, err := a.settingsOf(c, path, path == "")
	if err != nil {
		return nil, err
	}
	errorsOnly := slices.DeleteFunc(found.problems, func(problem settings.Problem) bool { return problem.Warning })
	if a.printProblems(found.path, errorsOnly) {
		return nil, &cliargs.StatusError{Status: cliargs.ExitUsage}
	}
	return &found.Settings, nil
}

func (a *app) hostApply(c *cli.Context) error {
	path, err := a.declarationsFile(c)
	if err != nil {
		return err
	}
	manager, err := a.manager(c)
	if err != nil {
		return err
	}
	declared, err := settings.LoadDeclarations(path)
	var invalid *settings.InvalidDeclarations
	if errors.As(err, &invalid) {
		return &cliargs.UsageError{Err: err}
	}
	if err != nil {
		return &cliargs.HostError{Err: err}
	}
	results, err := manager.Apply(c.Context, container.ApplyRequest{
		Declarations: declared, File: path, Timeout: c.Duration("timeout"),
		OnApplied: func(applied container.Applied) { a.printApplied(c, applied) },
	})
	if err != nil {
		return err
	}
	return a.afterApply(c, results)
}

// printApplied says and writes down what became of one container.
func (a *app) printApplied(c *cli.Context, applied container.Applied) {
	for _, warning := range applied.Warnings {
		fmt.Fprintf(a.streams.Err, "devhost: warning: %s\n", warning)
	}
	if applied.Err != nil {
		fmt.Fprintf(a.streams.Err, "devhost: %s: %v\n", applied.Name, applied.Err)
	} else if !c.Bool("json") {
		fmt.Fprintf(a.streams.Out, "%s: %s\n", applied.Name, applied.Result)
	}
	if len(applied.Units) > 0 {
		printUnits(a.streams.Err, applied.Name, applied.Units)
	}
	if applied.Result != container.Untouched {
		a.auditAction(c, "host apply", applied.Name, applied.Began, applied.Err)
	}
}

func (a *app) afterApply(c *cli.Context, results []container.Applied) error {
	type row struct {
		Name     string           `json:"name"`
		Result   string           `json:"result"`
		Error    string           `json:"error,omitempty"`
		Units    []container.Unit `json:"units,omitempty"`
		Warnings []string         `json:"warnings,omitempty"`
	}
	rows := []row{}
	failed, degraded := 0, false
	for _, result := range results {
		line := row{Name: result.Name, Result: string(result.Result), Units: result.Units, Warnings: result.Warnings}
		if result.Err != nil {
			line.Error = result.Err.Error()
			failed++
		}
		degraded = degraded || len(result.Units) > 0
		rows = append(rows, line)
	}
	if c.Bool("json") {
		if err := a.printJSON(rows); err != nil {
			return err
		}
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d containers are not what the configuration of this host declares", failed, len(results))
	case degraded:
		return degradedError{}
	}
	return nil
}
