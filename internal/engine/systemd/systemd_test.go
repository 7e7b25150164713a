package systemd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
	"devhost/internal/engine/enginetest"
	"devhost/internal/engine/supervisor"
	"devhost/internal/engine/systemd"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// The engine is what the rest of devhost takes it for.
var (
	_ engine.Engine   = (*systemd.Engine)(nil)
	_ engine.Limiter  = (*systemd.Engine)(nil)
	_ engine.Freezer  = (*systemd.Engine)(nil)
	_ engine.Journal  = (*systemd.Engine)(nil)
	_ engine.Preparer = (*systemd.Engine)(nil)
)

func newEngine(layout registry.Layout, load func(string) (*registry.Container, error), network supervisor.Network) *systemd.Engine {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return &systemd.Engine{Layout: layout, Load: load, Runner: execx.New(), Network: network, Program: self}
}

func host(layout registry.Layout, load func(string) (*registry.Container, error), network supervisor.Network) enginetest.Engine {
	return newEngine(layout, load, network)
}

// TestMain lets the test program be the processes of a unit.
func TestMain(m *testing.M) {
	enginetest.Main(m, func(layout registry.Layout, name string, flags []string) error {
		own := newEngine(layout, enginetest.Load(layout), enginetest.Cable(layout))
		unit := &supervisor.Unit{
			Layout: layout, Name: name, Load: own.Load, Network: own.Network,
			Logger:       hclog.New(&hclog.LoggerOptions{Output: os.Stderr, DisableTime: true}),
			SetLimits:    func(ctx context.Context, limits registry.Limits) error { return own.Limit(ctx, name, limits) },
			ForgetLimits: func() error { return own.ForgetLimits(name) },
			Unregister:   func(ctx context.Context) error { return own.Unregister(ctx, name) },
			LastWords:    func(ctx context.Context, since time.Time) string { return own.LastWords(ctx, name, since) },
		}
		switch strings.Join(flags, " ") {
		case "--exec":
			return unit.Become(context.Background())
		case "--started":
			pid, err := strconv.Atoi(os.Getenv("MAINPID"))
			if err != nil {
				return err
			}
			return unit.Started(context.Background(), pid)
		case "--ended":
			return unit.Ended(context.Background(), supervisor.Ending{
				Result: os.Getenv("SERVICE_RESULT"), Code: os.Getenv("EXIT_CODE"), Status: os.Getenv("EXIT_STATUS"),
			})
		}
		return fmt.Errorf("flags %q", flags)
	})
}

func requireSystemd(t *testing.T) {
	t.Helper()
	if !systemd.Booted() {
		t.Skip("PID 1 is no systemd here; tests/box runs these tests in a host where it is")
	}
}

func TestConformance(t *testing.T) {
	requireSystemd(t)
	enginetest.Run(t, host)
}

// unitName is the unit of a test's container.
func unitName(g *enginetest.Guest) string {
	return "devhost-" + g.Layout.Instance() + "@" + g.Name + ".service"
}

func manager(t *testing.T) *dbus.Conn {
	t.Helper()
	connection, err := dbus.NewSystemdConnectionContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connection.Close)
	return connection
}

func TestLimitsAreTheUnits(t *testing.T) {
	requireSystemd(t)
	g := enginetest.NewGuest(t, host, "limits")
	connection := manager(t)
	want := func(memory, tasks, weight uint64) {
		t.Helper()
		properties, err := connection.GetUnitTypePropertiesContext(t.Context(), unitName(g), "Service")
		if err != nil {
			t.Fatal(err)
		}
		got := []any{properties["MemoryMax"], properties["TasksMax"], properties["IOWeight"]}
		if diff := cmp.Diff([]any{memory, tasks, weight}, got); diff != "" {
			t.Errorf("memory, tasks and weight (-want +got):\n%s", diff)
		}
		// The unit's own tools must not ask for a daemon-reload.
		reload, err := connection.GetUnitPropertyContext(t.Context(), unitName(g), "NeedDaemonReload")
		if err != nil || reload.Value.Value() != false {
			t.Errorf("the unit has changed on disk: %v, %v", reload, err)
		}
	}
	const none = math.MaxUint64
	g.Record.Limits = registry.Limits{MemoryBytes: 1 << 30, Tasks: 500, IOWeight: 20}
	g.Save()
	g.Start()
	want(1<<30, 500, 20)
	if err := g.Engine.SetLimits(t.Context(), g.Name, registry.Limits{Tasks: 600}); err != nil {
		t.Fatal(err)
	}
	want(none, 600, none)
	g.Record.Limits = registry.Limits{MemoryBytes: 2 << 30}
	g.Save()
	before := g.RuntimeRecord()
	g.Exec("systemctl", "reboot")
	enginetest.Eventually(t, "it ran again", func() bool {
		state := g.State()
		return state.Status == engine.Running && state.LeaderPID != before.Leader.PID
	})
	want(2<<30, 16384, none)
	g.Stop()
	g.WantNothingLeft()
}

// Whatever others do to the unit, State tells the truth.
func TestDrivenByOthers(t *testing.T) {
	requireSystemd(t)
	g := enginetest.NewGuest(t, host, "others")
	connection := manager(t)
	job := func(start func(context.Context, string, string, chan<- string) (int, error)) string {
		t.Helper()
		done := make(chan string, 1)
		if _, err := start(t.Context(), unitName(g), "replace", done); err != nil {
			t.Fatal(err)
		}
		return <-done
	}
	g.Start()
	if result := job(connection.StopUnitContext); result != "done" {
		t.Errorf("stopping the unit: %s", result)
	}
	if got := g.State(); got != (engine.State{Status: engine.Stopped}) {
		t.Errorf("stopped by systemctl, it is %+v", got)
	}
	if result := job(connection.StartUnitContext); result != "done" {
		t.Errorf("starting the unit: %s", result)
	}
	if got := g.State(); got.Status != engine.Running || got.LeaderPID == 0 {
		t.Errorf("started by systemctl, it is %+v", got)
	}
	g.WantBooted()
	if err := g.Engine.Start(t.Context(), g.Name); err != nil {
		t.Error(err)
	}
	before := g.RuntimeRecord()
	if result := job(connection.RestartUnitContext); result != "done" {
		t.Errorf("restarting the unit: %s", result)
	}
	if after := g.RuntimeRecord(); after.Leader == before.Leader || after.Status != engine.Running {
		t.Errorf("restarted by systemctl, it is %+v, and was %+v", after, before)
	}
	if err := connection.KillUnitWithTarget(t.Context(), unitName(g), dbus.All, int32(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	enginetest.Eventually(t, "it had failed", func() bool { return g.State().Status == engine.Failed })
	g.Stop()
	g.WantNothingLeft()
}

// A container that a supervisor of its own runs is not stopped over its head.
func TestForeignSupervisor(t *testing.T) {
	requireSystemd(t)
	g := enginetest.NewGuest(t, host, "foreign")
	own, err := process.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(supervisor.Record{
		Version: supervisor.RecordVersion, Name: g.Name, BootID: process.BootID(), Status: engine.Running, Supervisor: own,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Write(g.Layout.RuntimeRecord(g.Name), string(text), 0o600)
	err = g.Engine.Stop(t.Context(), g.Name, time.Second)
	var foreign *systemd.ForeignSupervisor
	if !errors.As(err, &foreign) || foreign.PID != own.PID || !strings.Contains(err.Error(), "DEVHOST_ENGINE=direct devhost stop foreign") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(g.Layout.RuntimeRecord(g.Name)); err != nil {
		t.Fatal(err)
	}
}

// The console of another container of the name is nobody's business.
func TestConsoleOfAnEarlierContainer(t *testing.T) {
	requireSystemd(t)
	g := enginetest.NewGuest(t, host, "named")
	g.Start()
	g.Inside("echo 'a secret' >/dev/console")
	enginetest.Eventually(t, "it was in the journal", func() bool { return strings.Contains(g.Console(), "a secret") })
	g.Stop()
	g.Record.CreatedAt = time.Now()
	g.Save()
	g.Start()
	g.Inside("echo 'no secret' >/dev/console")
	enginetest.Eventually(t, "it was in the journal", func() bool { return strings.Contains(g.Console(), "no secret") })
	if console := g.Console(); strings.Contains(console, "a secret") {
		t.Errorf("the console of the next container says %q", console)
	}
}

func TestFollowedConsole(t *testing.T) {
	requireSystemd(t)
	g := enginetest.NewGuest(t, host, "followed")
	g.Start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- g.Engine.(engine.Journal).Console(ctx, g.Name, engine.ConsoleOptions{Lines: 1, Follow: true}, writer)
		_ = writer.Close()
	}()
	lines := bufio.NewScanner(reader)
	if !lines.Scan() {
		t.Fatal("it has no last line")
	}
	g.Inside("echo '<3>news' >/dev/console")
	found := false
	for !found && lines.Scan() {
		found = lines.Text() == "<3>news"
	}
	if !found {
		t.Error("the news did not come")
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	if err := <-ended; err != nil {
		t.Errorf("following ended with %v", err)
	}
}
