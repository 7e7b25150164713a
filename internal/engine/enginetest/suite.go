package enginetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/supervisor"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// Run holds an engine against what callers of engine.Engine rely on.
func Run(t *testing.T, host Host) {
	for _, test := range []struct {
		name string
		test func(*testing.T, Host)
	}{
		{"start and stop", testStartAndStop},
		{"names", testNames},
		{"unknown container", testUnknown},
		{"nothing of the host gets in", testNothingOfTheHostGetsIn},
		{"reboot", testReboot},
		{"power off", testPowerOff},
		{"killed", testKilled},
		{"interrupted start", testInterruptedStart},
		{"start after a killed start", testStartAfterKilledStart},
		{"failed start", testFailedStart},
		{"start after a failure", testStartAfterFailure},
		{"stop kills who does not stop", testStubborn},
		{"stop of a guest that does not listen yet", testDeaf},
		{"interrupted stop", testInterruptedStop},
		{"limits", testLimits},
		{"exec is part of the container", testExecIsInside},
		{"freeze", testFreeze},
		{"many at once", testManyAtOnce},
	} {
		t.Run(test.name, func(t *testing.T) { test.test(t, host) })
	}
}

func testStartAndStop(t *testing.T, host Host) {
	g := NewGuest(t, host, "life")
	if got := g.State(); got.Status != engine.Stopped {
		t.Fatalf("before its first start it is %+v", got)
	}
	if _, err := g.Engine.Guest(g.Name); !errors.As(err, new(*enter.NotRunning)) || !strings.Contains(err.Error(), "devhost start life") {
		t.Errorf("entering a stopped container: %v", err)
	}
	before := time.Now()
	g.Start()
	state := g.State()
	if state.Status != engine.Running || state.SupervisorPID == 0 || state.LeaderPID == 0 || state.StartedAt.Before(before.Add(-time.Second)) || state.Detail != "" {
		t.Errorf("a started container is %+v", state)
	}
	if name := g.Inside("cat /proc/1/comm"); name != "systemd" {
		t.Errorf("PID 1 is %q", name)
	}
	if host := g.Inside("uname -n"); host != "life" {
		t.Errorf("the host name is %q", host)
	}
	g.Start()
	if again := g.State(); again != state {
		t.Errorf("starting a running container made %+v of %+v", again, state)
	}
	g.Stop()
	if got := g.State(); got != (engine.State{Status: engine.Stopped}) {
		t.Errorf("a stopped container is %+v", got)
	}
	g.WantNothingLeft()
	g.Stop()
	g.WantNothingLeft()
	console := g.Console()
	if !strings.Contains(console, "Reached target") && !strings.Contains(console, "tiny") {
		t.Errorf("the console says %q", console)
	}
	if strings.ContainsAny(console, "\r\x1b") {
		t.Errorf("the console's log holds terminal codes: %q", console)
	}
	g.Start()
	g.Inside("true")
}

func testNames(t *testing.T, host Host) {
	for _, name := range []string{"1a2b", "a-b-c", strings.Repeat("n", 63), "payload"} {
		t.Run(name, func(t *testing.T) {
			g := NewGuest(t, host, name)
			g.Start()
			if host := g.Inside("uname -n"); host != name {
				t.Errorf("the host name is %q", host)
			}
			g.Stop()
			g.WantNothingLeft()
		})
	}
}

func testUnknown(t *testing.T, host Host) {
	g := NewGuest(t, host, "known")
	if state, err := g.Engine.State("unknown"); err != nil || state != (engine.State{Status: engine.Stopped}) {
		t.Errorf("an unknown container is %+v, %v", state, err)
	}
	if err := g.Engine.Stop(g.Context(), "unknown", time.Second); err != nil {
		t.Errorf("stopping an unknown container: %v", err)
	}
	if err := g.Engine.SetLimits(g.Context(), "unknown", registry.Limits{Tasks: 100}); err != nil {
		t.Errorf("limits of an unknown container: %v", err)
	}
}

// What the guest's processes can see of the host's session that started them.
func testNothingOfTheHostGetsIn(t *testing.T, host Host) {
	const secret = "of-the-host"
	t.Setenv("DEVHOST_TEST_SECRET", secret)
	// A descriptor such as a shell hands down: without close-on-exec.
	path := filepath.Join(t.TempDir(), secret)
	descriptor, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(descriptor)
	g := NewGuest(t, host, "clean")
	g.Start()
	record := g.RuntimeRecord()
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
			target, _ := os.Readlink(link)
			if strings.Contains(target, secret) || what == "guest" && strings.Contains(target, g.Layout.Runtime()) {
				t.Errorf("the %s has %s of the host", what, target)
			}
		}
	}
	if session, err := unix.Getsid(record.Supervisor.PID); err != nil || session != record.Supervisor.PID {
		t.Errorf("the supervisor is in session %d (%v), not in its own", session, err)
	}
}

// wantRebooted waits until the guest runs again.
func (g *Guest) wantRebooted(before *supervisor.Record) *supervisor.Record {
	g.T.Helper()
	Eventually(g.T, "the guest ran again", func() bool {
		record, err := supervisor.ReadRecord(g.Layout, g.Name)
		return err == nil && record != nil && record.Status == engine.Running && record.Leader != before.Leader
	})
	return g.RuntimeRecord()
}

func testReboot(t *testing.T, host Host) {
	g := NewGuest(t, host, "reboot")
	g.Start()
	before := g.RuntimeRecord()
	// A reboot starts the system that the record names by then.
	next := filepath.Join(g.Layout.State, "next")
	g.Write(filepath.Join(next, "devhost-system.json"), `{"version":1,"hostUsr":true}`, 0o644)
	g.Write(filepath.Join(next, "init"), TinyInit, 0o755)
	g.WriteInside(filepath.Join(next, "init"), strings.Replace(TinyInit, "set -e", "set -e; touch /next-was-here", 1), 0o755)
	g.Record.System = next
	g.Save()
	g.Exec("systemctl", "reboot")
	after := g.wantRebooted(before)
	if after.System != next {
		t.Errorf("before the reboot %+v, after it %+v", before, after)
	}
	// Running is only that there is a first process: it may not have begun.
	g.WantBooted()
	g.Inside("test -e /next-was-here")
	if state := g.State(); state.Status != engine.Running || state.Detail != "" {
		t.Errorf("after the reboot it is %+v", state)
	}
	g.uidBase = after.UIDBase
	g.Stop()
	g.WantNothingLeft()
}

func testPowerOff(t *testing.T, host Host) {
	g := NewGuest(t, host, "poweroff")
	g.Start()
	g.Exec("systemctl", "poweroff")
	Eventually(t, "it was stopped", func() bool { return g.State() == engine.State{Status: engine.Stopped} })
	Eventually(t, "nothing was left", func() bool { return len(g.Leftovers()) == 0 })
	g.Start()
	g.Inside("true")
}

func testKilled(t *testing.T, host Host) {
	for _, test := range []struct {
		name   string
		victim func(*supervisor.Record) process.ID
	}{
		{"nspawn", func(record *supervisor.Record) process.ID { return record.Nspawn }},
		{"guest", func(record *supervisor.Record) process.ID { return record.Leader }},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewGuest(t, host, "killed-"+test.name)
			g.Start()
			g.Kill(test.victim(g.RuntimeRecord()))
			Eventually(t, "it had failed", func() bool {
				state := g.State()
				return state.Status == engine.Failed && state.Detail != ""
			})
			g.Start()
			if state := g.State(); state.Status != engine.Running || state.Detail != "" {
				t.Errorf("started again, it is %+v", state)
			}
			g.Inside("true")
			g.Kill(test.victim(g.RuntimeRecord()))
			g.Stop()
			if state := g.State(); state.Status != engine.Stopped {
				t.Errorf("after the stop it is %+v", state)
			}
			g.WantNothingLeft()
		})
	}
}

// neverReady is what a guest does that never gets to its own systemd.
const neverReady = "#!/bin/sh\necho waiting for nothing\nsleep 1000\n"

func testInterruptedStart(t *testing.T, host Host) {
	g := NewGuest(t, host, "interrupted")
	g.WriteInside("before-systemd", neverReady, 0o755)
	g.Hold()
	ctx, cancel := context.WithCancel(g.Context())
	defer cancel()
	go func() {
		defer cancel()
		for deadline := time.Now().Add(Patience); time.Now().Before(deadline) && !strings.Contains(g.Console(), "waiting for nothing"); {
			time.Sleep(20 * time.Millisecond)
		}
		if state, err := g.Engine.State(g.Name); err != nil || state.Status != engine.Starting {
			t.Errorf("while it starts it is %+v, %v", state, err)
		}
	}()
	err := g.Engine.Start(ctx, g.Name)
	var failed *engine.StartError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) {
		t.Fatalf("error %v", err)
	}
	if !slices.Contains(failed.Tail, "waiting for nothing") {
		t.Errorf("the last lines are %q", failed.Tail)
	}
	if got := g.State(); got.Status != engine.Stopped {
		t.Errorf("after an interrupted start it is %+v", got)
	}
	g.WantNothingLeft()
}

// The command that started it was killed; the next one waits for the same
// start.
func testStartAfterKilledStart(t *testing.T, host Host) {
	g := NewGuest(t, host, "resumed")
	free := g.Hold()
	defer free()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	forgotten := make(chan error, 1)
	go func() { forgotten <- g.Engine.Start(ctx, g.Name) }()
	Eventually(t, "it was starting", func() bool { return g.State().Status == engine.Starting && linkExists(g.Record.Address.HostInterface) })
	second := make(chan error, 1)
	go func() { second <- g.Engine.Start(ctx, g.Name) }()
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

func testFailedStart(t *testing.T, host Host) {
	tests := []struct {
		name  string
		spoil func(g *Guest)
		want  string
	}{
		{"no init", func(g *Guest) {
			if err := os.Remove(filepath.Join(g.Record.System, "init")); err != nil {
				g.T.Fatal(err)
			}
		}, "the container's system has no init"},
		{"init fails", func(g *Guest) {
			g.WriteInside(filepath.Join(g.Record.System, "init"), "#!/bin/sh\necho 'activation went wrong'\nexit 3\n", 0o755)
		}, "exit code 3"},
		{"init does not run", func(g *Guest) {
			g.WriteInside(filepath.Join(g.Record.System, "init"), "#!/no/such/shell\n", 0o755)
		}, "execv"},
		{"powers off at once", func(g *Guest) {
			g.WriteInside(filepath.Join(g.Record.System, "init"), "#!/bin/sh\nexit 0\n", 0o755)
		}, "powered off"},
		{"system of another devhost", func(g *Guest) {
			g.Write(filepath.Join(g.Record.System, "devhost-system.json"), `{"version":9}`, 0o644)
		}, "version 9"},
		{"no record", func(g *Guest) {
			if err := os.Remove(g.Layout.Record(g.Name)); err != nil {
				g.T.Fatal(err)
			}
		}, "container.json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := NewGuest(t, host, "failing")
			test.spoil(g)
			err := g.Engine.Start(g.Context(), g.Name)
			var failed *engine.StartError
			if err != nil && (!errors.As(err, &failed) || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("error %v", err)
			}
			// A guest that ends right after its start may have been up.
			Eventually(t, "it ended", func() bool {
				status := g.State().Status
				return status == engine.Failed || status == engine.Stopped
			})
			state := g.State()
			// An engine that found out late may know the reason of the guest only.
			if said := state.Detail + g.Console(); !strings.Contains(said, test.want) && (failed != nil || test.want != "powered off") {
				t.Errorf("it is %+v, and its console says:\n%s", state, said)
			}
			// To power off is no failure, once it was up.
			if state.Status != engine.Failed && (failed != nil || test.want != "powered off") {
				t.Errorf("after it failed it is %+v", state)
			}
			g.Stop()
			if state := g.State(); state.Status != engine.Stopped {
				t.Errorf("after clearing it is %+v", state)
			}
			g.WantNothingLeft()
		})
	}
}

func testStartAfterFailure(t *testing.T, host Host) {
	g := NewGuest(t, host, "again")
	init := filepath.Join(g.Record.System, "init")
	if err := os.Remove(init); err != nil {
		t.Fatal(err)
	}
	for range 7 {
		if err := g.Engine.Start(g.Context(), g.Name); !errors.As(err, new(*engine.StartError)) {
			t.Fatalf("error %v", err)
		}
	}
	g.Write(init, TinyInit, 0o755)
	g.Start()
	if state := g.State(); state.Status != engine.Running || state.Detail != "" {
		t.Errorf("it is %+v", state)
	}
}

// stubborn is a guest whose power-off waits for ever.
func stubborn(t *testing.T, host Host, name string) *Guest {
	t.Helper()
	g := NewGuest(t, host, name)
	script := strings.Replace(TinyInit, "ExecStart=/bin/true", "ExecStart=/bin/sleep 1000\\nTimeoutStartSec=infinity", 1)
	g.WriteInside(filepath.Join(g.Record.System, "init"), script, 0o755)
	g.Start()
	return g
}

func testStubborn(t *testing.T, host Host) {
	g := stubborn(t, host, "stubborn")
	begin := time.Now()
	const patience = 200 * time.Millisecond
	if err := g.Engine.Stop(g.Context(), g.Name, patience); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < patience {
		t.Errorf("it was killed after %s", took)
	}
	if got := g.State(); got != (engine.State{Status: engine.Stopped}) {
		t.Errorf("it is %+v", got)
	}
	g.WantNothingLeft()
}

// A shell as PID 1 ignores what asks it to power off; systemd, which it becomes
// later, must hear of it all the same.
func testDeaf(t *testing.T, host Host) {
	g := NewGuest(t, host, "deaf")
	g.WriteInside("before-systemd", "#!/bin/sh\nsleep 1\n", 0o755)
	if err := g.Engine.Start(g.Context(), g.Name); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	const patience = Patience / 2
	if err := g.Engine.Stop(g.Context(), g.Name, patience); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took >= patience {
		t.Errorf("it did not power off and was killed after %s", took)
	}
	g.WantNothingLeft()
}

func testInterruptedStop(t *testing.T, host Host) {
	g := stubborn(t, host, "unhurried")
	ctx, cancel := context.WithCancel(g.Context())
	defer cancel()
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if state, err := g.Engine.State(g.Name); err == nil && state.Status == engine.Stopping {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if err := g.Engine.Stop(ctx, g.Name, Patience); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if state := g.State(); state.Status != engine.Stopping {
		t.Errorf("after an interrupted stop it is %+v", state)
	}
	if err := g.Engine.Stop(g.Context(), g.Name, 0); err != nil {
		t.Fatal(err)
	}
	g.WantNothingLeft()
}

// Whether limits bite depends on the host's cgroups; that they can be given does
// not, and they do not end what is within them.
func testLimits(t *testing.T, host Host) {
	g := NewGuest(t, host, "limits")
	g.Record.Limits = registry.Limits{IOWeight: 50}
	g.Save()
	g.Start()
	for _, limits := range []registry.Limits{{IOWeight: 500}, {}} {
		if err := g.Engine.SetLimits(g.Context(), g.Name, limits); err != nil {
			t.Errorf("%+v: %v", limits, err)
		}
		g.Inside("true")
	}
	if state := g.State(); state.Status != engine.Running || state.Detail != "" {
		t.Errorf("it is %+v", state)
	}
}

// What exec starts is in the container's cgroup, under its limits, and ends with
// it.
func testExecIsInside(t *testing.T, host Host) {
	g := NewGuest(t, host, "entered")
	g.Start()
	guest, err := g.Engine.Guest(g.Name)
	if err != nil {
		t.Fatal(err)
	}
	before, err := guest.Group.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(before, guest.Leader.PID) {
		t.Fatalf("the container's cgroup holds %v and not its PID 1, %d", before, guest.Leader.PID)
	}
	ended := make(chan int, 1)
	go func() {
		status, _, _ := g.Exec("sleep", "1000")
		ended <- status
	}()
	var sleeper process.ID
	Eventually(t, "the command ran in the container's cgroup", func() bool {
		pids, err := guest.Group.PIDs()
		if err != nil {
			return false
		}
		for _, pid := range pids {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if string(text) == "sleep\n" && !slices.Contains(before, pid) {
				sleeper, err = process.Of(pid)
				return err == nil
			}
		}
		return false
	})
	g.Stop()
	if status := <-ended; status == 0 {
		t.Error("the command ended as if nothing had happened")
	}
	if sleeper.Alive() {
		t.Error("the command outlived its container")
	}
	g.WantNothingLeft()
}

func testFreeze(t *testing.T, host Host) {
	g := NewGuest(t, host, "held")
	if !g.Engine.Features().Freezes {
		t.Skip("this host cannot hold processes")
	}
	g.Start()
	if err := g.Engine.Freeze(g.Context(), g.Name); err != nil {
		t.Fatal(err)
	}
	if err := g.Engine.Thaw(g.Name); err != nil {
		t.Fatal(err)
	}
	g.Inside("true")
	if err := g.Engine.Freeze(g.Context(), g.Name); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	g.WantNothingLeft()
}

func testManyAtOnce(t *testing.T, host Host) {
	first := NewGuest(t, host, "m0")
	guests := []*Guest{first}
	const more = 5
	for i := range more {
		g := newGuest(t, host, first.Layout, fmt.Sprintf("m%d", i+1))
		t.Cleanup(g.remove)
		guests = append(guests, g)
	}
	together := func(what string, do func(*Guest) error) {
		t.Helper()
		var group sync.WaitGroup
		problems := make([]error, len(guests))
		for i, g := range guests {
			group.Go(func() { problems[i] = do(g) })
		}
		group.Wait()
		if err := errors.Join(problems...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	together("start", func(g *Guest) error { return g.Engine.Start(ctx, g.Name) })
	leaders := map[int]bool{}
	for _, g := range guests {
		state := g.State()
		if state.Status != engine.Running || leaders[state.LeaderPID] {
			t.Errorf("%s is %+v", g.Name, state)
		}
		leaders[state.LeaderPID] = true
	}
	together("stop", func(g *Guest) error { return g.Engine.Stop(ctx, g.Name, 10*time.Second) })
	for _, g := range guests {
		if got := g.State(); got != (engine.State{Status: engine.Stopped}) {
			t.Errorf("%s is %+v", g.Name, got)
		}
		g.WantNothingLeft()
	}
}
