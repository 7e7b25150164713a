package container

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/person"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

func managerWith(w *world, change func(s *settings.Settings)) *Manager {
	manager := w.manager()
	change(&manager.Settings)
	return manager
}

// TestMoreThanAllowed: asking for more than the settings allow is refused
// before anything is made, with the number.
func TestMoreThanAllowed(t *testing.T) {
	limited := func(s *settings.Settings) {
		s.Maximum = settings.Limits{Memory: 4 << 30, CPUs: 2, Tasks: 1000, IOWeight: 200, Disk: 10 << 30}
		s.AllowNesting = false
		s.AllowedChannels = []string{"/srv/*", "flake:nixpkgs"}
	}
	for name, test := range map[string]struct {
		ask  func(r *EnsureRequest)
		want string
	}{
		"memory":       {func(r *EnsureRequest) { r.MemoryBytes = pointer(int64(8 << 30)) }, "--memory asks for 8GiB, and no container may have more than 4GiB; give at most --memory 4GiB"},
		"no memory":    {func(r *EnsureRequest) { r.MemoryBytes = pointer(int64(0)) }, "--memory asks for no limit, and no container may have more than 4GiB"},
		"cpus":         {func(r *EnsureRequest) { r.CPUs = pointer(2.5) }, "--cpus asks for 2.5, and no container may have more than 2"},
		"no cpus":      {func(r *EnsureRequest) { r.CPUs = pointer(0.0) }, "--cpus asks for no limit, and"},
		"tasks":        {func(r *EnsureRequest) { r.Tasks = pointer(int64(1001)) }, "--tasks asks for 1001, and no container may have more than 1000"},
		"io weight":    {func(r *EnsureRequest) { r.IOWeight = pointer(int64(500)) }, "--io-weight asks for 500, and no container may have more than 200"},
		"disk":         {func(r *EnsureRequest) { r.DiskBytes = pointer(int64(11 << 30)) }, "--disk-size asks for 11GiB, and no container may have more than 10GiB"},
		"no disk size": {func(r *EnsureRequest) { r.DiskBytes = pointer(int64(0)) }, "--disk-size asks for no limit, and"},
		"nesting":      {func(r *EnsureRequest) { r.Nesting = pointer(true) }, "nesting is switched off (allowNesting); leave --nesting away"},
		"channel":      {func(r *EnsureRequest) { r.Channel = pointer("/home/x") }, "channel /home/x is none of those that are allowed; take one that matches (* stands for anything) /srv/* or flake:nixpkgs"},
		"way out":      {func(r *EnsureRequest) { r.Channel = pointer("/srv/../home/x") }, "channel /home/x is none of those"},
		"file URL":     {func(r *EnsureRequest) { r.Channel = pointer("file:///srv/../home/x") }, "channel /home/x is none of those"},
		"path flake":   {func(r *EnsureRequest) { r.Channel = pointer("path:/home/x") }, "channel /home/x is none of those"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			asked := request("one")
			asked.Channel = pointer("/srv/one")
			test.ask(&asked)
			_, err := managerWith(w, limited).Ensure(t.Context(), asked)
			var refused *Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
			if entries, _ := os.ReadDir(w.registry.Containers()); len(entries) > 0 {
				t.Errorf("something is left: %v", entries)
			}
			// Control: without these settings it is made.
			if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
				t.Errorf("without settings: %v", err)
			}
		})
	}
}

func TestDefaultsAreForNewContainers(t *testing.T) {
	w := newWorld(t)
	manager := managerWith(w, func(s *settings.Settings) {
		s.Defaults = settings.Limits{Memory: 1 << 30, CPUs: 1}
		s.Maximum = settings.Limits{Memory: 4 << 30, Tasks: 500}
	})
	asked := request("one")
	asked.CPUs = pointer(3.0)
	if _, err := manager.Ensure(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	want := registry.Limits{MemoryBytes: 1 << 30, CPUs: 3, Tasks: 500}
	if diff := cmp.Diff(want, load(t, w).Limits); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Later ones do not come back to them.
	manager.Settings.Defaults.Memory = 2 << 30
	if _, err := manager.Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, load(t, w).Limits); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNestingByDefault: who makes a container has the last word, the settings
// have it where nobody says, and what they do not allow they do not give.
func TestNestingByDefault(t *testing.T) {
	for name, test := range map[string]struct {
		allowed, given bool
		asked          *bool
		want           bool
	}{
		"by default":             {allowed: true, given: true, want: true},
		"not by default":         {allowed: true},
		"taken back":             {allowed: true, given: true, asked: pointer(false)},
		"asked for":              {allowed: true, asked: pointer(true), want: true},
		"given, and not allowed": {given: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			manager := managerWith(w, func(s *settings.Settings) { s.AllowNesting, s.DefaultNesting = test.allowed, test.given })
			asked := request("one")
			asked.Nesting = test.asked
			if _, err := manager.Ensure(t.Context(), asked); err != nil {
				t.Fatal(err)
			}
			if got := load(t, w).Nesting; got != test.want {
				t.Errorf("nesting is %v", got)
			}
		})
	}
	t.Run("later", func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil {
			t.Fatal(err)
		}
		manager := managerWith(w, func(s *settings.Settings) { s.DefaultNesting = true })
		if _, err := manager.Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if load(t, w).Nesting {
			t.Error("a container that there was has got nesting")
		}
	})
}

// TestLowerMaximum: a container that has more than the settings allow now is
// brought down at its next change, and people are told.
func TestLowerMaximum(t *testing.T) {
	lower := func(s *settings.Settings) {
		s.Maximum.Memory, s.AllowNesting, s.Network.ForwardPorts = 1<<30, false, []settings.PortRange{{First: 20000, Last: 29999}}
	}
	kept := registry.ForwardPort{Protocol: "tcp", HostPort: 20080, GuestPort: 80}
	over := func(t *testing.T) *world {
		w := newWorld(t)
		asked := request("one")
		asked.MemoryBytes, asked.Nesting = pointer(int64(2<<30)), pointer(true)
		asked.ForwardPorts = &[]registry.ForwardPort{{Protocol: "tcp", HostPort: 8080, GuestPort: 80}, kept}
		if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		return w
	}
	check := func(t *testing.T, w *world) {
		t.Helper()
		if record := load(t, w); record.Limits.MemoryBytes != 1<<30 || record.Nesting {
			t.Errorf("it has %+v, nesting %v", record.Limits, record.Nesting)
		} else if diff := cmp.Diff([]registry.ForwardPort{kept}, record.ForwardPorts); diff != "" {
			t.Errorf("forwarded ports (-want +got):\n%s", diff)
		}
	}
	t.Run("ensure", func(t *testing.T) {
		w := over(t)
		result, err := managerWith(w, lower).Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		check(t, w)
		if text := strings.Join(result.Warnings, "\n"); !strings.Contains(text, "container box had a limit of 2GiB for memory; it gets 1GiB, the most that this host's settings allow now") || !strings.Contains(text, "container box had nesting, which this host's settings do not allow any more") || !strings.Contains(text, "container box had port 8080/tcp of the host, and loses it: the settings of this host allow 20000-29999") {
			t.Errorf("warnings: %s", text)
		}
		if w.limits.MemoryBytes != 1<<30 {
			t.Errorf("the running container has %+v", w.limits)
		}
	})
	t.Run("start", func(t *testing.T) {
		w := over(t)
		if _, err := w.manager().Stop(t.Context(), "box", time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := managerWith(w, lower).Start(t.Context(), "box", time.Minute); err != nil {
			t.Fatal(err)
		}
		check(t, w)
	})
	t.Run("running", func(t *testing.T) {
		w := over(t)
		if _, err := managerWith(w, lower).Start(t.Context(), "box", time.Minute); err != nil {
			t.Fatal(err)
		}
		check(t, w)
		if w.limits.MemoryBytes != 1<<30 {
			t.Errorf("the running container has %+v", w.limits)
		}
	})
}

// TestRecordedChannelStays: a channel that is no longer allowed can be used
// until it would be resolved again.
func TestRecordedChannelStays(t *testing.T) {
	w := created(t)
	manager := managerWith(w, func(s *settings.Settings) { s.AllowedChannels = []string{"/nowhere"} })
	if _, err := manager.Ensure(t.Context(), request("one")); err != nil {
		t.Errorf("the recorded channel: %v", err)
	}
	asked := request("one")
	asked.UpdateChannel = true
	var refused *Refused
	if _, err := manager.Ensure(t.Context(), asked); !errors.As(err, &refused) {
		t.Errorf("resolved again: %v", err)
	}
}

// TestKeysOfTheSettings come and go without a restart, also without a command
// for the container.
func TestKeysOfTheSettings(t *testing.T) {
	w := created(t)
	starts := len(w.calls)
	file := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(w.registry.Guest("box"), "authorized_keys/developer"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	manager := managerWith(w, func(s *settings.Settings) { s.AuthorizedKeys = []string{aliceKey} })
	if _, err := manager.Ensure(t.Context(), request("one")); err != nil || !strings.Contains(file(), aliceKey) {
		t.Errorf("after ensure (%v): %s", err, file())
	}
	if len(load(t, w).MemberKeys()) > 0 {
		t.Error("the keys of the settings are in the record, where they would stay")
	}
	if err := RefreshKeys(w.registry, "box"); err != nil || strings.Contains(file(), aliceKey) {
		t.Errorf("without the settings (%v): %s", err, file())
	}
	if os.Geteuid() != 0 {
		t.Skip("the settings must be root's")
	}
	writeSettings := func(text string) {
		t.Helper()
		if err := os.WriteFile(w.registry.Settings(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	writeSettings(`{"version": 1, "authorizedKeys": ["` + bobKey + `"]}`)
	if err := RefreshKeys(w.registry, "box"); err != nil || !strings.Contains(file(), bobKey) {
		t.Errorf("with another one (%v): %s", err, file())
	}
	writeSettings(`{"version": 1, "authorizedKeys": 7}`)
	if err := RefreshKeys(w.registry, "box"); err != nil || !strings.Contains(file(), bobKey) {
		t.Errorf("settings that cannot be used change something (%v): %s", err, file())
	}
	for _, call := range w.calls[starts:] {
		if call == "start" || call == "stop" {
			t.Errorf("the container was restarted: %v", w.calls[starts:])
		}
	}
}

// TestOwner: what belongs to somebody else is done away with only by who
// insists, or is root.
func TestOwner(t *testing.T) {
	alice, bob, root := person.Person{UID: 1000, Login: "alice"}, person.Person{UID: 1001, Login: "bob"}, person.Person{Login: "root"}
	for name, test := range map[string]struct {
		who    person.Person
		force  bool
		broken bool
		want   string
	}{
		"owner":              {who: alice},
		"another":            {who: bob, want: "container box belongs to alice; ask them, or destroy it all the same with devhost's option --force"},
		"another insists":    {who: bob, force: true},
		"root":               {who: root},
		"the host itself":    {},
		"broken":             {who: alice, broken: true, want: "container box has a record that cannot be read, so it may be somebody else's; ask them, or destroy it"},
		"broken and insists": {who: alice, broken: true, force: true},
		"broken as root":     {who: root, broken: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			asked := request("one")
			asked.Owner = "alice"
			if _, err := w.manager().Ensure(t.Context(), asked); err != nil {
				t.Fatal(err)
			}
			if test.broken {
				if err := os.WriteFile(w.registry.Record("box"), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			manager := w.manager()
			manager.Caller, manager.Force = test.who, test.force
			err := manager.Destroy(t.Context(), "box")
			_, missing := os.Stat(w.registry.Container("box"))
			if test.want == "" {
				if err != nil || missing == nil {
					t.Errorf("%v; the folder: %v", err, missing)
				}
				return
			}
			var owner *NotOwner
			if !errors.As(err, &owner) || !strings.HasPrefix(err.Error(), test.want) || missing != nil {
				t.Errorf("%v; the folder: %v", err, missing)
			}
			if w.runs == "" {
				t.Error("it was stopped")
			}
		})
	}
	t.Run("ensure by another member keeps the owner", func(t *testing.T) {
		w := newWorld(t)
		asked := request("one")
		asked.Owner = "alice"
		for _, who := range []person.Person{alice, bob} {
			manager := w.manager()
			manager.Caller, asked.Caller = who, who
			if _, err := manager.Ensure(t.Context(), asked); err != nil {
				t.Fatal(err)
			}
			asked.Owner = "bob"
		}
		if got := load(t, w).Owner; got != "alice" {
			t.Errorf("it belongs to %s now", got)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		w := newWorld(t)
		manager := w.manager()
		manager.Caller = bob
		var missing *registry.NotRegistered
		if err := manager.Destroy(t.Context(), "box"); !errors.As(err, &missing) {
			t.Errorf("%v", err)
		}
	})
}
