package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"devhost/internal/names"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// UndeleteRequest says which archive becomes a container again.
type UndeleteRequest struct {
	// Name is the container's as it was.
	Name string
	// As is its name from now on, "" for the same.
	As string
	// ID is the archive's, "" for the newest.
	ID string
	// NoStart leaves the container stopped: one that does not come up is still
	// brought back.
	NoStart bool
	// Timeout bounds the start, and then the wait for the guest's start-up
	// queue.
	Timeout time.Duration
}

// NameTaken says that there is a container of that name.
type NameTaken struct {
	Name string
	// Instead is what to do.
	Instead string
}

func (n *NameTaken) Error() string {
	return fmt.Sprintf("there is a container %s already; %s", n.Name, n.Instead)
}

// Undelete makes an archived container one again and starts it. Its addresses
// may be others than before. The archive goes when the container is back.
func (m *Manager) Undelete(ctx context.Context, request UndeleteRequest) (*EnsureResult, error) {
	name := request.Name
	if request.As != "" {
		name = request.As
	}
	for _, name := range []string{request.Name, name} {
		if err := names.Container(name); err != nil {
			return nil, err
		}
	}
	var result *EnsureResult
	steps := func() error {
		archived, err := m.findArchive(request.Name, request.ID)
		if err != nil {
			return err
		}
		if err := m.checkOwner(archived.Record, "undelete"); err != nil {
			return err
		}
		if err := m.nameIsFree(request, name); err != nil {
			return err
		}
		result, err = m.bringBack(ctx, archived, name, request)
		return err
	}
	if name == request.Name {
		err := m.locked(ctx, name, "undelete", m.lockTimeout(), steps)
		return result, err
	}
	// The archive is that of the old name, and must stay.
	err := m.lockedBoth(ctx, request.Name, name, "undelete", steps)
	return result, err
}

// findArchive is an archive by its id, or the newest.
func (m *Manager) findArchive(name, id string) (*registry.Archive, error) {
	if id != "" {
		if !registry.ValidArchiveID(id) {
			return nil, &registry.NoArchive{Name: name, ID: id}
		}
		return m.Registry.LoadArchive(name, id)
	}
	entries, err := m.Registry.ListArchives(name)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, &registry.NoArchive{Name: name}
	}
	// The last is the newest. An older one is taken only by its id.
	newest := entries[len(entries)-1]
	return newest.Archive, newest.Err
}

func (m *Manager) nameIsFree(request UndeleteRequest, name string) error {
	if _, err := os.Lstat(m.Registry.Container(name)); err == nil {
		return &NameTaken{Name: name, Instead: fmt.Sprintf("bring the archived one back under another name: devhost undelete %s --as OTHER", request.Name)}
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

func (m *Manager) bringBack(ctx context.Context, archived *registry.Archive, name string, request UndeleteRequest) (*EnsureResult, error) {
	if err := os.MkdirAll(m.Registry.Container(name), 0o700); err != nil {
		return nil, err
	}
	change := m.begin(name, registry.Create, nil)
	result, err := m.bringBackSteps(ctx, change, archived, name, request)
	if err == nil {
		if err := change.done(); err != nil {
			return nil, err
		}
		return result, m.removeArchive(archived.Name, archived.ID)
	}
	if undoErr := change.undo(ctx); undoErr != nil {
		return nil, &Failure{Name: name, Err: err, Now: fmt.Sprintf("container %s is half there, and removing it failed (%v); remove it with: devhost destroy %s; its archive %s is kept", name, undoErr, name, archived.ID)}
	}
	now := fmt.Sprintf("container %s was not brought back; its archive %s is kept", name, archived.ID)
	if change.entry.Step == StepStart {
		now += "; to have its files without starting it, give --no-start"
	}
	return nil, &Failure{Name: name, Err: err, Now: now}
}

func (m *Manager) bringBackSteps(ctx context.Context, change *change, archived *registry.Archive, name string, request UndeleteRequest) (*EnsureResult, error) {
	if err := change.step(ctx, StepUnpack); err != nil {
		return nil, err
	}
	m.Reporter.Phase(progress.Unpack)
	want := &wanted{record: *archived.Record}
	record := &want.record
	record.Name, record.Enabled = name, !request.NoStart
	if record.Declared != nil {
		// From now on it is the person's, and lives as long as theirs do.
		record.Declared, record.Expiry = nil, registry.Expiry{}
	}
	if err := m.keepRoots(ctx, m.gcRoots(name), record); err != nil {
		return nil, err
	}
	// Its record is written anew, when it has addresses.
	state := registry.ArchiveState(m.Registry.Archive(archived.Name, archived.ID))
	leftOut := append(m.leftOut(name), "container.json")
	if err := m.Archiver.Unpack(ctx, state, archived.SHA256, m.Registry.Container(name), leftOut...); err != nil {
		return nil, err
	}
	// What tar set is the mode of the archived folder.
	if err := errors.Join(privateFolder(m.Registry.Container(name)), m.keepGuestSystem(record)); err != nil {
		return nil, err
	}
	if err := change.step(ctx, StepAllocate); err != nil {
		return nil, err
	}
	warnings, err := m.freedPorts(record)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, m.keepToSettings(record)...)
	if err := m.allocate(ctx, record); err != nil {
		return nil, err
	}
	if err := m.install(ctx, change, want); err != nil {
		return nil, err
	}
	result := &EnsureResult{Container: record, Created: true, Started: record.Enabled, Units: []Unit{}, Warnings: warnings}
	if request.NoStart {
		if err := change.step(ctx, StepPublish); err != nil {
			return nil, err
		}
		return result, m.deployed(ctx, record, true)
	}
	if err := change.step(ctx, StepStart); err != nil {
		return nil, err
	}
	if err := m.startAndWait(ctx, record, request.Timeout); err != nil {
		return nil, err
	}
	return result, m.finish(ctx, change, result, request.Timeout)
}
