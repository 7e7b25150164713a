package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/disk"
	"devhost/internal/engine"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Further steps of changes.
const (
	StepClone   = "clone"
	StepHold    = "hold"
	StepCopy    = "copy"
	StepRelease = "release"
	StepSwap    = "swap"
	StepMove    = "move"
)

// take is the lock of a container that nothing is left of an interrupted
// command on: it repairs that first, but not before a removal, which finishes
// what was left, whatever that is.
func (m *Manager) take(ctx context.Context, name, purpose string, timeout time.Duration) (unlock func(), err error) {
	if unlock, err = m.lockCurrent(ctx, name, purpose, timeout); err != nil {
		return nil, err
	}
	m.removeStaleProvisions(name)
	if purpose == purposeDestroy {
		err = m.forgetRename(name)
	} else if err = m.repair(ctx, name); err != nil {
		err = fmt.Errorf("container %s was left half changed by an interrupted command, and that could not be repaired: %w; try again, or remove the container with: devhost destroy %s", name, err, name)
	}
	if err != nil {
		m.Reporter.Failed()
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lockCurrent locks a name. Where an interrupted renaming has taken the
// container away from it already, that is finished first: it still holds what
// goes by the old name, such as the profile.
func (m *Manager) lockCurrent(ctx context.Context, name, purpose string, timeout time.Duration) (func(), error) {
	for {
		unlock, err := m.Registry.Lock(ctx, name, purpose, timeout)
		if err != nil {
			return nil, err
		}
		other := m.Registry.RenamedFrom(name)
		if other == "" {
			return unlock, nil
		}
		unlock()
		if unlock, err = m.take(ctx, other, "repair", timeout); err != nil {
			return nil, err
		}
		unlock()
	}
}

// lockedBoth is locked for two containers.
func (m *Manager) lockedBoth(ctx context.Context, one, other, purpose string, change func() error) error {
	return m.lockedAll(ctx, []string{one, other}, purpose, m.lockTimeout(), change)
}

// How a container stands still while it is copied.
const (
	held    = "frozen"
	resting = "stopped"
)

// hold calls copying while nothing in the container changes: one that runs is
// frozen, or stopped where that is asked for. Afterwards it goes on, whatever
// happened. state is how the container stood still.
func (m *Manager) hold(ctx context.Context, record *registry.Container, stop bool, copying func(state string) error) error {
	name := record.Name
	state, err := m.Engine.State(name)
	if err != nil {
		return err
	}
	if state.Status == engine.Stopped || (state.Status == engine.Failed && state.LeaderPID == 0) {
		return copying(resting)
	}
	if !stop && !m.Engine.Features().Freezes {
		return &CannotFreeze{Name: name, Err: fmt.Errorf("engine %s cannot do that on this host", m.Engine.Features().Name)}
	}
	change := m.begin(name, registry.Hold, record)
	change.entry.Frozen, change.entry.Restart = !stop, stop
	err = change.step(ctx, StepHold)
	if err != nil {
		return err
	}
	defer m.watched(name)()
	err = m.holdAndCopy(ctx, change, copying)
	if releaseErr := m.letGo(context.WithoutCancel(ctx), name, &change.entry); releaseErr != nil {
		var started *NotStartedAgain
		if !errors.As(releaseErr, &started) {
			releaseErr = fmt.Errorf("container %s does not go on: %w; try again with: devhost start %[1]s", name, releaseErr)
		}
		return errors.Join(err, releaseErr)
	}
	return err
}

// watched is Watch where there is one.
func (m *Manager) watched(name string) (done func()) {
	if m.Watch == nil {
		return func() {}
	}
	done, err := m.Watch(name)
	if err != nil {
		// Then the next command for the container repairs it.
		m.Logger.Warn("nobody watches", "container", name, "error", err)
		return func() {}
	}
	return done
}

// Repair finishes or takes back what a killed command left.
func (m *Manager) Repair(ctx context.Context, name string) error {
	return m.locked(ctx, name, "repair", m.lockTimeout(), func() error { return nil })
}

func (m *Manager) holdAndCopy(ctx context.Context, change *change, copying func(state string) error) error {
	if change.entry.Restart {
		m.Reporter.Phase(progress.Stop)
		if err := m.Engine.Stop(ctx, change.name, stopTimeout); err != nil {
			return err
		}
		return copying(resting)
	}
	freezer, ok := m.Engine.(engine.Freezer)
	if !ok {
		return &CannotFreeze{Name: change.name, Err: errors.ErrUnsupported}
	}
	if err := freezer.Freeze(ctx, change.name); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &CannotFreeze{Name: change.name, Err: err}
	}
	return copying(held)
}

// CannotFreeze says that a running container cannot be held.
type CannotFreeze struct {
	Name string
	Err  error
}

func (c *CannotFreeze) Error() string {
	return fmt.Sprintf("container %s cannot be frozen while it is copied: %v; have it stopped meanwhile with --stop", c.Name, c.Err)
}

func (c *CannotFreeze) Unwrap() error { return c.Err }

// letGo ends a Hold: the container goes on, or is started again, and nothing
// is left of a snapshot that was not finished.
func (m *Manager) letGo(ctx context.Context, name string, entry *registry.JournalEntry) error {
	if freezer, ok := m.Engine.(engine.Freezer); ok && entry.Frozen {
		if err := freezer.Thaw(name); err != nil {
			return err
		}
	}
	if m.OnStep != nil {
		m.OnStep(StepRelease)
	}
	if err := m.removeStaleSnapshots(name); err != nil {
		return err
	}
	// That it does not start must not keep the next command from seeing to that.
	started := m.startAgain(ctx, name, entry)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(started, m.Registry.RemoveJournal(name))
}

// NotStartedAgain says that a container that ran before a change does not run
// after it.
type NotStartedAgain struct {
	Name string
	Err  error
}

func (n *NotStartedAgain) Error() string {
	return fmt.Sprintf("container %s was stopped and does not start again: %v; try again with: devhost start %[1]s", n.Name, n.Err)
}

func (n *NotStartedAgain) Unwrap() error { return n.Err }

// startAgain starts a container that a change has stopped. The error is
// *NotStartedAgain.
func (m *Manager) startAgain(ctx context.Context, name string, entry *registry.JournalEntry) error {
	if !entry.Restart {
		return nil
	}
	state, err := m.Engine.State(name)
	if err == nil && state.Status == engine.Running {
		return nil
	}
	var record *registry.Container
	if err == nil {
		record, err = m.Registry.Load(name)
	}
	if err == nil {
		err = m.startAndWait(ctx, record, goBackTimeout)
	}
	if err != nil {
		return &NotStartedAgain{Name: name, Err: err}
	}
	return nil
}

// orWarned makes a warning of it that a container does not start again.
func (m *Manager) orWarned(ctx context.Context, err error) error {
	var started *NotStartedAgain
	if ctx.Err() == nil && errors.As(err, &started) {
		m.Reporter.Warn(started.Error())
		return nil
	}
	return err
}

// moveRoots makes the gc roots of one container those of another. New ones are
// made before the old ones go, so that the collector always finds one of them.
func (m *Manager) moveRoots(ctx context.Context, from, to string) error {
	folder := m.gcRoots(from)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Type() != fs.ModeSymlink {
			continue
		}
		target, err := os.Readlink(filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		root := filepath.Join(m.gcRoots(to), entry.Name())
		inside, err := filepath.Rel(m.Registry.Container(from), target)
		if err == nil && filepath.IsLocal(inside) {
			// It leads through the container's files.
			err = replaceLink(filepath.Join(m.Registry.Container(to), inside), root)
		} else if err = m.Systems.Keep(ctx, root, target); err != nil {
			if _, gone := os.Lstat(target); errors.Is(gone, fs.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return err
		}
	}
	return disk.RemoveFolder(folder)
}

func replaceLink(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.Symlink(target, path)
}
