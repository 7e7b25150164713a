package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/registry"
	"devhost/internal/sshaccess"
	"devhost/internal/terminal"
)

const (
	// sshPoll is how often sshd is tried while the guest starts.
	sshPoll = 10 * time.Millisecond
	// otherPoll is the same once another server has its place.
	otherPoll = time.Second
)

// waitForSSH waits until sshd greets on the container's address. On one of the
// host's, where any user can listen, it must have the container's host key.
func (m *Manager) waitForSSH(ctx context.Context, record *registry.Container) error {
	address := m.sshAddress(record)
	tick := time.NewTicker(sshPoll)
	defer tick.Stop()
	var other *sshaccess.OtherServer
	for {
		if m.sshAnswers(ctx, address) {
			if !record.Address.OnHost() {
				return nil
			}
			err := m.SSHFiles(record.Name).Answers(ctx, address)
			if err == nil {
				return nil
			}
			if errors.As(err, &other) {
				tick.Reset(otherPoll)
			}
		}
		state, err := m.Engine.State(record.Name)
		if err != nil {
			return err
		}
		if state.Status == engine.Stopped || state.Status == engine.Failed {
			log, tail := m.endOfConsole(ctx, record.Name)
			return &engine.StartError{Name: record.Name, Reason: strings.TrimSuffix("it ended before its sshd answered: "+state.Detail, ": "), LogPath: log, Tail: tail}
		}
		select {
		case <-ctx.Done():
			if other != nil {
				return fmt.Errorf("%w: %w", other, ctx.Err())
			}
			return fmt.Errorf("no ssh server answers at %s: %w", address, ctx.Err())
		case <-tick.C:
		}
	}
}

// endOfConsole is what a guest wrote last to its console, and where all of it is.
func (m *Manager) endOfConsole(ctx context.Context, name string) (log string, tail []string) {
	journal, ok := m.Engine.(engine.Journal)
	if !ok || !m.Engine.Features().Journal {
		log = m.Registry.Log(name)
		return log, endOf(log)
	}
	var text strings.Builder
	// Without a journal there are no lines.
	_ = journal.Console(ctx, name, engine.ConsoleOptions{Lines: mostLines}, &text)
	return "devhost logs --console " + name, lastLines(text.String())
}

// endOf is the last lines of a console log.
func endOf(path string) []string {
	const most = 8 << 10
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(file, most))
	return lastLines(string(text))
}

// sshAnswers tells whether a server at the address sends the greeting of
// RFC 4253, section 4.2.
func (m *Manager) sshAnswers(ctx context.Context, address string) bool {
	// Before the guest's interface is up, a first packet is lost, and the
	// kernel would send it again after a second.
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer connection.Close()
	// Sshd makes a process for it first, which takes its time on a busy host.
	const greets = 5 * time.Second
	_ = connection.SetReadDeadline(time.Now().Add(greets))
	greeting, err := bufio.NewReader(io.LimitReader(connection, 256)).ReadString('\n')
	return err == nil && strings.HasPrefix(greeting, "SSH-")
}

// Unit is one unit of the guest that is not as it should be.
type Unit struct {
	Name string `json:"name"`
	// State is "failed" or "activating".
	State       string `json:"state"`
	Description string `json:"description"`
	// Log holds the last lines of a failed unit's journal.
	Log []string `json:"log,omitempty"`
}

// guestProgram is a program of the guest's system profile; it is there in
// both channel shapes, whatever the guest's PATH.
func guestProgram(name string) string { return "/run/current-system/sw/bin/" + name }

// waitForUnits waits until the guest has started all that it wanted to start,
// or until the context ends, and returns the units that failed or still
// start. While it waits, the guest's last log line is shown.
func (m *Manager) waitForUnits(ctx context.Context, name string) ([]Unit, error) {
	const poll = 250 * time.Millisecond
	for {
		running, err := m.queueLength(ctx, name)
		if err == nil && running == 0 {
			units, started, err := m.troubledUnits(context.WithoutCancel(ctx), name)
			if err != nil || !started {
				return units, err
			}
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		if line := m.lastLogLine(ctx, name); line != "" {
			m.Reporter.Detail(line)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
	// The wait may have used up its time; asking what is wrong has its own.
	return m.TroubledUnits(context.WithoutCancel(ctx), name)
}

func (m *Manager) queueLength(ctx context.Context, name string) (int, error) {
	output, err := m.guestOutput(ctx, name, guestProgram("systemctl"), "show", "--property=NJobs", "--value")
	if err != nil {
		return 0, err
	}
	var jobs int
	if _, err := fmt.Sscan(string(output), &jobs); err != nil {
		return 0, fmt.Errorf("cannot read the guest's number of jobs from %q: %w", output, err)
	}
	return jobs, nil
}

func (m *Manager) lastLogLine(ctx context.Context, name string) string {
	output, err := m.guestOutput(ctx, name, guestProgram("journalctl"), "--lines=1", "--output=cat", "--no-pager", "--quiet")
	if err != nil {
		return ""
	}
	return terminal.Line(strings.TrimSpace(string(output)))
}

// TroubledUnits are the units that failed or still start. The JSON is that of
// systemctl list-units --output=json (systemd 246 and later).
func (m *Manager) TroubledUnits(ctx context.Context, name string) ([]Unit, error) {
	units, _, err := m.troubledUnits(ctx, name)
	return units, err
}

// troubledUnits is TroubledUnits, and says whether one of them is being started
// just now. After the queue was empty that is one whose time has come, such as a
// timer's. One that failed and waits for its next start is none.
func (m *Manager) troubledUnits(ctx context.Context, name string) (units []Unit, started bool, err error) {
	// A guest must not be able to hold up whoever asks.
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	output, err := m.guestOutput(ctx, name, guestProgram("systemctl"), "list-units", "--all", "--state=failed,activating", "--output=json", "--no-pager")
	if err != nil {
		return nil, false, err
	}
	var listed []listedUnit
	if err := json.Unmarshal(output, &listed); err != nil {
		return nil, false, fmt.Errorf("cannot read the guest's list of units: %w", err)
	}
	units = make([]Unit, 0, len(listed))
	if slices.ContainsFunc(listed, func(entry listedUnit) bool { return entry.Active == failedState }) {
		m.syncJournal(ctx, name)
	}
	for _, entry := range listed {
		unit := Unit{Name: terminal.Line(entry.Unit), State: terminal.Line(entry.Active), Description: terminal.Line(entry.Description)}
		if unit.State == failedState {
			unit.Log = m.unitLog(ctx, name, unit.Name)
		} else if strings.HasPrefix(entry.Sub, "start") {
			started = true
		}
		units = append(units, unit)
	}
	return units, started, nil
}

// listedUnit is a unit as systemctl lists it.
type listedUnit struct{ Unit, Active, Sub, Description string }

// failedState is the state of a unit that failed.
const failedState = "failed"

// syncJournal lets the guest's journal take in what its units have said until
// now: systemd may know that a unit has failed before the journal has read why.
func (m *Manager) syncJournal(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	// Without it, there is what there is.
	_, _ = m.guestOutput(ctx, name, guestProgram("journalctl"), "--sync")
}

func (m *Manager) unitLog(ctx context.Context, name, unit string) []string {
	output, err := m.guestOutput(ctx, name, guestProgram("journalctl"), "--unit="+unit, "--lines=12", "--output=cat", "--no-pager", "--quiet")
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(output)) {
		lines = append(lines, terminal.Line(strings.TrimRight(line, "\n")))
	}
	return lines
}

const (
	// askTimeout is how long a guest may take to say how its units are.
	askTimeout = 30 * time.Second
	// syncTimeout is the part of it that a guest's journal may take.
	syncTimeout = 10 * time.Second
	// mostAnswer bounds what a guest may answer, in bytes.
	mostAnswer = 1 << 20
)

// answer collects what a guest says, up to mostAnswer bytes; then it ends the
// command.
type answer struct {
	bytes.Buffer
	end      func()
	overflow bool
}

func (a *answer) Write(data []byte) (int, error) {
	if a.Len()+len(data) > mostAnswer {
		a.overflow = true
		a.end()
		return len(data), nil
	}
	return a.Buffer.Write(data)
}

func (m *Manager) guestOutput(ctx context.Context, name string, argv ...string) ([]byte, error) {
	running, end := context.WithCancel(ctx)
	defer end()
	stdout, stderr := answer{end: end}, answer{end: end}
	status, err := m.Guest.Run(running, name, &stdout, &stderr, argv...)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if stdout.overflow || stderr.overflow {
		return nil, fmt.Errorf("%s in container %s says more than %d bytes", argv[0], name, mostAnswer)
	}
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, &execx.Error{Argv: argv, ExitCode: status, Tail: lastLines(stderr.String())}
	}
	return stdout.Bytes(), nil
}

// mostLines is how many of a command's last lines an error shows.
const mostLines = 20

func lastLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, terminal.Line(strings.TrimRight(line, "\n")))
	}
	return lines[max(0, len(lines)-mostLines):]
}

// SwitchError says that the guest did not take its new system.
type SwitchError struct {
	Name       string
	ExitStatus int
	// TimedOut is how long it was waited for, if that was too long.
	TimedOut time.Duration
	// Output holds the last lines of switch-to-configuration.
	Output []string
	// Units are those that failed.
	Units []Unit
}

func (s *SwitchError) Error() string {
	var text strings.Builder
	if s.TimedOut > 0 {
		fmt.Fprintf(&text, "container %s did not switch to its new system within %s; wait longer with --timeout", s.Name, s.TimedOut)
	} else {
		fmt.Fprintf(&text, "container %s could not switch to its new system (switch-to-configuration ended with exit code %d)", s.Name, s.ExitStatus)
	}
	for _, line := range s.Output {
		text.WriteString("\n  " + line)
	}
	describeUnits(&text, s.Units)
	return text.String()
}

func describeUnits(text io.Writer, units []Unit) {
	for _, unit := range units {
		switch unit.State {
		case failedState:
			fmt.Fprintf(text, "\nunit %s failed; its last log lines:", unit.Name)
			for _, line := range unit.Log {
				fmt.Fprintf(text, "\n  %s", line)
			}
		default:
			fmt.Fprintf(text, "\nunit %s still starts", unit.Name)
		}
	}
}

// switchTo makes the running guest take a system. The output is kept for the
// error and shown as detail while it runs.
func (m *Manager) switchTo(ctx context.Context, name, system string, timeout time.Duration) error {
	var output []string
	sink := &execx.LineWriter{Line: func(line string) {
		line = terminal.Line(line)
		m.Reporter.Detail(line)
		output = append(output, line)
		output = output[max(0, len(output)-mostLines):]
	}}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, err := m.Guest.Run(limited, name, sink, sink, system+"/bin/switch-to-configuration", "switch")
	err = errors.Join(err, sink.Close())
	// First: an interruption has many faces, depending on when it comes.
	if ctx.Err() != nil {
		return fmt.Errorf("switching container %s to its new system was interrupted: %w", name, ctx.Err())
	}
	if limited.Err() != nil {
		return &SwitchError{Name: name, TimedOut: timeout, Output: output, Units: m.unitsAfterSwitch(ctx, name)}
	}
	if err != nil {
		return err
	}
	if status == 0 {
		return nil
	}
	return &SwitchError{Name: name, ExitStatus: status, Output: output, Units: m.unitsAfterSwitch(ctx, name)}
}

func (m *Manager) unitsAfterSwitch(ctx context.Context, name string) []Unit {
	units, err := m.TroubledUnits(context.WithoutCancel(ctx), name)
	if err != nil {
		m.Logger.Warn("cannot ask for the failed units", "container", name, "error", err)
	}
	return units
}
