package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"devhost/internal/engine"
	"devhost/internal/engine/nspawn"
	"devhost/internal/fcmanage"
)

// dialectRequest is what fc-build-dev-container asks for.
func dialectRequest(channel string, aliases ...string) EnsureRequest {
	return EnsureRequest{Name: "box", Channel: &channel, Aliases: &aliases, Dialect: "fc-build-dev-container", Timeout: time.Minute, LockTimeout: time.Second}
}

// dialectWorld is a world with a container that was made through a dialect.
func dialectWorld(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("roots of the collector need root")
	}
	w := newWorld(t)
	t.Cleanup(func() { _ = os.RemoveAll(w.registry.GCRoots()) })
	if _, err := w.manager().Ensure(t.Context(), dialectRequest("/c", "app")); err != nil {
		t.Fatal(err)
	}
	w.calls = nil
	return w
}

func (w *world) enc() fcmanage.Enc {
	w.t.Helper()
	var enc fcmanage.Enc
	text, err := os.ReadFile(filepath.Join(w.registry.Root("box"), fcmanage.EncPath))
	if err == nil {
		err = json.Unmarshal(text, &enc)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return enc
}

func TestDialectNeverSwitches(t *testing.T) {
	w := dialectWorld(t)
	if enc := w.enc(); enc.Parameters.EnvironmentURL != "/c" || enc.Devhost.Channel != "/nix/store/channel" || !strings.HasSuffix(enc.Devhost.GuestModule, "-container-guest") {
		t.Errorf("enc.json is %+v", enc)
	}
	for _, name := range []string{"guest-system", "guest-next"} {
		if target, err := os.Readlink(filepath.Join(w.registry.GCRoots(), "box", name)); err != nil || !strings.HasPrefix(target, w.registry.Root("box")+"/nix/var/nix/profiles/") {
			t.Errorf("the root %s leads to %s, %v", name, target, err)
		}
	}
	for _, test := range []struct {
		name    string
		change  func(*EnsureRequest)
		calls   []string
		channel string
	}{
		{"the same", func(*EnsureRequest) {}, nil, "/c"},
		{"another channel", func(r *EnsureRequest) { r.Channel = pointer("/d") }, []string{"resolve"}, "/d"},
		{"the channel anew", func(r *EnsureRequest) { r.Channel, r.UpdateChannel = pointer("/d"), true }, []string{"resolve"}, "/d"},
		{"devhost ensure", func(r *EnsureRequest) {
			*r = EnsureRequest{Name: "box", Timeout: time.Minute, LockTimeout: time.Second}
		}, nil, "/d"},
		{"devhost ensure with a channel", func(r *EnsureRequest) { r.Dialect, r.Channel = "", pointer("/e") }, []string{"resolve"}, "/e"},
		{"limits", func(r *EnsureRequest) { r.Channel, r.MemoryBytes = pointer("/e"), pointer(int64(1<<30)) }, []string{"limits"}, "/e"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.calls = nil
			request := dialectRequest("/c", "app", "api")
			test.change(&request)
			result, err := w.manager().Ensure(t.Context(), request)
			if err != nil || result.Switched || result.Created {
				t.Fatalf("%+v, %v", result, err)
			}
			if !slices.Equal(w.calls, test.calls) {
				t.Errorf("the calls are %q, not %q", w.calls, test.calls)
			}
			if got := w.enc().Parameters.EnvironmentURL; got != test.channel || result.Container.Pin.Reference != test.channel {
				t.Errorf("enc.json names %s, the record %s", got, result.Container.Pin.Reference)
			}
			if result.Container.System != "/nix/store/c-" || w.runs != "/nix/store/c-" {
				t.Errorf("the system is %s, the guest runs %s", result.Container.System, w.runs)
			}
		})
	}
	t.Run("stopped", func(t *testing.T) {
		w.state, w.calls = engine.State{Status: engine.Stopped}, nil
		if result, err := w.manager().Ensure(t.Context(), dialectRequest("/e")); err != nil || !result.Started || !slices.Equal(w.calls, []string{"start"}) {
			t.Errorf("%+v, %v; the calls are %q", result, err, w.calls)
		}
	})
}

func TestDialectAndOwnWay(t *testing.T) {
	var other *MadeOtherwise
	t.Run("a provision", func(t *testing.T) {
		w := dialectWorld(t)
		_, err := w.manager().Ensure(t.Context(), request("one"))
		if !errors.As(err, &other) || !strings.Contains(err.Error(), "sudo fc-manage -c") || len(w.calls) > 0 {
			t.Errorf("%v; the calls are %q", err, w.calls)
		}
	})
	t.Run("a container of our own", func(t *testing.T) {
		w := created(t)
		_, err := w.manager().Ensure(t.Context(), dialectRequest("/c"))
		if !errors.As(err, &other) || !strings.Contains(err.Error(), "published key") || len(w.calls) > 0 {
			t.Errorf("%v; the calls are %q", err, w.calls)
		}
		if _, err := os.Lstat(filepath.Join(w.registry.Root("box"), fcmanage.EncPath)); err == nil {
			t.Error("it has an enc.json")
		}
	})
}

func TestBatouKey(t *testing.T) {
	keys := func(w *world, user string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(w.registry.Guest("box"), "authorized_keys", user))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	w := dialectWorld(t)
	if !strings.Contains(keys(w, "developer"), BatouKey) {
		t.Error("developer has no batou key")
	}
	for _, user := range []string{"root", serviceUser} {
		if strings.Contains(keys(w, user), BatouKey) {
			t.Errorf("%s has batou's key", user)
		}
	}
	manager := w.manager()
	manager.Settings.Batou.Enable = false
	if _, err := manager.Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute, LockTimeout: time.Second}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(keys(w, "developer"), BatouKey) {
		t.Error("with the dialects turned off, the key still counts")
	}
	if own := created(t); strings.Contains(keys(own, "developer"), BatouKey) {
		t.Error("a container of our own has batou's key")
	}
}

// TestEncInHostileFolder writes into a folder whose root somebody else is.
func TestEncInHostileFolder(t *testing.T) {
	enc := fcmanage.NewEnc("/c", "/nix/store/a", "/nix/store/b", "")
	outside := t.TempDir()
	for name, prepare := range map[string]func(root string) error{
		"etc leads out": func(root string) error { return os.Symlink(outside, filepath.Join(root, "etc")) },
		"etc leads up":  func(root string) error { return os.Symlink("../..", filepath.Join(root, "etc")) },
		"etc/nixos leads out": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Symlink(outside, filepath.Join(root, "etc/nixos")))
		},
		"etc is a file": func(root string) error { return os.WriteFile(filepath.Join(root, "etc"), nil, 0o644) },
		"enc.json is a folder": func(root string) error {
			return os.MkdirAll(filepath.Join(root, fcmanage.EncPath, "x"), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := prepare(root); err != nil {
				t.Fatal(err)
			}
			if err := writeEnc(root, enc); err == nil {
				t.Error("it was written")
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("outside there is %v", left)
			}
			if left, _ := filepath.Glob(filepath.Join(root, "etc/nixos/*.json.*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("the file leads out", func(t *testing.T) {
		root, victim := t.TempDir(), filepath.Join(outside, "victim")
		err := errors.Join(os.WriteFile(victim, []byte("untouched"), 0o644), os.MkdirAll(filepath.Join(root, "etc/nixos"), 0o755), os.Symlink(victim, filepath.Join(root, fcmanage.EncPath)))
		if err := errors.Join(err, writeEnc(root, enc)); err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(victim); string(text) != "untouched" {
			t.Errorf("the host's file holds %q", text)
		}
		if info, err := os.Lstat(filepath.Join(root, fcmanage.EncPath)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("enc.json is %v, %v", info, err)
		}
	})
}

func TestRollbackToTheHostsSystem(t *testing.T) {
	w := dialectWorld(t)
	link := filepath.Join(w.registry.Root("box"), nspawn.GuestSystem)
	if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink("/nix/store/built-inside", link)); err != nil {
		t.Fatal(err)
	}
	w.runs = "/nix/store/built-inside"
	if number, err := w.manager().Rollback(t.Context(), "box", 0, time.Minute); err != nil || number != 1 {
		t.Fatalf("generation %d, %v", number, err)
	}
	if w.runs != "/nix/store/c-" {
		t.Errorf("it runs %s", w.runs)
	}
	if _, err := os.Lstat(link); err == nil {
		t.Error("the next start would be of what was built inside")
	}
}

func TestHandOverProgram(t *testing.T) {
	w := newWorld(t)
	manager := w.manager()
	manager.Program = filepath.Join(t.TempDir(), "program")
	write := func(text string) {
		t.Helper()
		// As an upgrade does: a new file, not the old one overwritten.
		if err := errors.Join(os.WriteFile(manager.Program+".new", []byte(text), 0o755), os.Rename(manager.Program+".new", manager.Program)); err != nil {
			t.Fatal(err)
		}
	}
	give := func(name string) string {
		t.Helper()
		if err := errors.Join(os.MkdirAll(w.registry.Guest(name), 0o755), manager.handOverProgram(name)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(w.registry.Guest(name), handedProgram)
	}
	isOne := func(one, other string) bool {
		t.Helper()
		first, err := os.Stat(one)
		second, otherErr := os.Stat(other)
		if err := errors.Join(err, otherErr); err != nil {
			t.Fatal(err)
		}
		return os.SameFile(first, second)
	}
	write("first")
	a, b := give("a"), give("b")
	if !isOne(a, b) {
		t.Error("two containers have two copies")
	}
	before, _ := os.Stat(a)
	if after, _ := os.Stat(give("a")); !os.SameFile(before, after) {
		t.Error("an unchanged program was handed over again")
	}
	write("again")
	if text, _ := os.ReadFile(give("a")); string(text) != "again" {
		t.Errorf("after an upgrade there is %q", text)
	}
	if text, _ := os.ReadFile(b); string(text) != "first" {
		t.Errorf("a container that was left alone has %q", text)
	}
	give("b")
	write("third")
	give("a")
	give("b")
	if copies, _ := os.ReadDir(w.registry.Programs()); len(copies) > 2 {
		t.Errorf("copies that nobody has stay: %v", copies)
	}
	t.Run("removed by somebody else", func(t *testing.T) {
		shared, err := manager.sharedProgram()
		if err != nil {
			t.Fatal(err)
		}
		// Between its copy and its link: what cannot be linked stands for that.
		if err := errors.Join(os.Remove(shared), os.Mkdir(shared, 0o755)); err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(give("c")); string(text) != "third" {
			t.Errorf("it was given %q", text)
		}
	})
}

// TestUndeleteInTheWay: what a guest made of its own folders, where the host
// writes enc.json, must not keep it from coming back.
func TestUndeleteInTheWay(t *testing.T) {
	w := dialectWorld(t)
	nixos := filepath.Join(w.registry.Root("box"), filepath.Dir(fcmanage.EncPath))
	if err := errors.Join(os.RemoveAll(nixos), os.Symlink("/elsewhere", nixos)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().DestroyArchived(t.Context(), "box", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(w.registry.GCRoots(), "box", "guest-system")); err != nil || !strings.HasPrefix(target, w.registry.Root("box")) {
		t.Errorf("the root leads to %s, %v", target, err)
	}
}
