package container

import (
	"context"
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
	"devhost/internal/engine/nspawn"
	"devhost/internal/names"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Disk is what containers need of the file system that they lie on.
type Disk interface {
	// CopyTree copies a folder with all that is in it to a new or empty one.
	CopyTree(ctx context.Context, from, to string) error
	// WayIn says how files within a folder are copied.
	WayIn(folder string) (disk.Way, error)
	// Exchange swaps what two paths name, in one step.
	Exchange(one, other string) error
	// Enforces says whether the file system of a folder bounds what projects
	// hold. The other methods about projects work only then.
	Enforces(folder string) bool
	// NewProject is a project without files; start spreads choices.
	NewProject(folder string, start uint32) (uint32, error)
	// ProjectOf is the project of a folder, 0 for none.
	ProjectOf(folder string) (uint32, error)
	// Assign gives a folder and what is below it to a project.
	Assign(folder string, project uint32) error
	// SetLimit bounds a project, in bytes; zero takes the limit away.
	SetLimit(folder string, project uint32, bytes int64) error
	// Usage is what a project takes.
	Usage(folder string, project uint32) (disk.Usage, error)
}

// movedAside is the Way of a snapshot that a restore made.
const movedAside = "moved"

// snapshotTime is the form of names that devhost gives to snapshots, in UTC.
const snapshotTime = "20060102-150405"

// CreateSnapshot keeps what a container is now under a name, "" for one made of
// the time. A running container is frozen meanwhile, or stopped and started
// again where stop says so.
func (m *Manager) CreateSnapshot(ctx context.Context, name, snapshot string, stop bool) (made *registry.Snapshot, err error) {
	err = m.locked(ctx, name, "snapshot", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		if snapshot == "" {
			snapshot = m.freeSnapshotName(name, "")
		}
		if err := names.Snapshot(snapshot); err != nil {
			return err
		}
		if _, err := os.Lstat(m.Registry.Snapshot(name, snapshot)); err == nil {
			return &names.Invalid{What: "the name of a new snapshot", Name: snapshot, Reason: fmt.Sprintf("container %s has one of that name", name), Example: m.freeSnapshotName(name, "")}
		}
		err = m.hold(ctx, record, stop, func(state string) error {
			made, err = m.takeSnapshot(ctx, record, snapshot, state)
			return err
		})
		if err != nil && made != nil {
			// It is whole; the container has not gone on.
			return err
		}
		if err != nil {
			return &Failure{Name: name, Err: errors.Join(err, m.removeStaleSnapshots(name)), Now: fmt.Sprintf("container %s is as it was, and there is no snapshot %s", name, snapshot)}
		}
		return nil
	})
	return made, err
}

// freeSnapshotName is a name that no snapshot of the container has, made of the
// time.
func (m *Manager) freeSnapshotName(name, prefix string) string {
	for now := m.Now().UTC(); ; now = now.Add(time.Second) {
		free := prefix + now.Format(snapshotTime)
		if _, err := os.Lstat(m.Registry.Snapshot(name, free)); err != nil {
			return free
		}
	}
}

// takeSnapshot copies a container that stands still.
func (m *Manager) takeSnapshot(ctx context.Context, record *registry.Container, name, state string) (*registry.Snapshot, error) {
	folder := m.Registry.UnfinishedSnapshot(record.Name, name)
	if err := errors.Join(disk.RemoveFolder(folder), privateFolder(filepath.Dir(folder)), privateFolder(folder)); err != nil {
		return nil, err
	}
	m.copies()
	way, err := m.Disk.WayIn(folder)
	if err != nil {
		return nil, err
	}
	made := &registry.Snapshot{Version: registry.Version, Name: name, CreatedAt: m.Now().UTC(), State: state, Way: string(way), Record: record}
	if err := m.Disk.CopyTree(ctx, m.Registry.Root(record.Name), registry.SnapshotRoot(folder)); err != nil {
		return nil, err
	}
	return made, m.completeSnapshot(ctx, folder, made)
}

// copies says that files are being copied.
func (m *Manager) copies() {
	m.Reporter.Phase(progress.Duplicate)
	if m.OnStep != nil {
		m.OnStep(StepCopy)
	}
}

// completeSnapshot adds to the files in the folder of an unfinished snapshot
// what belongs to them, and gives it its name.
func (m *Manager) completeSnapshot(ctx context.Context, folder string, made *registry.Snapshot) error {
	if err := m.describeSnapshot(ctx, folder, made); err != nil {
		return err
	}
	return m.nameSnapshot(made)
}

func (m *Manager) describeSnapshot(ctx context.Context, folder string, made *registry.Snapshot) error {
	record := made.Record
	if record.ProvisionHash != "" {
		if err := m.Disk.CopyTree(ctx, m.provisionPlace(record), registry.SnapshotProvision(folder)); err != nil {
			return err
		}
	}
	if err := errors.Join(m.Systems.Keep(ctx, registry.SnapshotGCRoot(m.gcRoots(record.Name), made.Name), record.System), m.keepSnapshotSystem(made)); err != nil {
		return err
	}
	return registry.WriteJSON(registry.SnapshotRecord(folder), made)
}

// keepSnapshotSystem is keepGuestSystem for a snapshot, before and after it gets
// its name.
func (m *Manager) keepSnapshotSystem(made *registry.Snapshot) error {
	container := made.Record.Name
	if made.Record.Dialect == "" {
		return nil
	}
	root := registry.SnapshotGCRoot(m.gcRoots(container), made.Name)
	inside := func(folder string) string { return filepath.Join(registry.SnapshotRoot(folder), nspawn.GuestSystem) }
	return errors.Join(
		replaceLink(inside(m.Registry.UnfinishedSnapshot(container, made.Name)), root+".new"),
		replaceLink(inside(m.Registry.Snapshot(container, made.Name)), root+".guest"),
	)
}

// nameSnapshot makes a snapshot one: its folder gets its name.
func (m *Manager) nameSnapshot(made *registry.Snapshot) error {
	container := made.Record.Name
	if err := os.Rename(m.Registry.UnfinishedSnapshot(container, made.Name), m.Registry.Snapshot(container, made.Name)); err != nil {
		return err
	}
	return syncFolder(m.Registry.Snapshots(container))
}

// removeStaleSnapshots removes what is left of snapshots that were being made
// or removed. The caller holds the container's lock.
func (m *Manager) removeStaleSnapshots(name string) error {
	var problems []error
	for _, folder := range m.Registry.StaleSnapshots(name) {
		problems = append(problems, m.removeTree(folder))
		snapshot, _, _ := strings.Cut(filepath.Base(folder), ".")
		if _, err := os.Lstat(m.Registry.Snapshot(name, snapshot)); errors.Is(err, fs.ErrNotExist) {
			root := registry.SnapshotGCRoot(m.gcRoots(name), snapshot)
			problems = append(problems, removeIfThere(root), removeIfThere(root+".new"), removeIfThere(root+".guest"))
		}
	}
	// It stays while there are snapshots.
	_ = os.Remove(m.Registry.Snapshots(name))
	return errors.Join(problems...)
}

// RemoveSnapshot removes one snapshot.
func (m *Manager) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	if err := names.Snapshot(snapshot); err != nil {
		return err
	}
	return m.locked(ctx, name, "snapshot remove", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		if err := m.checkOwner(record, "remove a snapshot of"); err != nil {
			return err
		}
		m.Reporter.Phase(progress.Remove)
		// In one step it is none any more.
		err = os.Rename(m.Registry.Snapshot(name, snapshot), m.Registry.DoomedSnapshot(name, snapshot))
		if errors.Is(err, fs.ErrNotExist) && len(m.Registry.StaleSnapshots(name)) == 0 {
			return &registry.NoSnapshot{Container: name, Name: snapshot}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if m.OnStep != nil {
			m.OnStep(StepRemove)
		}
		return m.removeStaleSnapshots(name)
	})
}

// Restored is what a restore did.
type Restored struct {
	// Kept is the snapshot that was made of what there was before.
	Kept string `json:"kept"`
	// Way says how the files were copied.
	Way     disk.Way `json:"way"`
	Started bool     `json:"started"`
	// Units are those that failed or still start.
	Units []Unit `json:"units"`
}

// RestoreSnapshot brings back the files and the system of a snapshot. What there
// was before becomes a snapshot of its own. A running container is stopped
// meanwhile. Its name, its addresses and all that ensure sets stay as they are.
func (m *Manager) RestoreSnapshot(ctx context.Context, name, snapshot string, timeout time.Duration) (result *Restored, err error) {
	if err := names.Snapshot(snapshot); err != nil {
		return nil, err
	}
	err = m.locked(ctx, name, "snapshot restore", m.lockTimeout(), func() error {
		old, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		wanted, err := m.Registry.LoadSnapshot(name, snapshot)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(wanted.Record.System); err != nil {
			return fmt.Errorf("the system of snapshot %s is not in the store any more: %w", snapshot, err)
		}
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		change := m.begin(name, registry.Restore, old)
		change.entry.Restart = state.Status != engine.Stopped && state.Status != engine.Failed
		if result, err = m.restoreSteps(ctx, change, old, wanted); err != nil {
			if undoErr := change.undo(ctx); undoErr != nil {
				return &Failure{Name: name, Err: err, Now: fmt.Sprintf("that could not be taken back or finished: %v; the next command for container %s tries again", undoErr, name)}
			}
			return &Failure{Name: name, Err: err, Now: m.afterRestore(&change.entry, name)}
		}
		if change.entry.Restart {
			result.Started = true
			record, err := m.Registry.Load(name)
			if err == nil {
				err = m.startAndWait(ctx, record, timeout)
			}
			if err == nil {
				result.Units, err = m.settle(ctx, record, timeout)
			}
			if err == nil {
				err = m.Registry.Save(record)
			}
			if err != nil {
				err = &Failure{Name: name, Err: err, Now: fmt.Sprintf("container %s has what is in snapshot %s, and is not up (start it with: devhost start %[1]s); what there was before is in its snapshot %[3]s", name, snapshot, result.Kept)}
			}
			return errors.Join(err, change.done())
		}
		return change.done()
	})
	return result, err
}

func (m *Manager) afterRestore(entry *registry.JournalEntry, name string) string {
	if entry.Next != nil && m.swapped(name, entry) {
		return fmt.Sprintf("container %s has been brought back; what there was before is in its snapshot %s", name, entry.Staged)
	}
	return fmt.Sprintf("container %s is as it was", name)
}

func (m *Manager) restoreSteps(ctx context.Context, change *change, old *registry.Container, wanted *registry.Snapshot) (*Restored, error) {
	name := old.Name
	change.entry.Staged = m.freeSnapshotName(name, "before-restore-")
	if err := change.step(ctx, StepStop); err != nil {
		return nil, err
	}
	m.Reporter.Phase(progress.Stop)
	if err := m.Engine.Stop(ctx, name, stopTimeout); err != nil {
		return nil, err
	}
	if err := change.step(ctx, StepCopy); err != nil {
		return nil, err
	}
	m.Reporter.Phase(progress.Duplicate)
	next, way, err := m.stage(ctx, change, old, wanted)
	if err != nil {
		return nil, err
	}
	change.entry.Next = next
	if err := change.step(ctx, StepSwap); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	staged := registry.SnapshotRoot(m.Registry.UnfinishedSnapshot(name, change.entry.Staged))
	if err := m.Disk.Exchange(m.Registry.Root(name), staged); err != nil {
		return nil, err
	}
	if m.OnStep != nil {
		m.OnStep(StepRecord)
	}
	// It holds from here on, also after a Ctrl-C.
	if err := m.completeRestore(context.WithoutCancel(ctx), name, &change.entry); err != nil {
		return nil, err
	}
	return &Restored{Kept: change.entry.Staged, Way: way, Units: []Unit{}}, nil
}

// stage makes the folder of an automatic snapshot of what there is now, but
// with the files that shall take the place of the root folder.
func (m *Manager) stage(ctx context.Context, change *change, old *registry.Container, wanted *registry.Snapshot) (*registry.Container, disk.Way, error) {
	folder := m.Registry.UnfinishedSnapshot(old.Name, change.entry.Staged)
	if err := errors.Join(privateFolder(filepath.Dir(folder)), privateFolder(folder)); err != nil {
		return nil, "", err
	}
	way, err := m.Disk.WayIn(folder)
	if err != nil {
		return nil, "", err
	}
	next := *old
	next.System, next.Pin, next.Inputs, next.ProvisionHash = wanted.Record.System, wanted.Record.Pin, wanted.Record.Inputs, wanted.Record.ProvisionHash
	root := registry.SnapshotRoot(folder)
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, "", err
	}
	// A project of its own: with that of the files before, both together would
	// meet the limit.
	if err := m.boundFolder(ctx, root, next.Limits.DiskBytes); err != nil {
		return nil, "", err
	}
	source := m.Registry.Snapshot(old.Name, wanted.Name)
	if err := m.Disk.CopyTree(ctx, registry.SnapshotRoot(source), root); err != nil {
		return nil, "", err
	}
	if err := m.stageProvision(ctx, &next, source); err != nil {
		return nil, "", err
	}
	kept := &registry.Snapshot{
		Version: registry.Version, Name: change.entry.Staged, CreatedAt: m.Now().UTC(), Automatic: true, State: resting, Way: movedAside, Record: old,
	}
	if err := m.describeSnapshot(ctx, folder, kept); err != nil {
		return nil, "", err
	}
	if err := m.keepRoots(ctx, m.gcRoots(old.Name), &next); err != nil {
		return nil, "", err
	}
	var status unix.Stat_t
	if err := unix.Lstat(root, &status); err != nil {
		return nil, "", err
	}
	change.entry.StagedInode = status.Ino
	return &next, way, nil
}

// stageProvision puts the provision of a snapshot beside that of the present.
func (m *Manager) stageProvision(ctx context.Context, next *registry.Container, snapshot string) error {
	place := m.provisionPlace(next)
	if _, err := os.Lstat(place); next.ProvisionHash == "" || err == nil {
		return nil
	}
	destination, err := os.MkdirTemp(m.Registry.Temporary(), provisionPrefix(next.Name))
	if err != nil {
		return err
	}
	defer os.RemoveAll(destination)
	if err := errors.Join(m.Disk.CopyTree(ctx, registry.SnapshotProvision(snapshot), destination), os.MkdirAll(filepath.Dir(place), 0o700)); err != nil {
		return err
	}
	return os.Rename(destination, place)
}

// swapped tells whether the staged files are the container's already.
func (m *Manager) swapped(name string, entry *registry.JournalEntry) bool {
	var status unix.Stat_t
	return entry.StagedInode != 0 && unix.Lstat(m.Registry.Root(name), &status) == nil && status.Ino == entry.StagedInode
}

// completeRestore makes everything else what goes with the files of a snapshot.
func (m *Manager) completeRestore(ctx context.Context, name string, entry *registry.JournalEntry) error {
	next := entry.Next
	if _, err := os.Lstat(m.Registry.UnfinishedSnapshot(name, entry.Staged)); err == nil {
		kept := &registry.Snapshot{Name: entry.Staged, Record: entry.Previous}
		if err := m.nameSnapshot(kept); err != nil {
			return err
		}
	}
	if _, err := m.Profiles.SetProfile(ctx, m.Registry.Profile(name), next.System); err != nil {
		return err
	}
	if err := m.Registry.Save(next); err != nil {
		return err
	}
	return errors.Join(m.dropProvisions(next), m.keepGuestSystem(next), m.unbound(m.Registry.Snapshot(name, entry.Staged)))
}

// mendRestore finishes a restore that has brought the files back, and takes
// back any other. The container goes on if it ran.
func (m *Manager) mendRestore(ctx context.Context, name string, entry *registry.JournalEntry) error {
	if entry.Next != nil && entry.Previous != nil && m.swapped(name, entry) {
		// The journal goes last.
		if err := m.completeRestore(ctx, name, entry); err != nil {
			return err
		}
		return m.goOn(ctx, name, entry)
	}
	record, err := m.Registry.Load(name)
	if err != nil {
		return err
	}
	if err := errors.Join(m.removeStaleSnapshots(name), m.keepRoots(ctx, m.gcRoots(name), record), m.keepGuestSystem(record), m.dropProvisions(record)); err != nil {
		return err
	}
	return m.goOn(ctx, name, entry)
}

// goOn is the end of a change that was interrupted: the container runs again if
// it ran before.
func (m *Manager) goOn(ctx context.Context, name string, entry *registry.JournalEntry) error {
	if err := m.orWarned(ctx, m.startAgain(ctx, name, entry)); err != nil {
		return err
	}
	return m.Registry.RemoveJournal(name)
}
