package nspawn

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/registry"
)

// TestSystem starts a container whose root made of its link what it wants. That
// a good link is followed needs a store and is in the end-to-end tests.
func TestSystem(t *testing.T) {
	const own = "/nix/store/00000000000000000000000000000000-system"
	record := func(dialect string) *registry.Container {
		return &registry.Container{Name: "box", System: own, Dialect: dialect}
	}
	layout := registry.Layout{State: t.TempDir()}
	link := filepath.Join(layout.Root("box"), GuestSystem)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "init"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func() error{
		"a path outside":     func() error { return os.Symlink(outside, link) },
		"nothing there":      func() error { return os.Symlink("/nix/store/11111111111111111111111111111111-gone", link) },
		"below a store path": func() error { return os.Symlink(own+"/init", link) },
		"dots":               func() error { return os.Symlink("/nix/store/../../"+outside, link) },
		"relative":           func() error { return os.Symlink("system-1-link", link) },
		"empty of meaning":   func() error { return os.Symlink("x\ny", link) },
		"a file":             func() error { return os.WriteFile(link, nil, 0o644) },
		"a folder":           func() error { return os.Mkdir(link, 0o755) },
		"the folder leads out": func() error {
			return errors.Join(os.Remove(filepath.Dir(link)), os.Symlink(outside, filepath.Dir(link)))
		},
		"the folder leads up": func() error {
			return errors.Join(os.Remove(filepath.Dir(link)), os.Symlink("../../../../../..", filepath.Dir(link)))
		},
		"the folder leads to itself": func() error {
			return errors.Join(os.Remove(filepath.Dir(link)), os.Symlink("profiles", filepath.Dir(link)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(layout.Root("box")), os.MkdirAll(filepath.Dir(link), 0o755), prepare()); err != nil {
				t.Fatal(err)
			}
			system, fallback := System(layout, record("fc-devhost"))
			var bad *BadGuestSystem
			if system != own || (!errors.As(fallback, &bad) && !strings.HasPrefix(name, "the folder leads up")) {
				t.Errorf("%s, %v", system, fallback)
			}
			if system, fallback := System(layout, record("")); system != own || fallback != nil {
				t.Errorf("without a dialect: %s, %v", system, fallback)
			}
		})
	}
	t.Run("no link", func(t *testing.T) {
		if err := os.RemoveAll(layout.Root("box")); err != nil {
			t.Fatal(err)
		}
		if system, fallback := System(layout, record("fc-devhost")); system != own || fallback != nil {
			t.Errorf("%s, %v", system, fallback)
		}
	})
}

// TestHostUsrOfWhatSomebodyBuilt reads an object that anybody may have made.
func TestHostUsrOfWhatSomebodyBuilt(t *testing.T) {
	store, outside := t.TempDir(), t.TempDir()
	wish := []byte(`{"version": 1, "hostUsr": true}`)
	if err := os.WriteFile(filepath.Join(outside, "devhost-system.json"), wish, 0o644); err != nil {
		t.Fatal(err)
	}
	object := func(name string, prepare func(path string) error) string {
		t.Helper()
		path := filepath.Join(store, name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	within := func(make func(path string) error) func(string) error {
		return func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), make(filepath.Join(path, "devhost-system.json")))
		}
	}
	good := object("good", within(func(path string) error { return os.WriteFile(path, wish, 0o644) }))
	if usr, err := HostUsr(good); err != nil || !usr {
		t.Errorf("a file: %v, %v", usr, err)
	}
	for name, path := range map[string]string{
		"a link out":     object("out", within(func(path string) error { return os.Symlink(filepath.Join(outside, "devhost-system.json"), path) })),
		"all leads out":  object("all", func(path string) error { return os.Symlink(outside, path) }),
		"a device":       object("device", within(func(path string) error { return os.Symlink("/dev/zero", path) })),
		"a folder":       object("folder", within(func(path string) error { return os.Mkdir(path, 0o755) })),
		"without an end": object("large", within(func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40)) })),
	} {
		t.Run(name, func(t *testing.T) {
			if usr, err := HostUsr(path); err == nil || usr {
				t.Errorf("%v, %v", usr, err)
			}
		})
	}
}
