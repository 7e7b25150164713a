package hostinstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/settings"
)

// commands are the programs of a host: accounts are in memory.
type commands struct {
	t        *testing.T
	accounts map[string]bool
	// badRules lets visudo refuse.
	badRules bool
}

func (c *commands) Output(_ context.Context, command execx.Command) ([]byte, error) {
	last := command.Args[len(command.Args)-1]
	switch command.Name {
	case "getent":
		if !c.accounts[command.Args[0]+" "+last] {
			return nil, &execx.Error{Argv: command.Argv(), ExitCode: 2}
		}
	case "groupadd":
		c.accounts["group "+last] = true
	case "useradd":
		c.accounts["passwd "+last] = true
	case "groupdel":
		delete(c.accounts, "group "+last)
	case "userdel":
		delete(c.accounts, "passwd "+last)
	case "visudo":
		if c.badRules {
			return nil, &execx.Error{Argv: command.Argv(), ExitCode: 1, Tail: []string{"syntax error"}}
		}
	default:
		c.t.Errorf("unexpected command: %s", execx.Quote(command.Argv()))
	}
	return nil, nil
}

func (c *commands) Run(ctx context.Context, command execx.Command) error {
	_, err := c.Output(ctx, command)
	return err
}

func (c *commands) Start(command execx.Command) (execx.Process, error) {
	c.t.Errorf("unexpected command: %s", execx.Quote(command.Argv()))
	return nil, errors.New("unexpected command")
}

// units is a systemd in memory.
type units struct {
	active  map[string]string
	enabled map[string]bool
	// done are the calls that change something.
	done []string
	// failing is a unit that cannot be started.
	failing string
}

func (u *units) note(verb, unit string) error {
	u.done = append(u.done, strings.TrimSpace(verb+" "+unit))
	return nil
}

func (u *units) Reload(context.Context) error { return u.note("reload", "") }

func (u *units) Enable(_ context.Context, unit string) error {
	u.enabled[unit] = true
	return u.note("enable", unit)
}

func (u *units) Disable(_ context.Context, unit string) error {
	delete(u.enabled, unit)
	return u.note("disable", unit)
}

func (u *units) Start(_ context.Context, unit string) error {
	if unit == u.failing {
		return errors.New("its job ended as \"failed\"")
	}
	u.active[unit] = "active"
	return u.note("start", unit)
}

func (u *units) Restart(_ context.Context, unit string) error { return u.note("restart", unit) }

func (u *units) Stop(_ context.Context, unit string) error {
	u.active[unit] = "inactive"
	return u.note("stop", unit)
}

func (u *units) State(_ context.Context, unit string) (string, bool, error) {
	active := u.active[unit]
	if active == "" {
		active = "inactive"
	}
	return active, u.enabled[unit], nil
}

// machine is a host in a folder.
type machine struct {
	*Installer
	t        *testing.T
	commands *commands
	units    *units
	said     []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := t.TempDir()
	for _, folder := range []string{"/etc/sudoers.d", programFolder} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := filepath.Join(t.TempDir(), "devhost")
	if err := os.WriteFile(source, []byte("program 1"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &machine{
		t:        t,
		commands: &commands{t: t, accounts: map[string]bool{}},
		units:    &units{active: map[string]string{}, enabled: map[string]bool{}},
	}
	m.Installer = &Installer{
		Root: root, Runner: m.commands, Systemd: m.units, Source: source,
		SettingsFile: "/etc/devhost-settings.json", Settings: settings.Default(),
		Sudoers: func(host settings.Settings, programs []string) (string, error) {
			return fmt.Sprintln(host.AllowedGroups, programs), nil
		},
		Say: func(line string) { m.said = append(m.said, line) },
	}
	return m
}

func (m *machine) install() {
	m.t.Helper()
	m.said, m.units.done = nil, nil
	if err := m.Install(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) uninstall() {
	m.t.Helper()
	m.said, m.units.done = nil, nil
	if err := m.Uninstall(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

// files are all files of the host, with mode and content.
func (m *machine) files() map[string]string {
	m.t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(m.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, m.Root)
		if target, err := os.Readlink(path); err == nil {
			found[name] = "-> " + target
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		found[name] = info.Mode().String() + " " + string(content)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return found
}

func (m *machine) write(path, content string) {
	m.t.Helper()
	full := filepath.Join(m.Root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(content), 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) says(text string) {
	m.t.Helper()
	if !strings.Contains(strings.Join(m.said, "\n"), text) {
		m.t.Errorf("it does not say %q but:\n%s", text, strings.Join(m.said, "\n"))
	}
}

func TestInstall(t *testing.T) {
	m := newMachine(t)
	before := m.files()
	m.DryRun = true
	m.install()
	if diff := cmp.Diff(before, m.files()); diff != "" || len(m.units.done) > 0 || len(m.commands.accounts) > 0 {
		t.Errorf("a dry run does something: %v %v %s", m.units.done, m.commands.accounts, diff)
	}
	m.says("would install /usr/local/bin/devhost")
	m.says("would start devhost-ingress.service")

	m.DryRun = false
	m.install()
	files := m.files()
	for path, want := range map[string]string{
		Program:                                 "-rwxr-xr-x program 1",
		"/usr/local/bin/fc-devhost":             "-> devhost",
		"/usr/local/bin/fc-build-dev-container": "-> devhost",
		"/usr/local/bin/nixos-container":        "-> devhost",
		"/etc/devhost-settings.json":            "-rw-r--r-- {\n  \"version\": 1\n}\n",
		"/etc/sudoers.d/devhost":                "-r--r----- [devhost] [/usr/local/bin/devhost /usr/local/bin/fc-build-dev-container /usr/local/bin/fc-devhost /usr/local/bin/nixos-container]\n",
	} {
		if diff := cmp.Diff(want, files[path]); diff != "" {
			t.Errorf("%s is otherwise (-want +got):\n%s", path, diff)
		}
	}
	if unit := files["/etc/systemd/system/devhost-ingress.service"]; !strings.Contains(unit, "ExecStart="+Program+" ingress") {
		t.Errorf("the unit of the ingress is %q", unit)
	}
	wanted := []string{
		"reload", "enable devhost-boot.service", "start devhost-boot.service", "enable devhost-ingress.service", "start devhost-ingress.service",
		"enable devhost-expire.timer", "start devhost-expire.timer",
	}
	if diff := cmp.Diff(wanted, m.units.done); diff != "" {
		t.Errorf("systemd is asked otherwise (-want +got):\n%s", diff)
	}
	status, err := m.Look(t.Context())
	if err != nil || !status.Complete() {
		t.Errorf("after the installation: %+v, %v", status, err)
	}

	m.install()
	if diff := cmp.Diff([]string{"everything is installed already"}, m.said); diff != "" {
		t.Errorf("the second time it says otherwise (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(files, m.files()); diff != "" || len(m.units.done) > 0 {
		t.Errorf("the second time it does something: %v %s", m.units.done, diff)
	}

	m.uninstall()
	if diff := cmp.Diff(before, m.files()); diff != "" || len(m.commands.accounts) > 0 {
		t.Errorf("something is left: %v %s", m.commands.accounts, diff)
	}
	wanted = []string{
		"stop devhost-expire.timer", "disable devhost-expire.timer", "stop devhost-ingress.service", "disable devhost-ingress.service",
		"stop devhost-boot.service", "disable devhost-boot.service", "reload",
	}
	if diff := cmp.Diff(wanted, m.units.done); diff != "" {
		t.Errorf("systemd is asked otherwise (-want +got):\n%s", diff)
	}
	m.uninstall()
	m.says("nothing was installed")
}

func TestUpdate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *machine)
		done   []string
	}{
		{"program", func(m *machine) {
			if err := os.WriteFile(m.Source, []byte("program 2"), 0o755); err != nil {
				m.t.Fatal(err)
			}
		}, []string{"reload", "restart devhost-ingress.service", "restart devhost-expire.timer"}},
		{"mode", func(m *machine) {
			if err := os.Chmod(m.path(Program), 0o700); err != nil {
				m.t.Fatal(err)
			}
		}, []string{"reload", "restart devhost-ingress.service", "restart devhost-expire.timer"}},
		{"unit file", func(m *machine) { m.write("/etc/systemd/system/devhost-boot.service", "other") },
			[]string{"reload", "restart devhost-ingress.service", "restart devhost-expire.timer"}},
		{"groups", func(m *machine) { m.Settings.AllowedGroups = []string{"staff"} }, nil},
		{"link is gone", func(m *machine) {
			if err := os.Remove(m.path("/usr/local/bin/fc-devhost")); err != nil {
				m.t.Fatal(err)
			}
		}, nil},
		{"ingress failed", func(m *machine) { m.units.active["devhost-ingress.service"] = "failed" }, []string{"start devhost-ingress.service"}},
		{"disabled", func(m *machine) { delete(m.units.enabled, "devhost-expire.timer") }, []string{"enable devhost-expire.timer"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			m.install()
			m.t = t
			test.change(m)
			if status, err := m.Look(t.Context()); err != nil || status.Complete() {
				t.Errorf("the change is not seen: %+v %v", status, err)
			}
			m.install()
			if diff := cmp.Diff(test.done, m.units.done); diff != "" {
				t.Errorf("systemd is asked otherwise (-want +got):\n%s", diff)
			}
			if status, err := m.Look(t.Context()); err != nil || !status.Complete() {
				t.Errorf("the change is still there: %+v %v", status, err)
			}
		})
	}
}

func TestWhatWasThereStays(t *testing.T) {
	m := newMachine(t)
	m.commands.accounts["group devhost"] = true
	m.write("/etc/devhost-settings.json", "theirs")
	m.write("/usr/local/bin/nixos-container", "the real one")
	before := m.files()
	m.install()
	files := m.files()
	for _, path := range []string{"/etc/devhost-settings.json", "/usr/local/bin/nixos-container"} {
		if diff := cmp.Diff(before[path], files[path]); diff != "" {
			t.Errorf("%s was changed (-want +got):\n%s", path, diff)
		}
	}
	if rules := files["/etc/sudoers.d/devhost"]; strings.Contains(rules, "nixos-container") {
		t.Errorf("developers may run another program as root: %s", rules)
	}
	m.uninstall()
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("uninstall did not take exactly that back (-want +got):\n%s", diff)
	}
	if !m.commands.accounts["group devhost"] {
		t.Error("a group that was there before is removed")
	}
	m.says("left the group devhost")
}

func TestChangedSettingsStay(t *testing.T) {
	m := newMachine(t)
	m.PublicAddress = "dev.example.org"
	m.install()
	if got := m.files()["/etc/devhost-settings.json"]; !strings.Contains(got, `"publicAddress": "dev.example.org"`) {
		t.Errorf("the settings are %s", got)
	}
	m.write("/etc/devhost-settings.json", "changed")
	m.uninstall()
	if got := m.files()["/etc/devhost-settings.json"]; !strings.Contains(got, "changed") {
		t.Errorf("the settings are %s", got)
	}
	m.says("left /etc/devhost-settings.json: it is not as it was made")
}

func TestMadeSettingsGo(t *testing.T) {
	m := newMachine(t)
	before := m.files()
	m.PublicAddress = "dev.example.org"
	m.install()
	m.PublicAddress = ""
	m.uninstall()
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("something is left (-want +got):\n%s", diff)
	}
}

func TestBadRules(t *testing.T) {
	m := newMachine(t)
	m.commands.badRules = true
	if err := m.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("the error is %v", err)
	}
	if _, there := m.files()[sudoersFile]; there {
		t.Error("rules that sudo does not understand were installed")
	}
}

func TestNoSudo(t *testing.T) {
	m := newMachine(t)
	if err := os.Remove(m.path("/etc/sudoers.d")); err != nil {
		t.Fatal(err)
	}
	m.install()
	m.says("this host has no sudo")
	if status, err := m.Look(t.Context()); err != nil || !status.Complete() {
		t.Errorf("%+v %v", status, err)
	}
	m.uninstall()
}

func TestWithoutSystemd(t *testing.T) {
	m := newMachine(t)
	m.Systemd = nil
	m.install()
	m.says("nothing is enabled or started")
	if _, there := m.files()["/etc/systemd/system/devhost-ingress.service"]; !there {
		t.Error("the units are not installed")
	}
	m.uninstall()
}

func TestNixOS(t *testing.T) {
	m := newMachine(t)
	m.write("/etc/NIXOS", "")
	before := m.files()
	for name, action := range map[string]func(context.Context) error{"install": m.Install, "uninstall": m.Uninstall} {
		err := action(t.Context())
		if !errors.Is(err, OnNixOS{}) || !strings.Contains(err.Error(), "services.devhost.enable") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, m.files()); diff != "" {
		t.Errorf("something was changed (-want +got):\n%s", diff)
	}
}

func TestUnitThatFails(t *testing.T) {
	m := newMachine(t)
	m.units.failing = "devhost-ingress.service"
	err := m.Install(t.Context())
	if err == nil || !strings.Contains(err.Error(), "journalctl -u devhost-ingress.service") {
		t.Errorf("the error is %v", err)
	}
	// The next time goes on from there.
	m.units.failing = ""
	m.install()
	if diff := cmp.Diff([]string{"start devhost-ingress.service", "enable devhost-expire.timer", "start devhost-expire.timer"}, m.units.done); diff != "" {
		t.Errorf("systemd is asked otherwise (-want +got):\n%s", diff)
	}
}

func TestPartsHaveNames(t *testing.T) {
	m := newMachine(t)
	parts, err := m.parts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, part := range parts {
		if slices.Contains(names, part.String()) {
			t.Errorf("%s is there twice", part)
		}
		names = append(names, part.String())
	}
}
