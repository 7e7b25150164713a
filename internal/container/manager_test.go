package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/engine"
	"devhost/internal/registry"
)

func pointer[T any](value T) *T { return &value }

// request asks for a container from channel /c with a provision.
func request(provision string) EnsureRequest {
	return EnsureRequest{Name: "box", Channel: pointer("/c"), Provision: &provision, Timeout: time.Minute, LockTimeout: time.Second}
}

// created is a world with a running container of provision one.
func created(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil {
		t.Fatal(err)
	}
	w.calls = nil
	return w
}

// check looks whether record, profile, guest, snapshot and journal agree on a
// provision.
func (w *world) check(provision string, status engine.Status) {
	w.t.Helper()
	system := "/nix/store/c-" + provision
	record, err := w.registry.Load("box")
	if err != nil {
		w.t.Fatal(err)
	}
	if record.System != system || record.ProvisionHash != provision || w.currentSystem() != system || w.state.Status != status {
		w.t.Errorf("the record has %s of %q, the profile %s, the engine %s; not %s, %s", record.System, record.ProvisionHash, w.currentSystem(), w.state.Status, system, status)
	}
	if status == engine.Running && w.runs != system {
		w.t.Errorf("the guest runs %s, not %s", w.runs, system)
	}
	if _, err := os.Stat(w.registry.Journal("box")); err == nil {
		w.t.Error("the journal is still there")
	}
	snapshots, _ := filepath.Glob(filepath.Join(w.registry.Provision("box"), "*", "provision.nix"))
	var held []string
	for _, path := range snapshots {
		text, _ := os.ReadFile(path)
		held = append(held, string(text))
	}
	if !slices.Equal(held, []string{provision}) {
		w.t.Errorf("the snapshots are %q, not of %q alone", held, provision)
	}
	w.checkTemporary()
}

func (w *world) checkTemporary() {
	w.t.Helper()
	if left, _ := os.ReadDir(w.registry.Temporary()); len(left) != 0 {
		w.t.Errorf("the temporary folder holds %v", left)
	}
}

func (w *world) checkGone() {
	w.t.Helper()
	if left, _ := os.ReadDir(w.registry.Containers()); len(left) != 0 || len(w.generations) != 0 || len(w.published) != 0 || w.state.Status != engine.Stopped {
		w.t.Errorf("left: %v, generations %v, names %v, %s", left, w.generations, w.published, w.state.Status)
	}
	w.checkTemporary()
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	result, err := w.manager().Ensure(t.Context(), request("one"))
	if err != nil {
		t.Fatal(err)
	}
	if !result.Created || !result.Started || result.Unchanged || result.Switched {
		t.Errorf("the result is %+v", result)
	}
	if diff := cmp.Diff([]string{"resolve", "build", "profile", "start"}, w.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	w.check("one", engine.Running)
	if !slices.Equal(w.published, []string{"box"}) {
		t.Errorf("published: %v", w.published)
	}
}

func TestCreateFails(t *testing.T) {
	for _, call := range []string{"snapshot", "resolve", "build", "allocate", "guest files", "profile", "start", "publish"} {
		t.Run(call, func(t *testing.T) {
			w := newWorld(t)
			cause := errors.New("no luck")
			w.fail[call] = cause
			_, err := w.manager().Ensure(t.Context(), request("one"))
			var failure *Failure
			if !errors.Is(err, cause) || !errors.As(err, &failure) {
				t.Fatalf("the error is %v", err)
			}
			if call == "publish" {
				// What cannot be published cannot be withdrawn either; that is said.
				if !strings.Contains(failure.Now, "devhost destroy box") {
					t.Errorf("it says %q", failure.Now)
				}
				return
			}
			if !strings.Contains(failure.Now, "nothing of it is left") {
				t.Errorf("it says %q", failure.Now)
			}
			w.checkGone()
		})
	}
	t.Run("no channel", func(t *testing.T) {
		w := newWorld(t)
		_, err := w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute})
		if err == nil || !strings.Contains(err.Error(), "--channel") {
			t.Errorf("the error is %v", err)
		}
		w.checkGone()
	})
}

// TestUpdate is what a later ensure does, by what it is asked for and by what
// it finds.
func TestUpdate(t *testing.T) {
	for _, test := range []struct {
		name    string
		find    func(w *world)
		change  func(r *EnsureRequest)
		calls   []string
		want    EnsureResult
		program string
	}{
		{"nothing new", nil, nil, nil, EnsureResult{Unchanged: true}, "one"},
		{"asked for nothing", nil, func(r *EnsureRequest) { r.Channel, r.Provision = nil, nil }, nil, EnsureResult{Unchanged: true}, "one"},
		{"stopped", func(w *world) { w.state = engine.State{Status: engine.Stopped} }, nil, []string{"start"}, EnsureResult{Started: true}, "one"},
		{"failed", func(w *world) { w.state = engine.State{Status: engine.Failed} }, nil, []string{"start"}, EnsureResult{Started: true}, "one"},
		{"supervisor killed", func(w *world) { w.state.SupervisorPID = 0 }, nil, []string{"start"}, EnsureResult{Unchanged: true}, "one"},
		{"profile lost", func(w *world) { w.generations = nil }, nil, []string{"build", "profile", "switch to c-one"}, EnsureResult{Switched: true}, "one"},
		{"limits", nil, func(r *EnsureRequest) { r.Tasks = pointer(int64(99)) }, []string{"limits"}, EnsureResult{Unchanged: true}, "one"},
		{"limits while stopped", func(w *world) { w.state.Status = engine.Stopped }, func(r *EnsureRequest) { r.Tasks = pointer(int64(99)) }, []string{"start"}, EnsureResult{Started: true}, "one"},
		{"aliases", nil, func(r *EnsureRequest) { r.Aliases = &[]string{"www"} }, nil, EnsureResult{Unchanged: true}, "one"},
		{"another provision", nil, func(r *EnsureRequest) { r.Provision = pointer("two") }, []string{"build", "profile", "switch to c-two"}, EnsureResult{Switched: true}, "two"},
		{"a known system", func(w *world) { w.known["c-two"] = "/nix/store/c-two" }, func(r *EnsureRequest) { r.Provision = pointer("two") }, []string{"profile", "switch to c-two"}, EnsureResult{Switched: true}, "two"},
		{"another provision while stopped", func(w *world) { w.state.Status = engine.Stopped }, func(r *EnsureRequest) { r.Provision = pointer("two") }, []string{"build", "profile", "start"}, EnsureResult{Started: true}, "two"},
		{"another provision and limits", nil, func(r *EnsureRequest) { r.Provision, r.Tasks = pointer("two"), pointer(int64(99)) }, []string{"build", "profile", "limits", "switch to c-two"}, EnsureResult{Switched: true}, "two"},
		{"channel again, and it is the same", nil, func(r *EnsureRequest) { r.UpdateChannel = true }, []string{"resolve"}, EnsureResult{Unchanged: true}, "one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := created(t)
			if test.find != nil {
				test.find(w)
			}
			asked := request("one")
			if test.change != nil {
				test.change(&asked)
			}
			result, err := w.manager().Ensure(t.Context(), asked)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.calls, w.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			got := EnsureResult{Created: result.Created, Switched: result.Switched, Started: result.Started, Unchanged: result.Unchanged}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			w.check(test.program, engine.Running)
			record, err := w.registry.Load("box")
			if err != nil {
				t.Fatal(err)
			}
			if asked.Aliases != nil && !slices.Equal(record.Aliases, *asked.Aliases) {
				t.Errorf("the aliases are %v", record.Aliases)
			}
			if asked.Tasks != nil && record.Limits.Tasks != *asked.Tasks {
				t.Errorf("the limits are %+v", record.Limits)
			}
		})
	}
	t.Run("another channel", func(t *testing.T) {
		w := created(t)
		asked := request("one")
		asked.Channel = pointer("/d")
		if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"resolve", "build", "profile", "switch to d-one"}, w.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
	t.Run("no provision any more", func(t *testing.T) {
		w := created(t)
		if _, err := w.manager().Ensure(t.Context(), request("")); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(w.registry.Provision("box")); len(left) != 0 || w.runs != "/nix/store/c-" {
			t.Errorf("snapshots %v; it runs %s", left, w.runs)
		}
	})
}

// TestUpdateFails: the old system runs again, whatever failed.
func TestUpdateFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		find   func(w *world)
		fail   string
		status engine.Status
		now    string
		// last is the last call that changed something.
		last string
	}{
		{"building", nil, "build", engine.Running, "is as it was (running)", "build"},
		{"setting the profile", nil, "profile", engine.Running, "runs its previous system again", "profile"},
		{"limits", nil, "limits", engine.Running, "runs its previous system again", "switch to c-one"},
		{"switching", func(w *world) { w.switchStatus["/nix/store/c-two"] = 4 }, "", engine.Running, "runs its previous system again", "switch to c-one"},
		{"switching, and a unit of the old system fails too", func(w *world) {
			w.switchStatus["/nix/store/c-two"], w.switchStatus["/nix/store/c-one"] = 4, 4
		}, "", engine.Running, "runs its previous system again", "switch to c-one"},
		{"starting", func(w *world) { w.state, w.runs = engine.State{Status: engine.Stopped}, "" }, "start", engine.Stopped, "is stopped, as it was", "stop"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := created(t)
			if test.find != nil {
				test.find(w)
			}
			if test.fail != "" {
				w.fail[test.fail] = errors.New("no luck")
			}
			asked := request("two")
			asked.Tasks = pointer(int64(99))
			_, err := w.manager().Ensure(t.Context(), asked)
			var failure *Failure
			if !errors.As(err, &failure) || !strings.Contains(failure.Now, test.now) {
				t.Fatalf("the error is %v", err)
			}
			if len(w.calls) == 0 || w.calls[len(w.calls)-1] != test.last {
				t.Errorf("the calls are %v, the last is not %q", w.calls, test.last)
			}
			w.check("one", test.status)
			if record, err := w.registry.Load("box"); err != nil || record.Limits.Tasks != 0 || w.limits.Tasks != 0 {
				t.Errorf("the record is %+v (%v), the limits are %+v", record, err, w.limits)
			}
			// A second try works.
			clear(w.fail)
			clear(w.switchStatus)
			if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
				t.Fatal(err)
			}
			w.check("two", engine.Running)
		})
	}
	t.Run("and going back fails", func(t *testing.T) {
		w := created(t)
		w.switchStatus["/nix/store/c-two"] = 4
		w.fail["switch to c-one"] = errors.New("the guest cannot be entered")
		_, err := w.manager().Ensure(t.Context(), request("two"))
		var failure *Failure
		if !errors.As(err, &failure) || !strings.Contains(failure.Now, "the next command for it tries again") {
			t.Fatalf("the error is %v", err)
		}
		// While that lasts, it can be destroyed, and nothing else.
		if _, err := w.manager().Ensure(t.Context(), request("one")); err == nil || !strings.Contains(err.Error(), "devhost destroy box") {
			t.Errorf("the error is %v", err)
		}
		if err := w.manager().Destroy(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		w.checkGone()
	})
}

func TestInterruptedUpdate(t *testing.T) {
	w := created(t)
	ctx, cancel := context.WithCancel(t.Context())
	manager := w.manager()
	manager.OnStep = func(step string) {
		if step == StepSwitch {
			cancel()
		}
	}
	_, err := manager.Ensure(ctx, request("two"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	w.check("one", engine.Running)
}

// TestRepair kills a change at each step; the next command repairs.
func TestRepair(t *testing.T) {
	ensure := func(provision string) func(m *Manager) error {
		return func(m *Manager) error {
			_, err := m.Ensure(context.Background(), request(provision))
			return err
		}
	}
	t.Run("create", func(t *testing.T) {
		for _, step := range []string{StepResolve, StepBuild, StepAllocate, StepFiles, StepProfile, StepStart, StepReady, StepPublish} {
			t.Run(step, func(t *testing.T) {
				w := newWorld(t)
				w.killedAt(step, ensure("one"))
				if err := ensure("two")(w.manager()); err != nil {
					t.Fatal(err)
				}
				w.check("two", engine.Running)
				w.killedAt(StepSwitch, ensure("one"))
				if err := w.manager().Destroy(t.Context(), "box"); err != nil {
					t.Fatal(err)
				}
				w.checkGone()
			})
		}
	})
	stopped := func(w *world) { w.state, w.runs = engine.State{Status: engine.Stopped}, "" }
	rollback := func(m *Manager) error {
		_, err := m.Rollback(context.Background(), "box", 0, time.Minute)
		return err
	}
	for _, test := range []struct {
		name   string
		find   func(w *world)
		steps  []string
		change func(m *Manager) error
	}{
		{"update", nil, []string{StepFiles, StepProfile, StepRecord, StepSwitch, StepReady, StepPublish}, ensure("three")},
		{"update of a stopped container", stopped, []string{StepFiles, StepProfile, StepRecord, StepStart, StepReady, StepPublish}, ensure("three")},
		{"rollback", nil, []string{StepProfile, StepRecord, StepSwitch}, rollback},
	} {
		for _, step := range test.steps {
			t.Run(test.name+" at "+step, func(t *testing.T) {
				w := created(t)
				if err := ensure("two")(w.manager()); err != nil {
					t.Fatal(err)
				}
				status := engine.Running
				if test.find != nil {
					test.find(w)
					status = engine.Stopped
				}
				w.killedAt(step, test.change)
				// Stop repairs first, too, and shows what the repair left.
				manager := w.manager()
				if err := manager.locked(t.Context(), "box", "test", time.Second, func() error { return nil }); err != nil {
					t.Fatal(err)
				}
				w.check("two", status)
				if err := ensure("two")(w.manager()); err != nil {
					t.Fatal(err)
				}
				w.check("two", engine.Running)
			})
		}
	}
	for _, step := range []string{StepStop, StepRemove} {
		t.Run("destroy at "+step, func(t *testing.T) {
			w := created(t)
			destroy := func(m *Manager) error { return m.Destroy(context.Background(), "box") }
			w.killedAt(step, destroy)
			if err := destroy(w.manager()); err != nil {
				t.Fatal(err)
			}
			w.checkGone()
			var missing *registry.NotRegistered
			if err := destroy(w.manager()); !errors.As(err, &missing) {
				t.Errorf("a second destroy: %v", err)
			}
		})
	}
	t.Run("a stale snapshot", func(t *testing.T) {
		w := created(t)
		for _, name := range []string{"provision.box.1", "provision.other.1"} {
			if err := os.Mkdir(filepath.Join(w.registry.Temporary(), name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := ensure("one")(w.manager()); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(w.registry.Temporary())
		if err != nil || len(left) != 1 || left[0].Name() != "provision.other.1" {
			t.Errorf("left: %v (%v)", left, err)
		}
	})
}

func TestDamaged(t *testing.T) {
	damage := func(w *world, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("record", func(t *testing.T) {
		w := created(t)
		damage(w, w.registry.Record("box"))
		var broken *registry.Broken
		if _, err := w.manager().Ensure(t.Context(), request("two")); !errors.As(err, &broken) {
			t.Errorf("the error is %v", err)
		}
		if err := w.manager().Destroy(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		w.checkGone()
	})
	t.Run("record and journal", func(t *testing.T) {
		w := created(t)
		damage(w, w.registry.Record("box"), w.registry.Journal("box"))
		if _, err := w.manager().Ensure(t.Context(), request("two")); err == nil || !strings.Contains(err.Error(), "devhost destroy box") {
			t.Errorf("the error is %v", err)
		}
		if err := w.manager().Destroy(t.Context(), "box"); err != nil {
			t.Fatal(err)
		}
		w.checkGone()
	})
	t.Run("journal", func(t *testing.T) {
		w := created(t)
		damage(w, w.registry.Journal("box"))
		if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil {
			t.Fatal(err)
		}
		w.check("one", engine.Running)
	})
}

func TestRollback(t *testing.T) {
	w := created(t)
	if _, err := w.manager().Rollback(t.Context(), "box", 0, time.Minute); err == nil || !strings.Contains(err.Error(), "no generation before") {
		t.Errorf("with one generation: %v", err)
	}
	if _, err := w.manager().Ensure(t.Context(), request("two")); err != nil {
		t.Fatal(err)
	}
	w.calls = nil
	number, err := w.manager().Rollback(t.Context(), "box", 0, time.Minute)
	if err != nil || number != 1 {
		t.Fatalf("generation %d, %v", number, err)
	}
	if diff := cmp.Diff([]string{"generation 1", "switch to c-one"}, w.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if _, err := w.manager().Rollback(t.Context(), "box", 9, time.Minute); err == nil || !strings.Contains(err.Error(), "no generation 9") {
		t.Errorf("to generation 9: %v", err)
	}
	// What ensure is asked for, it makes, also after a rollback.
	result, err := w.manager().Ensure(t.Context(), request("two"))
	if err != nil || !result.Switched {
		t.Fatalf("%+v, %v", result, err)
	}
	w.check("two", engine.Running)
	// A stopped container starts with it next time.
	w.state, w.runs, w.calls = engine.State{Status: engine.Stopped}, "", nil
	if _, err := w.manager().Rollback(t.Context(), "box", 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"generation 1"}, w.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if started, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || !started || w.runs != "/nix/store/c-one" {
		t.Errorf("started %v with %s, %v", started, w.runs, err)
	}
}

func TestStartAndStop(t *testing.T) {
	w := created(t)
	if started, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || started {
		t.Errorf("a running container started: %v, %v", started, err)
	}
	enabled := func() bool {
		record, err := w.registry.Load("box")
		if err != nil {
			t.Fatal(err)
		}
		return record.Enabled
	}
	for _, want := range []bool{true, false} {
		if stopped, err := w.manager().Stop(t.Context(), "box", time.Minute); err != nil || stopped != want || enabled() {
			t.Errorf("stop: %v, %v, enabled %v", stopped, err, enabled())
		}
	}
	if started, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || !started || !enabled() {
		t.Errorf("start: %v, %v, enabled %v", started, err, enabled())
	}
	w.calls = nil
	if err := w.manager().Restart(t.Context(), "box", time.Minute, time.Minute); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stop", "start"}, w.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	var missing *registry.NotRegistered
	if _, err := w.manager().Start(t.Context(), "absent", time.Minute); !errors.As(err, &missing) {
		t.Errorf("start of an absent container: %v", err)
	}
}

func TestSecondCommandWaits(t *testing.T) {
	w := created(t)
	unlock, err := w.registry.Lock(t.Context(), "box", "test", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	asked := request("one")
	asked.LockTimeout = 0
	var locked *registry.Locked
	if _, err := w.manager().Ensure(t.Context(), asked); !errors.As(err, &locked) || !strings.Contains(locked.Holder, "(test, since ") {
		t.Errorf("the error is %v", err)
	}
	unlock()
	if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
		t.Error(err)
	}
}

// TestSameSystemIsBuiltOnce: who needs a system that somebody builds at this
// moment waits for it, and finds it.
func TestSameSystemIsBuiltOnce(t *testing.T) {
	w := newWorld(t)
	manager := w.manager()
	if err := w.registry.Prepare(); err != nil {
		t.Fatal(err)
	}
	wanted := &wanted{record: registry.Container{Name: "box", Inputs: "c-one"}}
	unlock, err := w.registry.LockBuild(t.Context(), "c-one")
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := manager.system(impatient, wanted); !errors.Is(err, context.DeadlineExceeded) || slices.Contains(w.calls, "build") {
		t.Errorf("while another one builds it: %v, calls %v", err, w.calls)
	}
	unlock()
	// When it is free, the other one has built it.
	manager.Systems = &builtMeanwhile{fakeSystems: fakeSystems{w}}
	if system, err := manager.system(t.Context(), wanted); err != nil || system != "/nix/store/built" || slices.Contains(w.calls, "build") {
		t.Errorf("%q, %v, calls %v", system, err, w.calls)
	}
}

// builtMeanwhile knows a system when it is asked for the second time.
type builtMeanwhile struct {
	fakeSystems
	asked int
}

func (b *builtMeanwhile) Known(context.Context, string, string) (string, bool) {
	b.asked++
	return "/nix/store/built", b.asked > 1
}
