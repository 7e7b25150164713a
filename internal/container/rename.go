package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"devhost/internal/disk"
	"devhost/internal/engine"
	"devhost/internal/names"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Renamed is what a renaming did.
type Renamed struct {
	Container *registry.Container `json:"container"`
	Started   bool                `json:"started"`
	// Units are those that failed or still start.
	Units []Unit `json:"units"`
}

// Rename gives a container another name. It keeps its files, addresses, keys,
// generations and snapshots. A running one is stopped and started again, for a
// guest learns its name when it starts. The error is *NotOwner, *NameTaken or
// *names.Invalid where it may not be.
func (m *Manager) Rename(ctx context.Context, from, to string, timeout time.Duration) (result *Renamed, err error) {
	for _, name := range []string{from, to} {
		if err := names.Container(name); err != nil {
			return nil, err
		}
	}
	if from == to {
		return nil, &NameTaken{Name: to, Instead: "that is its name"}
	}
	err = m.lockedBoth(ctx, from, to, "rename", func() error {
		record, err := m.Registry.Load(from)
		if err != nil {
			return err
		}
		if err := errors.Join(checkDeclared(record), m.checkOwner(record, "rename")); err != nil {
			return err
		}
		if err := m.checkNew(to); err != nil {
			return err
		}
		state, err := m.Engine.State(from)
		if err != nil {
			return err
		}
		change := m.begin(from, registry.Rename, record)
		change.entry.From, change.entry.To = from, to
		change.entry.Restart = state.Status != engine.Stopped && state.Status != engine.Failed
		if err := m.renameSteps(ctx, change); err != nil {
			return m.renameFailed(ctx, &change.entry, err)
		}
		result, err = m.startRenamed(ctx, &change.entry, timeout)
		return err
	})
	return result, err
}

// renameSteps gives the folder its new name: from then on the container has it.
func (m *Manager) renameSteps(ctx context.Context, change *change) error {
	from, to := change.entry.From, change.entry.To
	if err := change.step(ctx, StepStop); err != nil {
		return err
	}
	m.Reporter.Phase(progress.Stop)
	if err := m.Engine.Stop(ctx, from, stopTimeout); err != nil {
		return err
	}
	if err := change.step(ctx, StepMove); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// What is left of another container of that name, long gone.
	if err := m.dropNamed(to); err != nil {
		return err
	}
	// An empty folder may be left of one that was never made.
	if err := os.Remove(m.Registry.Container(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.moveFolder(ctx, from, to); err != nil {
		return err
	}
	if m.OnStep != nil {
		m.OnStep(StepRecord)
	}
	return m.completeRename(context.WithoutCancel(ctx), &change.entry)
}

// moveFolder gives a container's folder its new name. Who reads all records to
// write what follows from them holds the shared lock meanwhile: they must not miss
// the container's addresses, nor make its old folder anew.
func (m *Manager) moveFolder(ctx context.Context, from, to string) error {
	unlock, err := m.lockShared(ctx, "rename a container")
	if err != nil {
		return err
	}
	defer unlock()
	return os.Rename(m.Registry.Container(from), m.Registry.Container(to))
}

// dropNamed removes what goes by a name that no container has.
func (m *Manager) dropNamed(name string) error {
	return errors.Join(m.Profiles.DeleteProfile(m.Registry.Profile(name)), os.RemoveAll(m.Registry.ProfileFolder(name)), disk.RemoveFolder(m.gcRoots(name)))
}

// completeRename makes everything else go by the new name that the folder has.
// Each part may have been done before.
func (m *Manager) completeRename(ctx context.Context, entry *registry.JournalEntry) error {
	from, to := entry.From, entry.To
	record, err := m.Registry.Load(to)
	if err != nil {
		return err
	}
	if err := m.Registry.Save(record); err != nil {
		return err
	}
	if err := m.moveRoots(ctx, from, to); err != nil {
		return err
	}
	if m.OnStep != nil {
		m.OnStep(StepProfile)
	}
	err = os.Rename(m.Registry.ProfileFolder(from), m.Registry.ProfileFolder(to))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if m.currentGeneration(to) == 0 {
		if _, err := m.Profiles.SetProfile(ctx, m.Registry.Profile(to), record.System); err != nil {
			return err
		}
	}
	for _, log := range []func(string) string{m.Registry.EvaluationLog, m.Registry.BuildLog} {
		if err := os.Rename(log(from), log(to)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if m.OnStep != nil {
		m.OnStep(StepFiles)
	}
	if err := m.renameSnapshots(to); err != nil {
		return err
	}
	if err := m.writeGuestFiles(record); err != nil {
		return err
	}
	if m.OnStep != nil {
		m.OnStep(StepPublish)
	}
	return m.publish(ctx)
}

// renameSnapshots makes the records in a container's snapshots name it.
func (m *Manager) renameSnapshots(name string) error {
	entries, err := m.Registry.ListSnapshots(name)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Err != nil || entry.Snapshot.Record.Name == name {
			continue
		}
		entry.Snapshot.Record.Name = name
		if err := registry.WriteJSON(registry.SnapshotRecord(m.Registry.Snapshot(name, entry.Name)), entry.Snapshot); err != nil {
			return err
		}
	}
	return nil
}

// startRenamed is the end of a renaming.
func (m *Manager) startRenamed(ctx context.Context, entry *registry.JournalEntry, timeout time.Duration) (*Renamed, error) {
	record, err := m.Registry.Load(entry.To)
	if err != nil {
		return nil, err
	}
	result := &Renamed{Container: record, Units: []Unit{}}
	if entry.Restart {
		if m.OnStep != nil {
			m.OnStep(StepStart)
		}
		if err = m.startAndWait(ctx, record, timeout); err == nil {
			result.Started = true
			result.Units, err = m.settle(ctx, record, timeout)
		}
		if err == nil {
			err = m.Registry.Save(record)
		}
		if err != nil {
			err = &Failure{Name: entry.To, Err: err, Now: fmt.Sprintf("container %s is called %s now, and is not up; start it with: devhost start %[2]s", entry.From, entry.To)}
		}
	}
	return result, errors.Join(err, m.Registry.RemoveJournal(entry.To))
}

func (m *Manager) renameFailed(ctx context.Context, entry *registry.JournalEntry, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if m.moved(entry) {
		return &Failure{Name: entry.To, Err: cause, Now: fmt.Sprintf("container %s is called %s now; what is missing is done by the next command for it, such as: devhost start %[2]s", entry.From, entry.To)}
	}
	if err := m.mendRename(ctx, entry.From, entry); err != nil {
		return &Failure{Name: entry.From, Err: cause, Now: fmt.Sprintf("container %s keeps its name; that could not be completed: %v; the next command for it tries again", entry.From, err)}
	}
	return &Failure{Name: entry.From, Err: cause, Now: fmt.Sprintf("container %s keeps its name and is as it was", entry.From)}
}

// moved tells whether the folder has its new name already.
func (m *Manager) moved(entry *registry.JournalEntry) bool {
	_, err := os.Lstat(m.Registry.Container(entry.From))
	return errors.Is(err, fs.ErrNotExist)
}

// mendRename finishes a renaming whose folder has its new name already, and
// takes back any other. The container goes on if it ran.
func (m *Manager) mendRename(ctx context.Context, name string, entry *registry.JournalEntry) error {
	if name == entry.To {
		if err := m.completeRename(ctx, entry); err != nil {
			return err
		}
	}
	return m.goOn(ctx, name, entry)
}

// forgetRename takes from a container that is about to be removed what still
// goes by the name that it had before an interrupted renaming. The caller holds
// its lock.
func (m *Manager) forgetRename(name string) error {
	entry, err := m.Registry.ReadJournal(name)
	if err != nil || entry == nil || entry.Operation != registry.Rename || entry.To != name {
		return err
	}
	return m.dropNamed(entry.From)
}
