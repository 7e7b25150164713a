package container

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/engine"
)

// failedUnit is an answer of systemctl 252 list-units --output=json.
const failedUnit = `[{"unit":"trouble.service","load":"loaded","active":"failed","sub":"failed","description":"A service that fails"},
{"unit":"slow.service","load":"loaded","active":"activating","sub":"auto-restart","description":"Slow"}]`

func TestUnitsOfANewContainer(t *testing.T) {
	w := newWorld(t)
	w.jobs, w.units, w.unread = []int{3, 1}, failedUnit, true
	result, err := w.manager().Ensure(t.Context(), request("one"))
	if err != nil {
		t.Fatal(err)
	}
	if len(w.jobs) != 0 {
		t.Errorf("the queue was not waited for: %v", w.jobs)
	}
	want := []Unit{
		{Name: "trouble.service", State: "failed", Description: "A service that fails", Log: []string{"one", "log of --unit=trouble.service"}},
		{Name: "slow.service", State: "activating", Description: "Slow"},
	}
	if diff := cmp.Diff(want, result.Units); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
	w.check("one", engine.Running)
}

func TestUnitThatATimerStarts(t *testing.T) {
	w := newWorld(t)
	w.earlierUnits = []string{`[{"unit":"clean.service","load":"loaded","active":"activating","sub":"start","description":"What a timer starts"}]`}
	result, err := w.manager().Ensure(t.Context(), request("one"))
	if err != nil || len(result.Units) != 0 || len(w.earlierUnits) != 0 {
		t.Errorf("%+v, %v", result.Units, err)
	}
}

func TestUnitsThatNeverEndStarting(t *testing.T) {
	w := newWorld(t)
	for range 1000 {
		w.jobs = append(w.jobs, 1)
	}
	w.units = failedUnit
	asked := request("one")
	// It is long enough for the rest of what ensure does.
	asked.Timeout = 5 * time.Second
	result, err := w.manager().Ensure(t.Context(), asked)
	if err != nil || len(result.Units) != 2 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestFailedSwitchNamesUnits(t *testing.T) {
	w := created(t)
	w.switchStatus["/nix/store/c-two"], w.units = 4, failedUnit
	_, err := w.manager().Ensure(t.Context(), request("two"))
	if err == nil {
		t.Fatal("the switch failed, and ensure did not")
	}
	for _, text := range []string{"exit code 4", "unit trouble.service failed; its last log lines:\n  one\n", "unit slow.service still starts", "runs its previous system again"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q:\n%v", text, err)
		}
	}
}

// TestEndedMeanwhile: a guest whose end is noticed only while its sshd is
// waited for is started again.
func TestEndedMeanwhile(t *testing.T) {
	for name, command := range map[string]func(m *Manager) error{
		"ensure": func(m *Manager) error {
			result, err := m.Ensure(context.Background(), request("one"))
			if err == nil && !result.Started {
				err = errors.New("ensure does not say that it started the container")
			}
			return err
		},
		"start": func(m *Manager) error {
			started, err := m.Start(context.Background(), "box", time.Minute)
			if err == nil && !started {
				err = errors.New("start does not say so")
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := created(t)
			w.silent.Store(true)
			// Nobody noticed when it was looked at first.
			looks := 0
			w.onState = func() {
				if looks++; looks == 2 {
					w.state = engine.State{Status: engine.Failed, Detail: "killed"}
				}
			}
			if err := command(w.manager()); err != nil {
				t.Fatal(err)
			}
			w.check("one", engine.Running)
		})
	}
}

// TestNewContainerEnds: a guest that ends before its sshd answers is not
// started again and again.
func TestNewContainerEnds(t *testing.T) {
	w := newWorld(t)
	w.onState = func() {
		if w.state.Status == engine.Running {
			w.silent.Store(true)
			w.state = engine.State{Status: engine.Failed, Detail: "its init crashed"}
		}
	}
	manager := w.manager()
	manager.sshPort = "1"
	_, err := manager.Ensure(t.Context(), request("one"))
	var failure *engine.StartError
	if !errors.As(err, &failure) || !strings.Contains(err.Error(), "its init crashed") || !strings.Contains(err.Error(), "nothing of it is left") {
		t.Errorf("the error is %v", err)
	}
	w.onState = func() {}
	w.checkGone()
}
