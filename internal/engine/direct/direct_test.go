package direct_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"devhost/internal/engine"
	"devhost/internal/engine/direct"
	"devhost/internal/engine/enginetest"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// The engine is what the rest of devhost takes it for.
var (
	_ engine.Engine  = (*direct.Engine)(nil)
	_ engine.Limiter = (*direct.Engine)(nil)
	_ engine.Freezer = (*direct.Engine)(nil)
)

func TestConformance(t *testing.T) { enginetest.Run(t, host) }

func TestKilled(t *testing.T) {
	running := func(g *guest) {
		g.T.Helper()
		if state := g.State(); state.Status != engine.Running || state.Detail != "" {
			g.T.Errorf("it is %+v", state)
		}
		g.Inside("true")
	}
	tests := []struct {
		name string
		kill func(g *guest)
		want engine.Status
	}{
		{"supervisor", func(g *guest) { g.Kill(g.RuntimeRecord().Supervisor) }, engine.Running},
		{"both", func(g *guest) {
			record := g.RuntimeRecord()
			g.Kill(record.Supervisor)
			// The guest itself may live on.
			g.Kill(record.Nspawn)
		}, engine.Failed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, "killed-"+test.name)
			g.Start()
			test.kill(g)
			if state := g.State(); state.Status != test.want || state.Detail == "" {
				t.Errorf("after the kill it is %+v", state)
			}
			g.Start()
			running(g)
			test.kill(g)
			g.Stop()
			if state := g.State(); state.Status != engine.Stopped {
				t.Errorf("after the stop it is %+v", state)
			}
			g.WantNothingLeft()
		})
	}
}

func TestRebootKeepsTheSupervisor(t *testing.T) {
	g := newGuest(t, "reboot")
	g.Start()
	before := g.RuntimeRecord()
	g.Exec("systemctl", "reboot")
	enginetest.Eventually(t, "the guest ran again", func() bool {
		record, err := supervisor.ReadRecord(g.Layout, g.Name)
		return err == nil && record != nil && record.Status == engine.Running && record.Leader != before.Leader
	})
	if after := g.RuntimeRecord(); after.Supervisor != before.Supervisor {
		t.Errorf("before the reboot %+v, after it %+v", before, after)
	}
}

func TestTakeOver(t *testing.T) {
	g := newGuest(t, "orphan")
	g.Start()
	before := g.RuntimeRecord()
	g.Kill(before.Supervisor)
	// What it says on its console has no reader now, and must not end it.
	g.Inside("dd if=/dev/zero bs=1k count=100 status=none | tr '\\0' x >/dev/console; echo end of orphanage >/dev/console")
	g.Start()
	after := g.RuntimeRecord()
	if after.Leader != before.Leader || after.Supervisor == before.Supervisor {
		t.Errorf("before %+v, after %+v", before, after)
	}
	enginetest.Eventually(t, "the console was read on", func() bool {
		console, _ := os.ReadFile(g.Layout.Log(g.Name))
		return strings.Contains(string(console), "end of orphanage")
	})
	g.Exec("systemctl", "poweroff")
	if err := after.Supervisor.Wait(g.Context()); err != nil {
		t.Fatal(err)
	}
	if got := g.State(); got.Status != engine.Stopped {
		t.Errorf("after powering off it is %+v", got)
	}
	g.WantNothingLeft()
}

func TestRebootAfterTakeOver(t *testing.T) {
	const tellsExitStatus = "6.15"
	if !kernelAtLeast(t, 6, 15) {
		t.Skipf("the exit status of a process that is no child is told by Linux %s and newer", tellsExitStatus)
	}
	g := newGuest(t, "orphan-reboot")
	g.Start()
	before := g.RuntimeRecord()
	g.Kill(before.Supervisor)
	g.Start()
	g.Exec("systemctl", "reboot")
	enginetest.Eventually(t, "the guest ran again", func() bool {
		record, err := supervisor.ReadRecord(g.Layout, g.Name)
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

// Supervisor and starting command were killed: the next start begins anew.
func TestSupervisorKilledWhileStarting(t *testing.T) {
	g := newGuest(t, "halfway")
	g.WriteInside("before-systemd", neverReady, 0o755)
	free := g.Hold()
	first := make(chan error, 1)
	go func() { first <- g.Engine.Start(g.Context(), g.Name) }()
	enginetest.Eventually(t, "it was starting", func() bool { return g.State().Status == engine.Starting && g.State().LeaderPID != 0 })
	record := g.RuntimeRecord()
	g.Kill(record.Supervisor)
	var failed *engine.StartError
	if err := <-first; !errors.As(err, &failed) || !strings.Contains(err.Error(), "supervisor.log") {
		t.Errorf("error %v", err)
	}
	if state := g.State(); state.Status != engine.Failed || !strings.Contains(state.Detail, "devhost start halfway") {
		t.Errorf("after the kill it is %+v", state)
	}
	g.WriteInside("before-systemd", "#!/bin/sh\n", 0o755)
	free()
	g.Start()
	if record.Leader.Alive() {
		t.Error("the guest of the first start still runs")
	}
	g.Inside("true")
}

func TestUnusableRuntimeRecord(t *testing.T) {
	g := newGuest(t, "unusable")
	g.Start()
	record := g.RuntimeRecord()
	g.Kill(record.Supervisor)
	g.Write(g.Layout.RuntimeRecord(g.Name), `{"version":1,"status":"dancing"}`, 0o600)
	if state := g.State(); state.Status != engine.Failed || !strings.Contains(state.Detail, "devhost stop unusable") {
		t.Errorf("it is %+v", state)
	}
	g.Stop()
	if record.Leader.Alive() || record.Nspawn.Alive() {
		t.Error("the guest still runs")
	}
	g.WantNothingLeft()
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
		Version: supervisor.RecordVersion, Name: g.Name, BootID: process.BootID(), Status: engine.Failed, Supervisor: id, Detail: "a test",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(g.Layout.Runtime(), 0o700); err != nil {
		t.Fatal(err)
	}
	g.Write(g.Layout.RuntimeRecord(g.Name), string(record), 0o600)
	if state := g.State(); state.Status != engine.Failed || state.SupervisorPID != id.PID || state.Detail != "a test" {
		t.Errorf("it is %+v", state)
	}
	g.Stop()
	if id.Alive() {
		t.Error("its supervisor still lives")
	}
	if state := g.State(); state.Status != engine.Stopped {
		t.Errorf("after the stop it is %+v", state)
	}
	g.WantNothingLeft()
}

func TestLimits(t *testing.T) {
	g := newGuest(t, "limits")
	g.Record.Limits = registry.Limits{MemoryBytes: 64 << 20, CPUs: 1.5, Tasks: 60}
	g.Save()
	g.Start()
	// tail keeps what it is given in memory until a line ends.
	hog := []string{"sh", "-c", "head -c 200000000 /dev/zero | tail >/dev/null"}
	status, _, _ := g.Exec("sh", "-c", `head -c 200000000 /dev/zero | tail >/dev/null; exit $?`)
	if status != 137 {
		t.Errorf("a program that takes more memory than there is ended with status %d", status)
	}
	g.Inside("true")
	fork := "for i in $(seq 100); do sleep 0.3 & done; wait"
	if status, stdout, stderr := g.Exec("sh", "-c", fork); status == 0 {
		t.Errorf("100 processes were made with a limit of 60: %q %q", stdout, stderr)
	}
	if err := g.Engine.SetLimits(g.Context(), g.Name, registry.Limits{MemoryBytes: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := g.Exec(hog...); status != 0 {
		t.Errorf("with the limit lifted, the program ended with status %d: %s", status, stderr)
	}
	if status, _, stderr := g.Exec("sh", "-c", fork); status != 0 {
		t.Errorf("with the limit lifted, processes could not be made: status %d: %s", status, stderr)
	}
	if state := g.State(); state.Status != engine.Running {
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
