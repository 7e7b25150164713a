package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"devhost/internal/names"
	"devhost/internal/network"
	"devhost/internal/person"
	"devhost/internal/registry"
)

func load(t *testing.T, w *world) *registry.Container {
	t.Helper()
	record, err := w.registry.Load("box")
	if err != nil {
		t.Fatal(err)
	}
	return record
}

const (
	aliceKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGc7V2c2zFPRMl8/gmBv1/MEldEuJau8jHjhx+2qziYs alice"
	bobKey   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ bob"
)

// TestKeysAreKept: what one member gave is not taken away by another one's
// ensure, and an account's emptied file takes its keys away.
func TestKeysAreKept(t *testing.T) {
	w := created(t)
	ensure := func(login string, account []string, given *[]string) {
		t.Helper()
		aliases := []string{}
		request := EnsureRequest{Name: "box", Caller: person.Person{Login: login}, AccountKeys: account, AuthorizedKeys: given, Aliases: &aliases, Timeout: time.Minute}
		if _, err := w.manager().Ensure(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	want := func(keys ...string) {
		t.Helper()
		if diff := cmp.Diff(keys, load(t, w).MemberKeys()); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
		file, err := os.ReadFile(filepath.Join(w.registry.Guest("box"), "authorized_keys/developer"))
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{aliceKey, bobKey} {
			if strings.Contains(string(file), key) != strings.Contains(strings.Join(keys, "\n"), key) {
				t.Errorf("the guest's file is not up to date: %s", file)
			}
		}
	}
	ensure("carol", nil, &[]string{aliceKey})
	want(aliceKey)
	ensure("bob", []string{bobKey}, nil)
	want(bobKey, aliceKey)
	ensure("bob", nil, nil)
	want(aliceKey)
	ensure("carol", nil, &[]string{})
	want()
}

// TestRollbackStays: only settings change, so the system is not touched.
func TestRollbackStays(t *testing.T) {
	w := created(t)
	if _, err := w.manager().Ensure(t.Context(), request("two")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Rollback(t.Context(), "box", 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	aliases := []string{"www"}
	result, err := w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", Aliases: &aliases, Timeout: time.Minute})
	if err != nil || result.Switched || w.runs != "/nix/store/c-one" {
		t.Errorf("an alias changed the system to %s: %+v, %v", w.runs, result, err)
	}
	result, err = w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", Timeout: time.Minute})
	if err != nil || !result.Switched || w.runs != "/nix/store/c-two" {
		t.Errorf("a plain ensure left the system at %s: %+v, %v", w.runs, result, err)
	}
}

// TestDegradedIsSaidAgain: a unit that is not up is not forgotten by the next,
// unchanged ensure.
func TestDegradedIsSaidAgain(t *testing.T) {
	w := newWorld(t)
	w.units = failedUnit
	for range 2 {
		result, err := w.manager().Ensure(t.Context(), request("one"))
		if err != nil || len(result.Units) != 2 {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	w.units = "[]"
	result, err := w.manager().Ensure(t.Context(), request("one"))
	if err != nil || len(result.Units) != 0 || load(t, w).Degraded {
		t.Errorf("all units are up: %+v, %v", result, err)
	}
}

func TestLimitsAreTakenBackWhenTheyCannotBeSet(t *testing.T) {
	w := created(t)
	w.fail["limits"] = errors.New("the guest uses more")
	memory := int64(1 << 30)
	_, err := w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", MemoryBytes: &memory, Timeout: time.Minute})
	if err == nil || load(t, w).Limits.MemoryBytes != 0 {
		t.Errorf("%v; the record says %+v", err, load(t, w).Limits)
	}
	count := 0
	for _, call := range w.calls {
		if call == "limits" {
			count++
		}
	}
	if count != 2 {
		t.Errorf("the limits were set %d times: what was half set must be taken back", count)
	}
}

// TestReadOnlyHostsFile: as on NixOS, where everything else works.
func TestReadOnlyHostsFile(t *testing.T) {
	w := newWorld(t)
	w.fail["publish"] = &network.HostsReadOnly{Path: "/etc/hosts", Err: os.ErrPermission}
	if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil {
		t.Errorf("ensure: %v", err)
	}
	if err := w.manager().Destroy(t.Context(), "box"); err != nil {
		t.Errorf("destroy: %v", err)
	}
}

func TestPublishedFiles(t *testing.T) {
	w := created(t)
	folder := w.registry.Published()
	text, err := os.ReadFile(filepath.Join(folder, "vm-configs/box.json"))
	if err != nil || !strings.Contains(string(text), `"srv-ip": "127.0.0.1"`) {
		t.Errorf("%s, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "box.json")); err != nil {
		t.Error(err)
	}
	if err := w.manager().Destroy(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left in %s: %v", folder, err)
	}
}

// TestPublishedFilesBehindALink: as on a NixOS host whose /etc nobody can write,
// and which would have no other way to make the link again.
func TestPublishedFilesBehindALink(t *testing.T) {
	w := newWorld(t)
	folder, target := w.registry.Published(), t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Dir(folder), 0o755), os.Symlink(target, folder)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(target, "vm-configs/box.json")); err != nil {
		t.Error(err)
	}
	if err := w.manager().Destroy(t.Context(), "box"); err != nil {
		t.Fatal(err)
	}
	if found, err := os.Readlink(folder); found != target {
		t.Errorf("the link is gone: %v", err)
	}
	if left, err := os.ReadDir(target); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestHostileGuest: a guest can neither fill our memory nor hold us up.
func TestHostileGuest(t *testing.T) {
	t.Run("talks without end", func(t *testing.T) {
		w := created(t)
		written := 0
		w.answer = func(ctx context.Context, stdout io.Writer) (int, error) {
			for ctx.Err() == nil {
				n, err := stdout.Write(make([]byte, 64<<10))
				if err != nil {
					return 1, err
				}
				written += n
			}
			return 143, nil
		}
		_, err := w.manager().TroubledUnits(t.Context(), "box")
		if err == nil || !strings.Contains(err.Error(), "says more than") {
			t.Errorf("error %v after %d bytes", err, written)
		}
	})
	t.Run("never answers", func(t *testing.T) {
		w := created(t)
		w.answer = func(ctx context.Context, _ io.Writer) (int, error) {
			if _, limited := ctx.Deadline(); !limited {
				t.Error("there is no deadline")
				return 0, nil
			}
			return 143, nil
		}
		if _, err := w.manager().TroubledUnits(context.WithoutCancel(t.Context()), "box"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("never switches", func(t *testing.T) {
		w := created(t)
		w.answer = func(ctx context.Context, _ io.Writer) (int, error) {
			w.answer = nil
			<-ctx.Done()
			return 143, nil
		}
		asked := request("two")
		asked.Timeout = 20 * time.Millisecond
		_, err := w.manager().Ensure(t.Context(), asked)
		if err == nil || !strings.Contains(err.Error(), "did not switch to its new system within 20ms") || w.runs != "/nix/store/c-one" {
			t.Errorf("it runs %s: %v", w.runs, err)
		}
	})
}

func TestNameInUse(t *testing.T) {
	w := newWorld(t)
	asked := request("one")
	asked.Name = "taken"
	_, err := w.manager().Ensure(t.Context(), asked)
	var invalid *names.Invalid
	if !errors.As(err, &invalid) || invalid.Reason != "the host has it" {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(w.registry.Containers()); len(entries) > 0 {
		t.Errorf("something is left: %v", entries)
	}
}

func TestStopOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a full disk is mounted by root")
	}
	w := created(t)
	folder := w.registry.Container("box")
	record, err := os.ReadFile(w.registry.Record("box"))
	if err != nil {
		t.Fatal(err)
	}
	// One page is all: the old record fits, a new one beside it does not.
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer func() {
		if err := unix.Unmount(folder, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(w.registry.Record("box"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	stopped, err := w.manager().Stop(t.Context(), "box", time.Second)
	if err != nil || !stopped || w.runs != "" {
		t.Errorf("stopped %v, it runs %q: %v", stopped, w.runs, err)
	}
}
