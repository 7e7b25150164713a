package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"devhost/internal/engine/nspawn"
	"devhost/internal/fcmanage"
	"devhost/internal/nix"
	"devhost/internal/registry"
)

// A container that was made through one of batou's commands decides about its
// own system: fc-manage inside builds it from the channel that the host pinned
// and the modules below /etc/local/nixos, and that one is what starts next time.
// The host writes etc/nixos/enc.json, keeps the system from the collector, and
// never switches it.

// BatouKey is the public half of the key pair that batou uses for all
// containers. Its private half is published, so whoever reaches such a container
// can log in.
const BatouKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGc7V2c2zFPRMl8/gmBv1/MEldEuJau8jHjhx+2qziYs batou"

// MadeOtherwise says that a container was not made in the way that a request
// needs.
type MadeOtherwise struct{ Name, Reason, Next string }

func (m *MadeOtherwise) Error() string {
	return fmt.Sprintf("container %s %s; %s", m.Name, m.Reason, m.Next)
}

// fitsDialect refuses what a container cannot be asked for, by how it was made.
func fitsDialect(request EnsureRequest, old *registry.Container) error {
	switch {
	case request.Dialect != "" && old.Dialect == "":
		return &MadeOtherwise{
			Name: old.Name, Reason: "was made with devhost ensure, and batou's published key must not log in to such a one",
			Next: fmt.Sprintf("use another name, or remove it first: devhost destroy %s", old.Name),
		}
	case old.Dialect != "" && request.Provision != nil:
		return &MadeOtherwise{
			Name: old.Name, Reason: fmt.Sprintf("was made with %s, and fc-manage inside decides about its system", old.Dialect),
			Next: "put the modules into /" + fcmanage.LocalFolder + " of the container and run there: sudo fc-manage -c",
		}
	}
	return nil
}

// handOver gives a container whose system fc-manage builds what that needs:
// enc.json, the store paths it names, a Nix daemon, and roots of the collector.
func (m *Manager) handOver(ctx context.Context, record *registry.Container) error {
	if record.Dialect == "" {
		return nil
	}
	guest, err := m.Systems.GuestModule(ctx, m.gcRoots(record.Name))
	if err != nil {
		return err
	}
	if err := m.keepGuestSystem(record); err != nil {
		return err
	}
	enc := fcmanage.NewEnc(record.Pin.Reference, record.Pin.StorePath, guest, nix.StoreFolder())
	if err := writeEnc(m.Registry.Root(record.Name), enc); err != nil {
		return fmt.Errorf("cannot write /%s of container %s: %w; what the container has there is in the way", fcmanage.EncPath, record.Name, err)
	}
	return nil
}

// keepGuestSystem makes roots of the collector that lead through the guest's own
// links: Nix follows a root to a link outside of the store, and that link into
// the store, and no further.
func (m *Manager) keepGuestSystem(record *registry.Container) error {
	if record.Dialect == "" {
		return nil
	}
	folder := m.gcRoots(record.Name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, inside := range map[string]string{"guest-system": nspawn.GuestSystem, "guest-next": nspawn.GuestNext} {
		root, target := filepath.Join(folder, name), filepath.Join(m.Registry.Root(record.Name), inside)
		if old, err := os.Readlink(root); err == nil && old == target {
			continue
		}
		if err := renameio.Symlink(target, root); err != nil {
			return fmt.Errorf("cannot keep the system of container %s from being garbage collected: %w", record.Name, err)
		}
	}
	return nil
}

// System is the system that a container runs, or starts with next time.
func (m *Manager) System(record *registry.Container) string {
	system, _ := nspawn.System(m.Registry.Layout, record)
	return system
}

// dropGuestSystem makes the host's own system the one that starts next time.
func (m *Manager) dropGuestSystem(record *registry.Container) error {
	if record.Dialect == "" {
		return nil
	}
	inside, err := os.OpenRoot(m.Registry.Root(record.Name))
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.Remove(nspawn.GuestSystem); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeEnc writes the file so that a reader sees the old or the new one. The
// folder is the guest's: no link in it leads out.
func writeEnc(root string, enc fcmanage.Enc) error {
	content, err := json.MarshalIndent(enc, "", "  ")
	if err != nil {
		return err
	}
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.MkdirAll(filepath.Dir(fcmanage.EncPath), 0o755); err != nil {
		return err
	}
	var unique [8]byte
	_, _ = rand.Read(unique[:])
	temporary := fcmanage.EncPath + "." + hex.EncodeToString(unique[:])
	file, err := inside.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(content, '\n'))
	err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
	if err == nil {
		err = inside.Rename(temporary, fcmanage.EncPath)
	}
	if err != nil {
		return errors.Join(err, inside.Remove(temporary))
	}
	return nil
}
