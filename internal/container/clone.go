package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/engine"
	"devhost/internal/names"
	"devhost/internal/registry"
)

// CloneRequest says what is cloned and how.
type CloneRequest struct {
	// Source is cloned, Name is the clone's.
	Source, Name string
	// Owner is the login of the person who asks.
	Owner string
	// AccountKeys are the keys of the caller's account on this host.
	AccountKeys []string
	// Stop stops a running source while it is copied; else it is frozen.
	Stop bool
	// NoStart leaves the clone stopped. That of a stopped container is stopped
	// anyway.
	NoStart bool
	// Timeout bounds the start, and then the wait for the guest's start-up
	// queue.
	Timeout time.Duration
}

// CloneResult says what was done.
type CloneResult struct {
	Container *registry.Container `json:"container"`
	// Way says how files were copied; State what the source did meanwhile.
	Way     disk.Way `json:"way"`
	State   string   `json:"state"`
	Started bool     `json:"started"`
	// Units are those that failed or still start.
	Units []Unit `json:"units"`
}

// Clone makes a new container of what another one is now: its files, system and
// limits, with a name, an owner, addresses and keys of its own. Aliases,
// forwarded ports, snapshots and times of expiry are the source's alone.
func (m *Manager) Clone(ctx context.Context, request CloneRequest) (*CloneResult, error) {
	for _, name := range []string{request.Source, request.Name} {
		if err := names.Container(name); err != nil {
			return nil, err
		}
	}
	if request.Source == request.Name {
		return nil, &NameTaken{Name: request.Name, Instead: "choose another name for the clone"}
	}
	var result *CloneResult
	err := m.lockedBoth(ctx, request.Source, request.Name, "clone", func() error {
		source, err := m.Registry.Load(request.Source)
		if err != nil {
			return err
		}
		if err := m.checkNew(request.Name); err != nil {
			return err
		}
		if err := os.MkdirAll(m.Registry.Container(request.Name), 0o700); err != nil {
			return err
		}
		change := m.begin(request.Name, registry.Create, nil)
		result, err = m.cloneSteps(ctx, change, source, request)
		if err == nil {
			return change.done()
		}
		if undoErr := change.undo(ctx); undoErr != nil {
			return &Failure{Name: request.Name, Err: err, Now: fmt.Sprintf("container %s is half made, and removing it failed (%v); remove it with: devhost destroy %s", request.Name, undoErr, request.Name)}
		}
		return &Failure{Name: request.Name, Err: err, Now: fmt.Sprintf("container %s was not made; nothing of it is left", request.Name)}
	})
	return result, err
}

// checkNew refuses a name that a container or something else of this host's has.
func (m *Manager) checkNew(name string) error {
	_, err := m.Registry.Load(name)
	var missing *registry.NotRegistered
	if !errors.As(err, &missing) {
		return &NameTaken{Name: name, Instead: "choose another name, or remove it before with: devhost destroy " + name}
	}
	reason, err := m.Network.NameInUse(name)
	if err != nil {
		return err
	}
	if reason != "" {
		return &names.Invalid{What: "a container's name", Name: name, Reason: reason, Example: name + "-dev"}
	}
	return nil
}

func (m *Manager) cloneSteps(ctx context.Context, change *change, source *registry.Container, request CloneRequest) (*CloneResult, error) {
	record := *source
	record.Name, record.Owner, record.CreatedAt = request.Name, request.Owner, m.Now().UTC()
	record.Aliases, record.ForwardPorts, record.Expiry, record.AccountKeys = []string{}, nil, registry.Expiry{}, nil
	record.Address, record.Degraded, record.Declared = registry.Address{}, false, nil
	if len(request.AccountKeys) > 0 {
		record.AccountKeys = map[string][]string{request.Owner: request.AccountKeys}
	}
	for _, warning := range m.keepToSettings(&record) {
		m.Reporter.Warn(warning)
	}
	result := &CloneResult{Container: &record, Units: []Unit{}}
	state, err := m.Engine.State(source.Name)
	if err != nil {
		return nil, err
	}
	record.Enabled = state.Status == engine.Running && !request.NoStart
	if err := change.step(ctx, StepClone); err != nil {
		return nil, err
	}
	err = m.hold(ctx, source, request.Stop, func(state string) error {
		result.State = state
		result.Way, err = m.copyContainer(ctx, source, &record)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := change.step(ctx, StepAllocate); err != nil {
		return nil, err
	}
	if err := m.allocate(ctx, &record); err != nil {
		return nil, err
	}
	if err := m.install(ctx, change, &wanted{record: record}); err != nil {
		return nil, err
	}
	return result, m.finishClone(ctx, change, result, request.Timeout)
}

func (m *Manager) finishClone(ctx context.Context, change *change, result *CloneResult, timeout time.Duration) error {
	record := result.Container
	if record.Enabled {
		if err := change.step(ctx, StepStart); err != nil {
			return err
		}
		if err := m.startAndWait(ctx, record, timeout); err != nil {
			return err
		}
		result.Started = true
		if err := change.step(ctx, StepReady); err != nil {
			return err
		}
		var err error
		if result.Units, err = m.settle(ctx, record, timeout); err != nil {
			return err
		}
	}
	if err := change.step(ctx, StepPublish); err != nil {
		return err
	}
	return m.deployed(ctx, record, true)
}

// copyContainer copies the files of a container that stands still to a new one.
func (m *Manager) copyContainer(ctx context.Context, source, record *registry.Container) (disk.Way, error) {
	m.copies()
	// First: then they keep the system and the channel together.
	if err := m.keepRoots(ctx, m.gcRoots(record.Name), record); err != nil {
		return "", err
	}
	root := m.Registry.Root(record.Name)
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	way, err := m.Disk.WayIn(m.Registry.Container(record.Name))
	if err != nil {
		return "", err
	}
	if err := m.boundFolder(ctx, root, record.Limits.DiskBytes); err != nil {
		return "", err
	}
	if err := m.Disk.CopyTree(ctx, m.Registry.Root(source.Name), root); err != nil {
		return "", err
	}
	if source.ProvisionHash != "" {
		place := m.provisionPlace(record)
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			return "", err
		}
		if err := m.Disk.CopyTree(ctx, m.provisionPlace(source), place); err != nil {
			return "", err
		}
	}
	return way, errors.Join(becomeAnother(root), m.keepGuestSystem(record))
}

// becomeAnother takes away from a copied root folder what must not be the same
// on two machines: the machine id (see machine-id(5)), ssh host keys that the
// guest made, and the seed of random numbers. The guest wrote all of it, so no
// link of it is followed out of the folder.
func becomeAnother(folder string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	text := []byte(hex.EncodeToString(id) + "\n")
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if err := replaceInside(root, path, text); err != nil {
			return fmt.Errorf("cannot give the copy a machine id of its own: %w", err)
		}
	}
	doomed := []string{"var/lib/systemd/random-seed"}
	// Whatever the guest made of it must not hold us up.
	const most = 1024
	if folder, err := root.OpenFile("etc/ssh", os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0); err == nil {
		entries, _ := folder.ReadDir(most)
		_ = folder.Close()
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "ssh_host_") && strings.Contains(entry.Name(), "_key") && entry.Type().IsRegular() {
				doomed = append(doomed, "etc/ssh/"+entry.Name())
			}
		}
	}
	for _, path := range doomed {
		if err := root.Remove(path); err != nil && !isMissing(err) {
			return fmt.Errorf("cannot take %s out of the copy: %w", path, err)
		}
	}
	return nil
}

// replaceInside replaces a regular file that is there.
func replaceInside(root *os.Root, path string, text []byte) error {
	info, err := root.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		if isMissing(err) {
			err = nil
		}
		return err
	}
	if err := root.Remove(path); err != nil {
		return err
	}
	const readable = 0o444
	file, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, readable)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// isMissing tells whether there is nothing at a path, or a file where a folder
// of it would be.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
