package container

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"devhost/internal/engine"
	"devhost/internal/person"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// apply makes the declared containers, and returns what was done as NAME: RESULT.
func apply(t *testing.T, w *world, containers ...settings.Declaration) string {
	t.Helper()
	results, err := w.manager().Apply(t.Context(), ApplyRequest{
		Declarations: settings.Declarations{Version: 1, Containers: containers}, File: "/etc/devhost-containers.json", Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, result := range results {
		line := result.Name + ": " + string(result.Result)
		if result.Err != nil {
			line += ": " + result.Err.Error()
		}
		lines = append(lines, append([]string{line}, result.Warnings...)...)
	}
	return strings.Join(lines, "\n")
}

func box() settings.Declaration {
	return settings.Declaration{Name: "box", Channel: "/c", Provision: "one"}
}

// TestApply: each declaration changes what it says, and nothing else is done.
func TestApply(t *testing.T) {
	no := false
	type step struct {
		what    string
		before  func(w *world)
		declare func(one *settings.Declaration)
		want    string
		// calls are those that are made, by their beginnings.
		calls []string
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"created, then left alone", []step{
			{what: "first", want: "box: created", calls: []string{"resolve", "build", "start"}},
			{what: "again", want: "box: unchanged"},
		}},
		{"switched in place", []step{
			{want: "box: created"},
			{declare: func(one *settings.Declaration) { one.Provision = "two" }, want: "box: switched to its new system", calls: []string{"switch to c-two"}},
		}},
		{"settings only", []step{
			{want: "box: created"},
			{declare: func(one *settings.Declaration) { one.Aliases = []string{"www"} }, want: "box: updated"},
		}},
		{"a built system", []step{
			{declare: func(one *settings.Declaration) {
				one.Channel, one.Provision, one.System = "", "", "/nix/store/s-one"
			}, want: "box: created", calls: []string{"start"}},
			{declare: func(one *settings.Declaration) { one.System = "/nix/store/s-two" }, want: "box: switched to its new system", calls: []string{"switch to s-two"}},
			{declare: func(one *settings.Declaration) { one.System, one.Channel, one.Provision = "", "/c", "one" }, want: "box: switched to its new system", calls: []string{"resolve", "switch to c-one"}},
		}},
		{"not started", []step{
			{declare: func(one *settings.Declaration) { one.AutoStart = &no }, want: "box: created", calls: []string{"build"}},
			{want: "box: unchanged"},
			{declare: func(one *settings.Declaration) { one.Provision = "two" }, want: "box: updated", calls: []string{"build"}},
			{declare: func(one *settings.Declaration) { one.AutoStart = nil }, want: "box: started", calls: []string{"start"}},
		}},
		{"stopped by somebody", []step{
			{want: "box: created"},
			{before: func(w *world) {
				if _, err := w.manager().Stop(w.t.Context(), "box", time.Minute); err != nil {
					w.t.Fatal(err)
				}
			}, want: "box: unchanged"},
			{declare: func(one *settings.Declaration) { one.Provision = "two" }, want: "box: updated"},
		}},
		{"has ended by itself", []step{
			{want: "box: created"},
			{before: func(w *world) { w.state, w.runs = engine.State{Status: engine.Failed}, "" }, want: "box: started", calls: []string{"start"}},
		}},
		{"what a start changes", []step{
			{want: "box: created"},
			{declare: func(one *settings.Declaration) { one.Ephemeral = true }, want: "box: updated\ncontainer box runs; whether it is ephemeral, its network and its bind mounts change when it is started next: devhost restart box"},
		}},
		{"tried again", []step{
			{want: "box: created"},
			{before: func(w *world) { w.fail["resolve"] = errors.New("no such channel") }, declare: func(one *settings.Declaration) { one.Channel = "/d" }, want: "box: failed: no such channel\ncontainer box is as it was (running)"},
			{before: func(w *world) { delete(w.fail, "resolve") }, want: "box: switched to its new system", calls: []string{"switch to d-one"}},
		}},
		{"limits of the host's settings", []step{
			{declare: func(one *settings.Declaration) {
				memory := settings.Bytes(1 << 30)
				one.Limits.Memory = &memory
			}, want: "box: created"},
			{declare: func(one *settings.Declaration) { one.Limits.Memory = nil }, want: "box: updated", calls: []string{"limits"}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			declared := box()
			for _, step := range test.steps {
				if step.before != nil {
					step.before(w)
				}
				if step.declare != nil {
					step.declare(&declared)
				}
				w.calls = nil
				if got := apply(t, w, declared); got != step.want {
					t.Errorf("%s: %q, not %q", step.what, got, step.want)
				}
				for _, call := range step.calls {
					if !slices.Contains(w.calls, call) {
						t.Errorf("%s: no call %q among %v", step.what, call, w.calls)
					}
				}
				if strings.HasSuffix(step.want, "unchanged") && len(w.calls) > 0 {
					t.Errorf("%s: it did %v", step.what, w.calls)
				}
			}
		})
	}
}

// TestApplyLimits: what is not declared is as for a new container, within the
// maximum; and the owner is the host.
func TestApplyLimits(t *testing.T) {
	w := newWorld(t)
	manager := w.manager()
	manager.Caller = person.Person{Login: "alice", UID: 1000}
	manager.Settings.Defaults.Tasks, manager.Settings.Maximum.Memory = 4096, 2<<30
	declared := box()
	cpus := 1.5
	declared.Limits.CPUs = &cpus
	request := ApplyRequest{Declarations: settings.Declarations{Version: 1, Containers: []settings.Declaration{declared}}, Timeout: time.Minute}
	if results, err := manager.Apply(t.Context(), request); err != nil || results[0].Err != nil {
		t.Fatal(results, err)
	}
	want := registry.Limits{MemoryBytes: 2 << 30, CPUs: 1.5, Tasks: 4096}
	if got := load(t, w); got.Limits != want || got.Owner != "root" {
		t.Errorf("limits %+v of %s's, not %+v of root's", got.Limits, got.Owner, want)
	}
	// Other defaults reach it, and only those that it names no limit for.
	for _, step := range []struct {
		defaults settings.Limits
		result   ApplyResult
		want     registry.Limits
	}{
		{settings.Limits{Tasks: 512, CPUs: 3}, ApplySame, registry.Limits{MemoryBytes: 2 << 30, CPUs: 1.5, Tasks: 512}},
		{settings.Limits{Tasks: 512, CPUs: 2}, Untouched, registry.Limits{MemoryBytes: 2 << 30, CPUs: 1.5, Tasks: 512}},
	} {
		manager.Settings.Defaults = step.defaults
		results, err := manager.Apply(t.Context(), request)
		if err != nil || results[0].Err != nil || results[0].Result != step.result {
			t.Fatal(results, err)
		}
		if got := load(t, w).Limits; got != step.want {
			t.Errorf("limits %+v, not %+v", got, step.want)
		}
	}
}

// TestDeclaredIsTheHosts: people cannot change what the host's configuration
// decides, and that takes nothing from people.
func TestDeclaredIsTheHosts(t *testing.T) {
	w := newWorld(t)
	if got := apply(t, w, box()); got != "box: created" {
		t.Fatal(got)
	}
	manager := w.manager()
	manager.Force = true
	aliases := []string{"mine"}
	for name, change := range map[string]func() error{
		"destroy": func() error { return manager.Destroy(t.Context(), "box") },
		"archive": func() error { _, err := manager.DestroyArchived(t.Context(), "box", ""); return err },
		"rename":  func() error { _, err := manager.Rename(t.Context(), "box", "other", time.Minute); return err },
		"ensure": func() error {
			_, err := manager.Ensure(t.Context(), EnsureRequest{Name: "box", Aliases: &aliases, Timeout: time.Minute})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var declared *DeclaredElsewhere
			if err := change(); !errors.As(err, &declared) || !strings.Contains(err.Error(), "/etc/devhost-containers.json") {
				t.Errorf("%v", err)
			}
		})
	}
	if got := apply(t, w); got != "box: removed, and archived" {
		t.Error(got)
	}
	result, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", Timeout: time.Minute})
	if err != nil || result.Container.Declared != nil || result.Container.Expiry.Off {
		t.Fatalf("%+v, %v", result, err)
	}
	if got := apply(t, w, box()); !strings.HasPrefix(got, "box: failed: container box was made by ") {
		t.Error(got)
	}
	if got := apply(t, w); got != "" {
		t.Errorf("a container of people: %s", got)
	}
}

// TestDeclaredAtBoot: who is not to start with the host does not, also when
// somebody had started it.
func TestDeclaredAtBoot(t *testing.T) {
	no := false
	for name, test := range map[string]struct {
		autoStart *bool
		want      BootResult
	}{"starts": {nil, BootStarted}, "does not": {&no, BootStopped}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			declared := box()
			declared.AutoStart = test.autoStart
			apply(t, w, declared)
			if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil {
				t.Fatal(err)
			}
			if results, err := w.manager().Boot(t.Context(), time.Minute); err != nil || results[0].Result != BootRuns {
				t.Errorf("one that runs: %+v, %v", results, err)
			}
			// The host goes down.
			w.state = engine.State{Status: engine.Stopped}
			results, err := w.manager().Boot(t.Context(), time.Minute)
			if err != nil || results[0].Result != test.want {
				t.Errorf("%+v, %v, not %s", results, err, test.want)
			}
			if got := apply(t, w, declared); got != "box: unchanged" {
				t.Errorf("then: %s", got)
			}
		})
	}
}

// TestApplyAfterKilledRemoval: what finishes a removal that was killed has done
// what was declared.
func TestApplyAfterKilledRemoval(t *testing.T) {
	w := newWorld(t)
	apply(t, w, box())
	w.killedAt(StepRemove, func(m *Manager) error {
		_, err := m.Apply(t.Context(), ApplyRequest{Timeout: time.Minute})
		return err
	})
	if got := apply(t, w); got != "box: removed, and archived" {
		t.Error(got)
	}
}
