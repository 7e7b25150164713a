// Package hostinstall makes a dev host of a machine: the program, its other
// names, units of systemd, the sudo rules, the group and user that devhost
// needs, and the host's settings. It takes exactly that back.
package hostinstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"devhost/internal/execx"
	"devhost/internal/settings"
	"devhost/packaging"
)

// Where things go, below Installer.Root.
const (
	programFolder = "/usr/local/bin"
	// Program is the path of the installed program.
	Program     = programFolder + "/devhost"
	unitFolder  = "/etc/systemd/system"
	sudoersFile = "/etc/sudoers.d/devhost"
	manifest    = "/etc/devhost-install.json"
	nixosMarker = "/etc/NIXOS"
)

// Links are the further names that the program answers to, beside it.
var Links = []string{"fc-build-dev-container", "fc-devhost", "nixos-container"}

const (
	// group is the one that may use devhost unless settings say otherwise.
	group = "devhost"
	// evaluator is the user that Nix is evaluated as.
	evaluator = "devhost-eval"
)

// bootUnit starts the containers.
const bootUnit = "devhost-boot.service"

// Started are the units that an installed host has running, in the order in
// which they are started.
var Started = []string{bootUnit, "devhost-ingress.service", "devhost-expire.timer"}

// Systemd is what an installation asks of the host's systemd.
type Systemd interface {
	// Reload reads all unit files anew.
	Reload(ctx context.Context) error
	Enable(ctx context.Context, unit string) error
	Disable(ctx context.Context, unit string) error
	// Start and Restart return when the unit is up; the error says why it is
	// not.
	Start(ctx context.Context, unit string) error
	Restart(ctx context.Context, unit string) error
	Stop(ctx context.Context, unit string) error
	// State is such as "active" or "failed", and whether it is enabled.
	State(ctx context.Context, unit string) (active string, enabled bool, err error)
}

// Installer installs devhost on a host, and removes it.
type Installer struct {
	// Root is "/", but for tests.
	Root   string
	Runner execx.Runner
	// Systemd is nil where it is not PID 1: then nothing is started.
	Systemd Systemd
	// Source is the program to install.
	Source string
	// SettingsFile is the path of the host's settings, and Settings what they
	// are.
	SettingsFile string
	Settings     settings.Settings
	// PublicAddress goes into a settings file that is made; "" for none.
	PublicAddress string
	// Sudoers is the text of the sudo rules for an installed program.
	Sudoers func(host settings.Settings, programs []string) (string, error)
	// DryRun changes nothing.
	DryRun bool
	// Say gets a line for everything that is done, or would be.
	Say func(line string)
}

// OnNixOS says that the host's own configuration is to be changed instead.
type OnNixOS struct{}

func (OnNixOS) Error() string {
	return "this is NixOS: its configuration says what is installed; set services.devhost.enable = true there, and switch to it"
}

// Remaining says that containers are left on a host that devhost is to be
// removed from.
type Remaining struct{ Names []string }

func (r *Remaining) Error() string {
	return fmt.Sprintf("%d containers remain (%s): destroy them first, or let them lie on disk, stopped, with --keep", len(r.Names), strings.Join(r.Names, ", "))
}

// State is how a part of the installation is found.
type State string

// The states of a part.
const (
	Absent  State = "missing"
	Differs State = "differs"
	Present State = "installed"
)

// part is one thing that is installed.
type part interface {
	// String names it for people.
	String() string
	// look finds out how it is; detail says what differs.
	look(ctx context.Context) (state State, detail string, err error)
	put(ctx context.Context) error
	// take removes it; kept says why it stays, "" if it does not.
	take(ctx context.Context) (kept string, err error)
}

// path is a path on the host.
func (i *Installer) path(path string) string { return filepath.Join(i.Root, path) }

// parts are all, in the order in which they are put.
func (i *Installer) parts(ctx context.Context) ([]part, error) {
	program, err := os.ReadFile(i.Source)
	if err != nil {
		return nil, fmt.Errorf("cannot read the program that is to be installed: %w", err)
	}
	parts := []part{
		&account{installer: i, kind: "group", name: group, make: []string{"groupadd", "--system", group}, remove: []string{"groupdel", group}},
		&account{installer: i, kind: "passwd", name: evaluator, make: []string{
			"useradd", "--system", "--user-group", "--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin",
			"--comment", "devhost evaluates Nix as this user", evaluator,
		}, remove: []string{"userdel", evaluator}},
		&file{installer: i, path: i.SettingsFile, content: i.settingsText(), mode: 0o644, theirs: true},
		&file{installer: i, path: Program, content: program, mode: 0o755, what: "the program"},
	}
	programs := []string{Program}
	for _, name := range Links {
		link := &link{installer: i, path: filepath.Join(programFolder, name), target: filepath.Base(Program)}
		parts = append(parts, link)
		// Nobody gets to run another program as root.
		if _, detail, err := link.look(ctx); err == nil && detail == "" {
			programs = append(programs, link.path)
		}
	}
	rules, err := i.Sudoers(i.Settings, programs)
	if err != nil {
		return nil, fmt.Errorf("cannot write the sudo rules: %w", err)
	}
	parts = append(parts, &sudoRules{file{installer: i, path: sudoersFile, content: []byte(rules), mode: 0o440}})
	units, err := packaging.Units()
	if err != nil {
		return nil, err
	}
	for _, unit := range units {
		parts = append(parts, &file{installer: i, path: filepath.Join(unitFolder, unit.Name), content: []byte(unit.For(Program)), mode: 0o644})
	}
	return parts, nil
}

func (i *Installer) settingsText() []byte {
	if i.PublicAddress == "" {
		return []byte("{\n  \"version\": 1\n}\n")
	}
	return fmt.Appendf(nil, "{\n  \"version\": 1,\n  \"publicAddress\": %q\n}\n", i.PublicAddress)
}

func (i *Installer) onNixOS() bool {
	_, err := os.Stat(i.path(nixosMarker))
	return err == nil
}

// Install puts everything in place that is not there as it should be, and
// starts what shall run. It can be run again. The error is OnNixOS or says what
// failed; what was done before stays, and the next run goes on from there.
func (i *Installer) Install(ctx context.Context) error {
	if i.onNixOS() {
		return OnNixOS{}
	}
	parts, err := i.parts(ctx)
	if err != nil {
		return err
	}
	changed, units := 0, false
	for _, part := range parts {
		state, detail, err := part.look(ctx)
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", part, err)
		}
		if state == Present {
			if detail != "" {
				i.Say(fmt.Sprintf("%s: %s", part, detail))
			}
			continue
		}
		changed++
		if file, ok := part.(*file); ok && filepath.Dir(file.path) == unitFolder || part.String() == Program {
			units = true
		}
		if i.DryRun {
			i.Say(fmt.Sprintf("would install %s (%s)", part, state))
			continue
		}
		if err := part.put(ctx); err != nil {
			return fmt.Errorf("cannot install %s: %w", part, err)
		}
		i.Say(fmt.Sprintf("installed %s", part))
	}
	started, err := i.start(ctx, units)
	if err != nil {
		return err
	}
	if changed+started == 0 {
		i.Say("everything is installed already")
	}
	return nil
}

// start enables and starts the units; those that run are restarted when the
// program or a unit file has changed.
func (i *Installer) start(ctx context.Context, changed bool) (count int, err error) {
	if i.Systemd == nil {
		i.Say("systemd is not PID 1 here: the units are installed, and nothing is enabled or started")
		return 0, nil
	}
	if changed && !i.DryRun {
		if err := i.Systemd.Reload(ctx); err != nil {
			return 0, err
		}
	}
	for _, unit := range Started {
		active, enabled, err := i.Systemd.State(ctx, unit)
		if err != nil {
			return count, err
		}
		if !enabled {
			if err := i.do(ctx, "enable", unit, i.Systemd.Enable); err != nil {
				return count, err
			}
		}
		switch {
		case active != "active":
			err = i.do(ctx, "start", unit, i.Systemd.Start)
		case changed && unit != bootUnit:
			// The containers of a running host are left alone.
			err = i.do(ctx, "restart", unit, i.Systemd.Restart)
		case enabled:
			continue
		}
		if err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

// past is how people are told that something was done.
var past = map[string]string{"enable": "enabled", "start": "started", "restart": "restarted", "stop": "stopped", "disable": "disabled"}

func (i *Installer) do(ctx context.Context, verb, unit string, action func(context.Context, string) error) error {
	if i.DryRun {
		i.Say(fmt.Sprintf("would %s %s", verb, unit))
		return nil
	}
	if err := action(ctx, unit); err != nil {
		return fmt.Errorf("cannot %s %s: %w; see: journalctl -u %s", verb, unit, err, unit)
	}
	i.Say(past[verb] + " " + unit)
	return nil
}

// Uninstall removes what Install has put, units first. Whoever calls it has
// seen to it that no container runs. State of containers is left alone.
func (i *Installer) Uninstall(ctx context.Context) error {
	if i.onNixOS() {
		return OnNixOS{}
	}
	parts, err := i.parts(ctx)
	if err != nil {
		return err
	}
	if err := i.stop(ctx); err != nil {
		return err
	}
	removed := 0
	for n := len(parts) - 1; n >= 0; n-- {
		part := parts[n]
		state, _, err := part.look(ctx)
		if err != nil {
			return fmt.Errorf("cannot look at %s: %w", part, err)
		}
		if state == Absent {
			continue
		}
		if i.DryRun {
			i.Say(fmt.Sprintf("would remove %s", part))
			continue
		}
		kept, err := part.take(ctx)
		if err != nil {
			return fmt.Errorf("cannot remove %s: %w", part, err)
		}
		if kept != "" {
			i.Say(fmt.Sprintf("left %s: %s", part, kept))
			continue
		}
		removed++
		i.Say(fmt.Sprintf("removed %s", part))
	}
	if i.DryRun {
		return nil
	}
	if err := os.Remove(i.path(manifest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if removed == 0 {
		i.Say("nothing was installed")
		return nil
	}
	if i.Systemd != nil {
		return i.Systemd.Reload(ctx)
	}
	return nil
}

func (i *Installer) stop(ctx context.Context) error {
	if i.Systemd == nil {
		return nil
	}
	for n := len(Started) - 1; n >= 0; n-- {
		unit := Started[n]
		active, enabled, err := i.Systemd.State(ctx, unit)
		if err != nil {
			return err
		}
		if active != "inactive" && active != "" {
			if err := i.do(ctx, "stop", unit, i.Systemd.Stop); err != nil {
				return err
			}
		}
		if enabled {
			if err := i.do(ctx, "disable", unit, i.Systemd.Disable); err != nil {
				return err
			}
		}
	}
	return nil
}

// Part is one part of the installation, for people and in JSON.
type Part struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"`
}

// Unit is one of Started, as systemd has it.
type Unit struct {
	Name    string `json:"name"`
	Active  string `json:"active"`
	Enabled bool   `json:"enabled"`
}

// Status is how the installation is.
type Status struct {
	Parts []Part `json:"parts"`
	// Units is empty where systemd is not PID 1.
	Units []Unit `json:"units"`
}

// Complete says that everything is installed and runs.
func (s Status) Complete() bool {
	for _, part := range s.Parts {
		if part.State != Present {
			return false
		}
	}
	for _, unit := range s.Units {
		if unit.Active != "active" || !unit.Enabled {
			return false
		}
	}
	return true
}

// Look says how the installation is. It changes nothing.
func (i *Installer) Look(ctx context.Context) (Status, error) {
	parts, err := i.parts(ctx)
	if err != nil {
		return Status{}, err
	}
	status := Status{Units: []Unit{}}
	for _, part := range parts {
		state, detail, err := part.look(ctx)
		if err != nil {
			return Status{}, fmt.Errorf("cannot look at %s: %w", part, err)
		}
		status.Parts = append(status.Parts, Part{Name: part.String(), State: state, Detail: detail})
	}
	if i.Systemd == nil {
		return status, nil
	}
	for _, name := range Started {
		active, enabled, err := i.Systemd.State(ctx, name)
		if err != nil {
			return Status{}, err
		}
		status.Units = append(status.Units, Unit{Name: name, Active: active, Enabled: enabled})
	}
	return status, nil
}
