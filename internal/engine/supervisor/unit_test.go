package supervisor

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// noNetwork has no interfaces.
type noNetwork struct{}

func (noNetwork) Attach(context.Context, string, registry.Address) error { return nil }
func (noNetwork) Detach(context.Context, string, registry.Address) error { return nil }

func newUnit(t *testing.T) *Unit {
	t.Helper()
	layout, err := registry.NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := makeRuntime(layout); err != nil {
		t.Skipf("runtime records lie below /run: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(layout.Runtime()) })
	return &Unit{
		Layout: layout, Name: "demo", Network: noNetwork{}, Logger: hclog.NewNullLogger(),
		Load:         func(string) (*registry.Container, error) { return nil, errors.New("its record is broken") },
		SetLimits:    func(context.Context, registry.Limits) error { return nil },
		LastWords:    func(context.Context, time.Time) string { return "Failed to do it" },
		ForgetLimits: func() error { return nil },
		Unregister:   func(context.Context) error { return nil },
	}
}

func TestEnded(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	tests := []struct {
		name       string
		status     engine.Status
		started    time.Time
		quick      int
		ending     Ending
		wantStatus engine.Status
		wantDetail string
		wantQuick  int
	}{
		{name: "powered off", status: engine.Running, ending: Ending{"success", "exited", "0"}},
		{name: "was stopped", status: engine.Stopping, ending: Ending{"success", "exited", "0"}},
		{name: "powered off too soon", status: engine.Starting, ending: Ending{"success", "exited", "0"}, wantStatus: engine.Failed, wantDetail: "the guest powered off before it was up"},
		{name: "reboots", status: engine.Running, started: long, quick: 5, ending: Ending{"success", "exited", "133"}, wantStatus: engine.Starting},
		{name: "reboots quickly", status: engine.Running, started: time.Now(), quick: 1, ending: Ending{"success", "exited", "133"}, wantStatus: engine.Starting, wantQuick: 2},
		{name: "nspawn failed", status: engine.Starting, ending: Ending{"exit-code", "exited", "1"}, wantStatus: engine.Failed, wantDetail: "systemd-nspawn ended with exit code 1: Failed to do it"},
		{name: "killed", status: engine.Running, ending: Ending{"signal", "killed", "KILL"}, wantStatus: engine.Failed, wantDetail: "systemd-nspawn was ended by signal KILL (signal): Failed to do it"},
		{name: "not off in time", status: engine.Running, ending: Ending{"timeout", "killed", "KILL"}, wantStatus: engine.Failed, wantDetail: "it did not power off in time and was killed: Failed to do it"},
		{name: "failed before", status: engine.Failed, ending: Ending{"exit-code", "exited", "0"}, wantStatus: engine.Failed, wantDetail: "of before"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := newUnit(t)
			own, err := process.Of(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			record := Record{Name: u.Name, Status: test.status, StartedAt: test.started, QuickReboots: test.quick, Supervisor: own, Nspawn: own, Leader: own}
			if test.status == engine.Failed {
				record.Detail = "of before"
			}
			if err := record.write(u.Layout); err != nil {
				t.Fatal(err)
			}
			if err := u.Ended(t.Context(), test.ending); err != nil {
				t.Fatal(err)
			}
			got, err := ReadRecord(u.Layout, u.Name)
			if err != nil {
				t.Fatal(err)
			}
			if test.wantStatus == "" {
				if got != nil {
					t.Fatalf("it left %+v", got)
				}
				if _, err := os.Stat(u.Layout.Runtime()); err == nil {
					t.Error("it left an empty folder")
				}
				return
			}
			if got == nil || got.Status != test.wantStatus || got.Detail != test.wantDetail || got.QuickReboots != test.wantQuick {
				t.Fatalf("it recorded %+v", got)
			}
			if got.Supervisor.PID != 0 || got.Nspawn.PID != 0 || got.Leader.PID != 0 {
				t.Errorf("processes that are gone are in %+v", got)
			}
		})
	}
	t.Run("without a record", func(t *testing.T) {
		u := newUnit(t)
		if err := u.Ended(t.Context(), Ending{"signal", "killed", "KILL"}); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadRecord(u.Layout, u.Name); err != nil || got == nil || got.Status != engine.Failed {
			t.Errorf("it recorded %+v, %v", got, err)
		}
	})
}

func TestStartedWithoutNspawn(t *testing.T) {
	u := newUnit(t)
	if err := u.Started(t.Context(), 4711); !errors.Is(err, errEnded) {
		t.Errorf("without a record: %v", err)
	}
	record := Record{Name: u.Name, Status: engine.Starting, Nspawn: process.ID{PID: os.Getpid(), Start: 1}}
	if err := record.write(u.Layout); err != nil {
		t.Fatal(err)
	}
	if err := u.Started(t.Context(), os.Getpid()); !errors.Is(err, errEnded) {
		t.Errorf("with that of another process: %v", err)
	}
	if got, err := ReadRecord(u.Layout, u.Name); err != nil || got.Status != engine.Starting {
		t.Errorf("Ended is to say why, but it is %+v, %v", got, err)
	}
}

// Whatever keeps nspawn from starting is recorded, and frees the lock.
func TestBecomeFails(t *testing.T) {
	u := newUnit(t)
	err := u.Become(t.Context())
	var failure *Failure
	if !errors.As(err, &failure) || !strings.Contains(err.Error(), "its record is broken") {
		t.Errorf("error %v", err)
	}
	got, err := ReadRecord(u.Layout, u.Name)
	if err != nil || got == nil || got.Status != engine.Failed || got.Detail != "its record is broken" {
		t.Errorf("it recorded %+v, %v", got, err)
	}
	unlock, err := lock(u.Layout, u.Name)
	if err != nil {
		t.Fatal(err)
	}
	err = u.Become(t.Context())
	if !errors.As(err, new(*Busy)) {
		t.Errorf("with a supervisor: %v", err)
	}
	unlock()
}

// Nobody but PID 1 of a pid namespace is taken for the guest's PID 1.
func TestLeaderOf(t *testing.T) {
	own, err := process.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if leader, err := leaderOf(ctx, own); err == nil {
		t.Errorf("it found %+v", leader)
	}
	if _, err := leaderOf(t.Context(), process.ID{PID: 1 << 30}); err == nil {
		t.Error("a process that is not there has children")
	}
}
