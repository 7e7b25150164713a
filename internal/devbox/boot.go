package devbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"devhost/internal/hypervisor"
	"devhost/internal/progress"
	"devhost/internal/seed"
	"devhost/internal/terminal"
)

// bootPhase is the phase in which an ISO boots.
const bootPhase progress.Phase = "booting from the ISO"

// BootISO boots a VM from an ISO and returns when it is off again. A seed disk
// that the VM has is attached. What the installer on it reports is shown, and
// its failure is *InstallFailed. When the context ends, the VM runs on.
func (m *Manager) BootISO(ctx context.Context, name, path string, nested bool) error {
	image, err := ISO(path)
	if err != nil {
		return err
	}
	// The hypervisor does not start in our working folder.
	if image, err = filepath.Abs(image); err != nil {
		return err
	}
	record, chosen, err := m.boot(ctx, name, image, nested)
	if err != nil {
		return err
	}
	events, err := m.followInstaller(ctx, record, chosen)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return nil
	}
	return m.judge(record, events)
}

// boot starts a VM that does not run from an ISO.
func (m *Manager) boot(ctx context.Context, name, image string, nested bool) (*Record, hypervisor.Hypervisor, error) {
	unlock, err := m.lock(ctx, name, "boot-iso")
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	record, chosen, err := m.open(name)
	if err != nil {
		return nil, nil, err
	}
	options := hypervisor.StartOptions{Nested: nested || record.Nested, ISO: image}
	if _, err := os.Stat(m.Files(name).Seed()); err == nil {
		options.Seed = m.Files(name).Seed()
	}
	m.Reporter.Phase(bootPhase)
	started, err := m.start(ctx, record, chosen, options)
	if err == nil && !started {
		err = &Runs{Name: name, Why: "boot it from an ISO"}
	}
	return record, chosen, err
}

// kernelPanic is what a Linux kernel prints when it gives up (kernel/panic.c),
// with or without the time and who printed it.
var kernelPanic = regexp.MustCompile(`^(?:\[[^\]]*\] ?)*Kernel panic - not syncing: (.*)`)

// panicTrace is how long a kernel that has given up may print what it knows.
const panicTrace = 3 * time.Second

// followInstaller shows what the installer does until the VM is off, and
// returns all that it reported: on the seed disk, or where there is no
// verdict, on the console. A VM whose kernel has given up is turned off, and
// that is its verdict, where it has none.
func (m *Manager) followInstaller(ctx context.Context, record *Record, chosen hypervisor.Hypervisor) ([]seed.Event, error) {
	watched, endWatch := context.WithCancel(ctx)
	defer endWatch()
	var printed []seed.Event
	var gaveUp *seed.Event
	err := m.follow(watched, record, chosen, func(line string) {
		event, ok := seed.ParseConsole(line)
		if !ok {
			m.Reporter.Detail(line)
			if match := kernelPanic.FindStringSubmatch(line); match != nil && gaveUp == nil {
				gaveUp = &seed.Event{Kind: seed.VerdictEvent, Verdict: seed.InstallFails, Message: "the kernel of the ISO panicked: " + match[1]}
				time.AfterFunc(panicTrace, endWatch)
			}
			return
		}
		// A guest could print without end.
		const most = 1000
		if len(printed) < most {
			printed = append(printed, event)
		}
		if event.Kind == seed.PhaseEvent && event.State == seed.Started {
			m.Reporter.Phase(progress.Phase(describePhase(event)))
		}
	})
	if gaveUp != nil && ctx.Err() == nil {
		if _, _, err := m.Stop(ctx, record.Name, 0); err != nil {
			return printed, err
		}
		if seed.Verdict(printed) == nil {
			printed = append(printed, *gaveUp)
		}
	} else if err != nil {
		return printed, err
	}
	image := m.Files(record.Name).Seed()
	if _, err := os.Stat(image); err != nil {
		return printed, nil
	}
	events, err := seed.ReadReport(image)
	// A seed disk may be full or damaged; the console has the verdict too.
	if seed.Verdict(events) == nil && seed.Verdict(printed) != nil {
		return printed, nil
	}
	return events, err
}

func describePhase(event seed.Event) string {
	text := "installer"
	if event.Count > 0 {
		text += fmt.Sprintf(" %d of %d", event.Number, event.Count)
	}
	return text + ": " + terminal.Line(event.Phase)
}

// InstallFailed says that the installer failed, in its own words.
type InstallFailed struct {
	Name string
	// Phase is the one that failed, "" where that is not known.
	Phase   string
	Message string
	// Console are the last lines of the console, where the installer said
	// nothing itself.
	Console []string
	// Again is the command that goes on with it.
	Again string
}

func (i *InstallFailed) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "the installation of VM %s failed", i.Name)
	if i.Phase != "" {
		fmt.Fprintf(&text, " (%s)", i.Phase)
	}
	fmt.Fprintf(&text, ": %s", i.Message)
	for _, line := range i.Console {
		text.WriteString("\n  " + line)
	}
	fmt.Fprintf(&text, "\nAll that it printed: devbox-cli logs %s", i.Name)
	if i.Again != "" {
		text.WriteString("\nTo go on with it: " + i.Again)
	}
	return text.String()
}

// judge turns a report into an error, unless it ends well.
func (m *Manager) judge(record *Record, events []seed.Event) error {
	again := ""
	if record.Host != "" {
		again = "devbox-cli init " + record.Flake + "#" + record.Host
	}
	verdict := seed.Verdict(events)
	switch {
	case verdict == nil:
		const lines = 8
		failure := &InstallFailed{Name: record.Name, Message: "the VM went off before the installer was done; the last lines of its console:", Console: m.ConsoleTail(record.Name, lines), Again: again}
		for _, event := range events {
			if event.Kind == seed.PhaseEvent {
				failure.Phase = terminal.Line(event.Phase)
			}
		}
		return failure
	case verdict.Verdict == seed.Installed:
		return nil
	}
	return &InstallFailed{Name: record.Name, Phase: terminal.Line(verdict.Phase), Message: said(verdict.Message), Again: again}
}

// said is a message of the guest, fit for a terminal.
func said(message string) string {
	lines := strings.Split(strings.TrimSpace(message), "\n")
	for i := range lines {
		lines[i] = terminal.Line(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// interrupted says whether an error is the person's Ctrl-C.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}
