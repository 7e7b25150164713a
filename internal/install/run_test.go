package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/seed"
)

// attach gives an installer a seed disk, which names no disk that there is.
// mounted is what happens besides when it is mounted.
func attach(t *testing.T, i *Installer, runner *execxtest.Fake, mounted func(execx.Command) error) {
	t.Helper()
	image := filepath.Join(i.Devices, "vdb")
	settings := seed.Settings{Version: 1, Mode: seed.Direct, Disk: "/dev/does-not-exist", Login: "alice"}
	if err := errors.Join(seed.Create(image, seed.Contents{Settings: settings}), os.MkdirAll(filepath.Join(i.Blocks, "vdb"), 0o755)); err != nil {
		t.Fatal(err)
	}
	runner.ExpectFunc("^mount -t vfat .*vdb", func(command execx.Command) (string, error) {
		data, err := json.Marshal(settings)
		return "", errors.Join(err, os.WriteFile(filepath.Join(i.SeedFolder, seed.SettingsFile), data, 0o600), mounted(command))
	})
}

// printed is the verdict on a console.
func printed(console *bytes.Buffer) *seed.Event {
	var events []seed.Event
	for line := range strings.Lines(console.String()) {
		if event, ok := seed.ParseConsole(strings.TrimSpace(line)); ok {
			events = append(events, event)
		}
	}
	return seed.Verdict(events)
}

// brokenConsole is one that cannot be written to.
type brokenConsole struct{}

func (brokenConsole) Write([]byte) (int, error) { return 0, errors.New("input/output error") }

// The host reads the seed disk: a console that is gone changes nothing.
func TestBrokenConsole(t *testing.T) {
	i, runner, _ := newInstaller(t, Config{System: system})
	i.Console = brokenConsole{}
	attach(t, i, runner, func(command execx.Command) error {
		_, err := command.Stdout.Write([]byte("what it prints"))
		return err
	})
	if err := i.Run(t.Context()); err == nil {
		t.Error("no error")
	}
	report, err := os.ReadFile(filepath.Join(i.SeedFolder, seed.ReportFile))
	if err != nil || !strings.Contains(string(report), `"message":"there is no disk /dev/does-not-exist`) {
		t.Errorf("the report on the seed disk: %s, %v", report, err)
	}
}

// A seed disk that is full, or gone, leaves the console.
func TestReportThatCannotBeWritten(t *testing.T) {
	i, runner, console := newInstaller(t, Config{System: system})
	attach(t, i, runner, func(execx.Command) error {
		return os.Symlink("/dev/full", filepath.Join(i.SeedFolder, seed.ReportFile))
	})
	if err := i.Run(t.Context()); err == nil {
		t.Error("no error")
	}
	verdict := printed(console)
	if verdict == nil || verdict.Verdict != seed.InstallFails || !strings.Contains(verdict.Message, "no space left on device; devbox-cli init makes a new seed disk") {
		t.Fatalf("verdict: %v", verdict)
	}
	// That is not the disk which is full.
	if strings.Contains(verdict.Message, "diskGB") {
		t.Errorf("misleading: %s", verdict.Message)
	}
}

func TestBugIsReported(t *testing.T) {
	i, runner, console := newInstaller(t, Config{System: system})
	attach(t, i, runner, func(execx.Command) error { panic("as this test wants") })
	if err := i.Run(t.Context()); err == nil {
		t.Error("no error")
	}
	verdict := printed(console)
	if verdict == nil || verdict.Verdict != seed.InstallFails || !strings.Contains(verdict.Message, "this is a bug in devbox-auto-install: as this test wants\n") {
		t.Errorf("verdict: %v", verdict)
	}
}
