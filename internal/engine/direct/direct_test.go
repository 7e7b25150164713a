package direct_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/engine"
	"devhost/internal/engine/direct"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// The engine is what the rest of devhost takes it for.
var (
	_ engine.Engine  = (*direct.Engine)(nil)
	_ engine.Limiter = (*direct.Engine)(nil)
)

func (g *guest) state() engine.State {
	g.t.Helper()
	state, err := g.engine.State(g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	return state
}

func (g *guest) runtimeRecord() *supervisor.Record {
	g.t.Helper()
	record, err := supervisor.ReadRecord(g.layout, g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	if record == nil {
		g.t.Fatal("there is no runtime record")
	}
	return record
}

// kill kills a process and waits until it has gone.
func (g *guest) kill(id process.ID) {
	g.t.Helper()
	if err := id.Signal(syscall.SIGKILL); err != nil {
		g.t.Fatal(err)
	}
	if err := id.Wait(g.context()); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) wantNothingLeft() {
	g.t.Helper()
	if left := g.leftovers(); len(left) > 0 {
		g.t.Errorf("left behind: %q", left)
	}
}

func TestStartAndStop(t *testing.T) {
	g := newGuest(t, "life")
	if got := g.state(); got.Status != engine.Stopped {
		t.Fatalf("before its first start it is %+v", got)
	}
	if _, err := g.engine.Guest(g.name); !errors.As(err, new(*enter.NotRunning)) || !strings.Contains(err.Error(), "devhost start life") {
		t.Errorf("entering a stopped container: %v", err)
	}
	before := time.Now()
	g.start()
	state := g.state()
	if state.Status != engine.Running || state.SupervisorPID == 0 || state.LeaderPID == 0 || state.StartedAt.Before(before.Add(-time.Second)) || state.Detail != "" {
		t.Errorf("a started container is %+v", state)
	}
	if name := g.inside("cat /proc/1/comm"); name != "systemd" {
		t.Errorf("PID 1 is %q", name)
	}
	if host := g.inside("uname -n"); host != "life" {
		t.Errorf("the host name is %q", host)
	}
	g.start()
	if again := g.state(); again != state {
		t.Errorf("starting a running container made %+v of %+v", again, state)
	}
	g.stop()
	if got := g.state(); got != (engine.State{Status: engine.Stopped}) {
		t.Errorf("a stopped container is %+v", got)
	}
	g.wantNothingLeft()
	g.stop()
	g.wantNothingLeft()
	console, err := os.ReadFile(g.layout.Log(g.name))
	if err != nil || !strings.Contains(string(console), "Reached target") && !strings.Contains(string(console), "tiny") {
		t.Errorf("the console log holds %q, %v", console, err)
	}
	if strings.Contains(string(console), "\r") || strings.Contains(string(console), "\x1b") {
		t.Errorf("the console log holds terminal codes: %q", console)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"1a2b", strings.Repeat("n", 63), "payload"} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, name)
			g.start()
			if host := g.inside("uname -n"); host != name {
				t.Errorf("the host name is %q", host)
			}
			g.stop()
			g.wantNothingLeft()
		})
	}
}

// What the guest's processes can see of the host's session that started them.
func TestNothingOfTheHostGetsIn(t *testing.T) {
	const secret = "of-the-host"
	t.Setenv("DEVHOST_TEST_SECRET", secret)
	// A descriptor such as a shell hands down: without close-on-exec.
	path := filepath.Join(t.TempDir(), secret)
	descriptor, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(descriptor)
	g := newGuest(t, "clean")
	g.start()
	record := g.runtimeRecord()
	for what, id := range map[string]process.ID{"supervisor": record.Supervisor, "nspawn": record.Nspawn, "guest": record.Leader} {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", id.PID))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(environment), secret) {
			t.Errorf("the environment of the %s holds that of the host: %q", what, environment)
		}
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", id.PID))
		if err != nil || len(links) == 0 {
			t.Fatalf("no descriptors of the %s: %v", what, err)
		}
		for _, link := range links {
			if target, _ := os.Readlink(link); strings.Contains(target, secret) {
				t.Errorf("the %s has %s of the host", what, target)
			}
		}
	}
	if session, err := unix.Getsid(record.Supervisor.PID); err != nil || session != record.Supervisor.PID {
		t.Errorf("the supervisor is in session %d (%v), not in its own", session, err)
	}
}

func TestReboot(t *testing.T) {
	g := newGuest(t, "reboot")
	g.start()
	before := g.runtimeRecord()
	// A reboot starts the system that the record names by then.
	next := filepath.Join(g.layout.State, "next")
	g.write(filepath.Join(next, "devhost-system.json"), `{"version":1,"hostUsr":true}`, 0o644)
	g.write(filepath.Join(next, "init"), tinyInit, 0o755)
	g.writeInside(filepath.Join(next, "init"), strings.Replace(tinyInit, "set -e", "set -e; touch /next-was-here", 1), 0o755)
	g.record.System = next
	g.save()
	g.exec("systemctl", "reboot")
	eventually(t, "the guest ran again", func() bool {
		record, err := supervisor.ReadRecord(g.layout, g.name)
		return err == nil && record != nil && record.Status == engine.Running && record.Leader != before.Leader
	})
	after := g.runtimeRecord()
	if after.Supervisor != before.Supervisor || after.System != next {
		t.Errorf("before the reboot %+v, after it %+v", before, after)
	}
	// Running is only that there is a first process: it may not have begun.
	g.wantBooted()
	g.inside("test -e /next-was-here")
	g.stop()
	g.wantNothingLeft()
}

func TestPowerOff(t *testing.T) {
	g := newGuest(t, "poweroff")
	g.start()
	supervising := g.runtimeRecord().Supervisor
	g.exec("systemctl", "poweroff")
	if err := supervising.Wait(g.context()); err != nil {
		t.Fatal(err)
	}
	if got := g.state(); got != (engine.State{Status: engine.Stopped}) {
		t.Errorf("a container that powered off is %+v", got)
	}
	g.wantNothingLeft()
}

func TestKilled(t *testing.T) {
	running := func(g *guest) {
		g.t.Helper()
		if state := g.state(); state.Status != engine.Running || state.Detail != "" {
			g.t.Errorf("it is %+v", state)
		}
		g.inside("true")
	}
	tests := []struct {
		name string
		kill func(g *guest)
		want engine.Status
	}{
		{"supervisor", func(g *guest) { g.kill(g.runtimeRecord().Supervisor) }, engine.Running},
		{"nspawn", func(g *guest) {
			record := g.runtimeRecord()
			g.kill(record.Nspawn)
			if err := record.Supervisor.Wait(g.context()); err != nil {
				g.t.Fatal(err)
			}
		}, engine.Failed},
		{"guest", func(g *guest) {
			record := g.runtimeRecord()
			g.kill(record.Leader)
			if err := record.Supervisor.Wait(g.context()); err != nil {
				g.t.Fatal(err)
			}
		}, engine.Failed},
		{"both", func(g *guest) {
			record := g.runtimeRecord()
			g.kill(record.Supervisor)
			// The guest itself may live on.
			g.kill(record.Nspawn)
		}, engine.Failed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, "killed-"+test.name)
			g.start()
			test.kill(g)
			if state := g.state(); state.Status != test.want || state.Detail == "" {
				t.Errorf("after the kill it is %+v", state)
			}
			g.start()
			running(g)
			test.kill(g)
			g.stop()
			if state := g.state(); state.Status != engine.Stopped {
				t.Errorf("after the stop it is %+v", state)
			}
			g.wantNothingLeft()
		})
	}
}

func TestTakeOver(t *testing.T) {
	g := newGuest(t, "orphan")
	g.start()
	before := g.runtimeRecord()
	g.kill(before.Supervisor)
	// What it says on its console has no reader now, and must not end it.
	g.inside("dd if=/dev/zero bs=1k count=100 status=none | tr '\\0' x >/dev/console; echo end of orphanage >/dev/console")
	g.start()
	after := g.runtimeRecord()
	if after.Leader != before.Leader || after.Supervisor == before.Supervisor {
		t.Errorf("before %+v, after %+v", before, after)
	}
	eventually(t, "the console was read on", func() bool {
		console, _ := os.ReadFile(g.layout.Log(g.name))
		return strings.Contains(string(console), "end of orphanage")
	})
	g.exec("systemctl", "poweroff")
	if err := after.Supervisor.Wait(g.context()); err != nil {
		t.Fatal(err)
	}
	if got := g.state(); got.Status != engine.Stopped {
		t.Errorf("after powering off it is %+v", got)
	}
	g.wantNothingLeft()
}

func TestRebootAfterTakeOver(t *testing.T) {
	const tellsExitStatus = "6.15"
	if !kernelAtLeast(t, 6, 15) {
		t.Skipf("the exit status of a process that is no child is told by Linux %s and newer", tellsExitStatus)
	}
	g := newGuest(t, "orphan-reboot")
	g.start()
	before := g.runtimeRecord()
	g.kill(before.Supervisor)
	g.start()
	g.exec("systemctl", "reboot")
	eventually(t, "the guest ran again", func() bool {
		record, err := supervisor.ReadRecord(g.layout, g.name)
		return err == nil && record != nil && record.Status == engine.Running && record.Leader != before.Leader
	})
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var gotMajor, gotMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &gotMajor, &gotMinor); err != nil {
		t.Fatal(err)
	}
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}

// neverReady is what a guest does that never gets to its own systemd.
const neverReady = "#!/bin/sh\necho waiting for nothing\nsleep 1000\n"

// hold keeps the next start from its end until free is called.
func (g *guest) hold() (free func()) {
	g.write(holdFile(g.layout), "", 0o600)
	return func() { _ = os.Remove(holdFile(g.layout)) }
}

func TestInterruptedStartLeavesNothing(t *testing.T) {
	g := newGuest(t, "interrupted")
	g.writeInside("before-systemd", neverReady, 0o755)
	g.hold()
	ctx, cancel := context.WithCancel(g.context())
	go func() {
		eventually(t, "the guest was there", func() bool {
			console, _ := os.ReadFile(g.layout.Log(g.name))
			return strings.Contains(string(console), "waiting for nothing")
		})
		if state := g.state(); state.Status != engine.Starting {
			t.Errorf("while it starts it is %+v", state)
		}
		cancel()
	}()
	err := g.engine.Start(ctx, g.name)
	var failed *engine.StartError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) {
		t.Fatalf("error %v", err)
	}
	if !slices.Contains(failed.Tail, "waiting for nothing") {
		t.Errorf("the last lines are %q", failed.Tail)
	}
	if got := g.state(); got.Status != engine.Stopped {
		t.Errorf("after an interrupted start it is %+v", got)
	}
	g.wantNothingLeft()
}

// The command that started it was killed; the next one waits for the same
// supervisor.
func TestStartAfterKilledStart(t *testing.T) {
	g := newGuest(t, "resumed")
	free := g.hold()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	forgotten := make(chan error, 1)
	go func() { forgotten <- g.engine.Start(ctx, g.name) }()
	eventually(t, "it was starting", func() bool { return g.state().Status == engine.Starting && g.state().LeaderPID != 0 })
	second := make(chan error, 1)
	go func() { second <- g.engine.Start(g.context(), g.name) }()
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-second:
		t.Fatalf("it came back before the guest was up: %v", err)
	default:
	}
	free()
	for _, started := range []chan error{second, forgotten} {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
}

// Supervisor and starting command were killed: the next start begins anew.
func TestSupervisorKilledWhileStarting(t *testing.T) {
	g := newGuest(t, "halfway")
	g.writeInside("before-systemd", neverReady, 0o755)
	free := g.hold()
	first := make(chan error, 1)
	go func() { first <- g.engine.Start(g.context(), g.name) }()
	eventually(t, "it was starting", func() bool { return g.state().Status == engine.Starting && g.state().LeaderPID != 0 })
	record := g.runtimeRecord()
	g.kill(record.Supervisor)
	var failed *engine.StartError
	if err := <-first; !errors.As(err, &failed) || !strings.Contains(err.Error(), "supervisor.log") {
		t.Errorf("error %v", err)
	}
	if state := g.state(); state.Status != engine.Failed || !strings.Contains(state.Detail, "devhost start halfway") {
		t.Errorf("after the kill it is %+v", state)
	}
	g.writeInside("before-systemd", "#!/bin/sh\n", 0o755)
	free()
	g.start()
	if record.Leader.Alive() {
		t.Error("the guest of the first start still runs")
	}
	g.inside("true")
}

func TestFailedStart(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(g *guest)
		want  string
	}{
		{"no init", func(g *guest) {
			if err := os.Remove(filepath.Join(g.record.System, "init")); err != nil {
				g.t.Fatal(err)
			}
		}, "the container's system has no init"},
		{"init fails", func(g *guest) {
			g.writeInside(filepath.Join(g.record.System, "init"), "#!/bin/sh\necho 'activation went wrong'\nexit 3\n", 0o755)
		}, "exit code 3"},
		{"init does not run", func(g *guest) {
			g.writeInside(filepath.Join(g.record.System, "init"), "#!/no/such/shell\n", 0o755)
		}, "execv"},
		{"powers off at once", func(g *guest) {
			g.writeInside(filepath.Join(g.record.System, "init"), "#!/bin/sh\nexit 0\n", 0o755)
		}, "powered off"},
		{"system of another devhost", func(g *guest) {
			g.write(filepath.Join(g.record.System, "devhost-system.json"), `{"version":9}`, 0o644)
		}, "version 9"},
		{"no record", func(g *guest) {
			if err := os.Remove(g.layout.Record(g.name)); err != nil {
				g.t.Fatal(err)
			}
		}, "container.json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, "failing")
			test.spoil(g)
			err := g.engine.Start(g.context(), g.name)
			var failed *engine.StartError
			if err != nil && (!errors.As(err, &failed) || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("error %v", err)
			}
			// A guest that ends right after its start may have been up.
			eventually(t, "it ended", func() bool {
				status := g.state().Status
				return status == engine.Failed || status == engine.Stopped
			})
			console, _ := os.ReadFile(g.layout.Log(g.name))
			state := g.state()
			if said := state.Detail + string(console); !strings.Contains(said, test.want) {
				t.Errorf("it is %+v, and its console says:\n%s", state, console)
			}
			// To power off is no failure, once it was up.
			if state.Status != engine.Failed && (failed != nil || test.want != "powered off") {
				t.Errorf("after it failed it is %+v", state)
			}
			g.stop()
			if state := g.state(); state.Status != engine.Stopped {
				t.Errorf("after clearing it is %+v", state)
			}
			g.wantNothingLeft()
		})
	}
}

func TestStopKillsWhoDoesNotStop(t *testing.T) {
	g := newGuest(t, "stubborn")
	// This power-off unit waits for ever.
	script := strings.Replace(tinyInit, "ExecStart=/bin/true", "ExecStart=/bin/sleep 1000\\nTimeoutStartSec=infinity", 1)
	g.writeInside(filepath.Join(g.record.System, "init"), script, 0o755)
	g.start()
	begin := time.Now()
	if err := g.engine.Stop(g.context(), g.name, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	g.wantNothingLeft()
}

func TestInterruptedStop(t *testing.T) {
	g := newGuest(t, "unhurried")
	script := strings.Replace(tinyInit, "ExecStart=/bin/true", "ExecStart=/bin/sleep 1000\\nTimeoutStartSec=infinity", 1)
	g.writeInside(filepath.Join(g.record.System, "init"), script, 0o755)
	g.start()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := g.engine.Stop(ctx, g.name, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if state := g.state(); state.Status != engine.Stopping {
		t.Errorf("after an interrupted stop it is %+v", state)
	}
	if err := g.engine.Stop(g.context(), g.name, 0); err != nil {
		t.Fatal(err)
	}
	g.wantNothingLeft()
}

func TestUnusableRuntimeRecord(t *testing.T) {
	g := newGuest(t, "unusable")
	g.start()
	record := g.runtimeRecord()
	g.kill(record.Supervisor)
	g.write(g.layout.RuntimeRecord(g.name), `{"version":1,"status":"dancing"}`, 0o600)
	if state := g.state(); state.Status != engine.Failed || !strings.Contains(state.Detail, "devhost stop unusable") {
		t.Errorf("it is %+v", state)
	}
	g.stop()
	if record.Leader.Alive() || record.Nspawn.Alive() {
		t.Error("the guest still runs")
	}
	g.wantNothingLeft()
}

// The supervisor of a guest that has failed still lives for a moment after it
// has said so. Stop does not return before it has ended.
func TestStopWaitsForTheSupervisorOfAFailedGuest(t *testing.T) {
	g := newGuest(t, "ending")
	standIn, err := execx.New().Start(execx.Command{Name: "sleep", Args: []string{"600"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- standIn.Wait() }()
	defer func() { _ = standIn.Signal(syscall.SIGKILL) }()
	id, err := process.Of(standIn.Pid())
	if err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(supervisor.Record{
		Version: supervisor.RecordVersion, Name: g.name, BootID: process.BootID(), Status: engine.Failed, Supervisor: id, Detail: "a test",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(g.layout.Runtime(), 0o700); err != nil {
		t.Fatal(err)
	}
	g.write(g.layout.RuntimeRecord(g.name), string(record), 0o600)
	if state := g.state(); state.Status != engine.Failed || state.SupervisorPID != id.PID || state.Detail != "a test" {
		t.Errorf("it is %+v", state)
	}
	g.stop()
	if id.Alive() {
		t.Error("its supervisor still lives")
	}
	if state := g.state(); state.Status != engine.Stopped {
		t.Errorf("after the stop it is %+v", state)
	}
	g.wantNothingLeft()
}

func TestLimits(t *testing.T) {
	g := newGuest(t, "limits")
	g.record.Limits = registry.Limits{MemoryBytes: 64 << 20, CPUs: 1.5, Tasks: 60}
	g.save()
	g.start()
	// tail keeps what it is given in memory until a line ends.
	hog := []string{"sh", "-c", "head -c 200000000 /dev/zero | tail >/dev/null"}
	status, _, _ := g.exec("sh", "-c", `head -c 200000000 /dev/zero | tail >/dev/null; exit $?`)
	if status != 137 {
		t.Errorf("a program that takes more memory than there is ended with status %d", status)
	}
	g.inside("true")
	fork := "for i in $(seq 100); do sleep 0.3 & done; wait"
	if status, stdout, stderr := g.exec("sh", "-c", fork); status == 0 {
		t.Errorf("100 processes were made with a limit of 60: %q %q", stdout, stderr)
	}
	if err := g.engine.SetLimits(g.context(), g.name, registry.Limits{MemoryBytes: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := g.exec(hog...); status != 0 {
		t.Errorf("with the limit lifted, the program ended with status %d: %s", status, stderr)
	}
	if status, _, stderr := g.exec("sh", "-c", fork); status != 0 {
		t.Errorf("with the limit lifted, processes could not be made: status %d: %s", status, stderr)
	}
	if state := g.state(); state.Status != engine.Running {
		t.Errorf("the limits bit the supervisor: %+v", state)
	}
}

// State of all containers is asked for by every listing.
func BenchmarkState(b *testing.B) {
	layout, err := registry.NewLayout(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	own, err := process.Of(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	record, err := json.Marshal(supervisor.Record{
		Version: supervisor.RecordVersion, Name: "demo", BootID: process.BootID(), Status: engine.Running,
		Supervisor: own, Nspawn: own, Leader: own,
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := os.MkdirAll(layout.Runtime(), 0o700); err != nil {
		b.Skipf("runtime records lie below /run: %v", err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(layout.Runtime()) })
	if err := os.WriteFile(layout.RuntimeRecord("demo"), record, 0o600); err != nil {
		b.Fatal(err)
	}
	// Without a Runner: it starts no process.
	engineUnderTest := &direct.Engine{Layout: layout}
	for b.Loop() {
		if state, err := engineUnderTest.State("demo"); err != nil || state.Status != engine.Running {
			b.Fatalf("%+v, %v", state, err)
		}
	}
}
