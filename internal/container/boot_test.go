package container

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/engine"
	"devhost/internal/registry"
)

// manyEngine keeps the state of each container by itself.
type manyEngine struct {
	mutex    sync.Mutex
	states   map[string]engine.Status
	fails    map[string]error
	prepared int
	// running is how many are being started, most how many there were at once.
	running, most int
}

func (e *manyEngine) Features() engine.Features { return engine.Features{Name: "many"} }

func (e *manyEngine) Prepare(context.Context) error {
	e.prepared++
	return nil
}

func (e *manyEngine) Tidy(context.Context) error { return nil }

func (e *manyEngine) Start(_ context.Context, name string) error {
	e.mutex.Lock()
	e.running++
	e.most = max(e.most, e.running)
	e.mutex.Unlock()
	// The first one waits until it is not alone.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		e.mutex.Lock()
		most := e.most
		e.mutex.Unlock()
		if most > 1 {
			break
		}
	}
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.running--
	if err := e.fails[name]; err != nil {
		return err
	}
	e.states[name] = engine.Running
	return nil
}

func (e *manyEngine) Stop(_ context.Context, name string, _ time.Duration) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	delete(e.states, name)
	return nil
}

func (e *manyEngine) State(name string) (engine.State, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if status, known := e.states[name]; known {
		return engine.State{Status: status}, nil
	}
	return engine.State{Status: engine.Stopped}, nil
}

func TestBoot(t *testing.T) {
	w := created(t)
	record, err := w.registry.Load("box")
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, enabled bool) {
		t.Helper()
		other := *record
		other.Name, other.Enabled = name, enabled
		if err := errors.Join(os.MkdirAll(w.registry.Container(name), 0o700), w.registry.Save(&other)); err != nil {
			t.Fatal(err)
		}
	}
	add("off", false)
	add("fails", true)
	add("runs", true)
	for _, name := range strings.Fields("c d e f g h i j k l m n o p q") {
		add(name, true)
	}
	add("damaged", true)
	if err := os.WriteFile(w.registry.Record("damaged"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A first ensure that was killed.
	if err := os.MkdirAll(w.registry.Container("half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.registry.WriteJournal("half", &registry.JournalEntry{Operation: registry.Create, Step: StepFiles}); err != nil {
		t.Fatal(err)
	}
	unlock, err := w.registry.Lock(t.Context(), "c", "test", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	many := &manyEngine{states: map[string]engine.Status{"runs": engine.Running}, fails: map[string]error{"fails": errors.New("no such system")}}
	m := w.manager()
	m.Engine, m.LockTimeout = many, 10*time.Millisecond
	results, err := m.Boot(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]BootResult{}
	for _, one := range results {
		if (one.Err != nil) != (one.Result == BootFailed) {
			t.Errorf("%s: %s, %v", one.Name, one.Result, one.Err)
		}
		if len(one.Name) > 1 || one.Name == "c" {
			got[one.Name] = one.Result
		} else if one.Result != BootStarted {
			t.Errorf("%s: %s, %v", one.Name, one.Result, one.Err)
		}
		if one.Name == "fails" && (!strings.Contains(one.Err.Error(), "no such system") || !strings.Contains(one.Err.Error(), "devhost start fails")) {
			t.Errorf("it says %v", one.Err)
		}
	}
	want := map[string]BootResult{"box": BootStarted, "off": BootStopped, "fails": BootFailed, "runs": BootRuns, "damaged": BootFailed, "half": BootGone, "c": BootBusy}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if many.prepared != 1 {
		t.Errorf("the engine was prepared %d times", many.prepared)
	}
	if many.most < 2 {
		t.Error("they were started one after the other")
	}
	if _, err := os.Stat(w.registry.Container("half")); err == nil {
		t.Error("what a killed ensure left is still there")
	}
	if off, err := w.registry.Load("off"); err != nil || off.Enabled {
		t.Errorf("what was stopped is to run now: %+v, %v", off, err)
	}
	if failed, err := w.registry.Load("fails"); err != nil || !failed.Enabled {
		t.Errorf("what failed is not to run any more: %+v, %v", failed, err)
	}
}
