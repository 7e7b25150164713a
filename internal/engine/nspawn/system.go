package nspawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"devhost/internal/nix"
	"devhost/internal/registry"
)

// GuestSystem and GuestNext are links of the guest, relative to its root
// folder, that point directly into the store: to the system that fc-manage
// installed, and to the one that it builds. The host's collector follows a root
// to them, and no further.
const (
	GuestSystem = "nix/var/nix/profiles/devhost-system"
	GuestNext   = "nix/var/nix/profiles/devhost-next"
)

// BadGuestSystem says that what a guest names as its system is none.
type BadGuestSystem struct {
	Name, Reason string
	Err          error
}

func (b *BadGuestSystem) Error() string {
	return fmt.Sprintf("container %s: the system that fc-manage installed inside (/%s) cannot be started: %s", b.Name, GuestSystem, b.Reason)
}

func (b *BadGuestSystem) Unwrap() error { return b.Err }

// System is the system that a container starts with: the one of its record, or,
// where fc-manage decides, the one that fc-manage installed. When that one
// cannot be used it is that of the record, and fallback is a *BadGuestSystem.
func System(layout registry.Layout, container *registry.Container) (system string, fallback error) {
	if container.Dialect == "" {
		return container.System, nil
	}
	target, err := readGuestLink(layout.Root(container.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return container.System, nil
	}
	bad := func(reason string, err error) (string, error) {
		return container.System, &BadGuestSystem{Name: container.Name, Reason: reason, Err: err}
	}
	if err != nil {
		return bad(err.Error(), err)
	}
	// The guest writes the link: it must name an object of the store, and that
	// must be what a system is.
	if nix.CheckStorePath(target) != nil {
		return bad(fmt.Sprintf("%q is not the path of an object in the store", target), nil)
	}
	if err := hasInit(target); err != nil {
		return bad("it is gone, or has no init: "+err.Error(), err)
	}
	if _, err := HostUsr(target); err != nil {
		return bad(err.Error(), err)
	}
	return target, nil
}

// hasInit looks for a system's init. A guest can add to the store, so the
// object may be a link to anywhere: it is not followed out of the store.
func hasInit(system string) error {
	store, err := os.OpenRoot(filepath.Dir(system))
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Lstat(filepath.Join(filepath.Base(system), "init"))
	return err
}

// readGuestLink reads the link without leaving the guest's root folder,
// whatever the guest made of the folders above it.
func readGuestLink(root string) (string, error) {
	inside, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer inside.Close()
	return inside.Readlink(GuestSystem)
}
