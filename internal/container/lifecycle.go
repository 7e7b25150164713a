package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/engine"
	"devhost/internal/nix"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Start starts a registered container and waits until its sshd answers. It
// returns false when it was running already.
func (m *Manager) Start(ctx context.Context, name string, timeout time.Duration) (started bool, err error) {
	err = m.locked(ctx, name, "start", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		started = state.Status != engine.Running
		if !record.Enabled {
			record.Enabled = true
			// Who starts what expiry stopped is warned again before the next stop.
			record.Expiry.StopWarnedAt, record.Expiry.StoppedAt = time.Time{}, time.Time{}
			if err := m.Registry.Save(record); err != nil {
				return err
			}
		}
		err = m.startAndWait(ctx, record, timeout)
		if err != nil && !started {
			if _, ended := m.hasEnded(ctx, name); ended {
				started = true
				err = m.startAndWait(ctx, record, timeout)
			}
		}
		return err
	})
	return started, err
}

func (m *Manager) lockTimeout() time.Duration { return cmp.Or(m.LockTimeout, LockTimeout) }

func (m *Manager) startAndWait(ctx context.Context, record *registry.Container, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := m.startGuest(ctx, limited, record); err != nil {
		return m.timedOut(ctx, limited, record.Name, "its first process is up", timeout, err)
	}
	m.Reporter.Phase(progress.Ready)
	err := m.waitForSSH(limited, record)
	return m.timedOut(ctx, limited, record.Name, "its sshd answers", timeout, err)
}

// startGuest writes what the guest is told and starts it; the start ends with
// limited.
func (m *Manager) startGuest(ctx, limited context.Context, record *registry.Container) error {
	if err := errors.Join(m.applySettingsNow(ctx, record), m.takeNetwork(ctx, record)); err != nil {
		return err
	}
	if err := errors.Join(m.writeGuestFiles(record), m.boundDisk(ctx, record.Name, record.Limits.DiskBytes)); err != nil {
		return err
	}
	if err := m.handOver(ctx, record); err != nil {
		// It can be started all the same.
		m.Reporter.Warn("fc-manage will not work inside: " + err.Error())
	}
	m.Reporter.Phase(progress.Start)
	return m.Engine.Start(limited, record.Name)
}

// timedOut says what was waited for when our own time-out ended it.
func (m *Manager) timedOut(ctx, limited context.Context, name, what string, timeout time.Duration, err error) error {
	if err == nil || ctx.Err() != nil || !errors.Is(limited.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("container %s did not get to where %s within %s; see what it does with: devhost logs --console %s; wait longer with --timeout: %w",
		name, what, timeout, name, err)
}

// Stop powers a container off. It returns false when it was not running.
func (m *Manager) Stop(ctx context.Context, name string, timeout time.Duration) (stopped bool, err error) {
	err = m.locked(ctx, name, "stop", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		stopped = state.Status != engine.Stopped
		if record.Enabled {
			record.Enabled = false
			err := m.Registry.Save(record)
			if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
				// A full disk must not keep what fills it running.
				m.Reporter.Warn(fmt.Sprintf("container %s counts as one that shall run, because its record cannot be written: %v; free space there and stop it again", name, err))
			} else if err != nil {
				return err
			}
		}
		m.Reporter.Phase(progress.Stop)
		err = m.Engine.Stop(ctx, name, timeout)
		return err
	})
	return stopped, err
}

// Restart stops and starts a container.
func (m *Manager) Restart(ctx context.Context, name string, stopTimeout, startTimeout time.Duration) error {
	return m.locked(ctx, name, "restart", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		m.Reporter.Phase(progress.Stop)
		err = m.Engine.Stop(ctx, name, stopTimeout)
		if err != nil {
			return err
		}
		if !record.Enabled {
			record.Expiry.StopWarnedAt, record.Expiry.StoppedAt = time.Time{}, time.Time{}
		}
		record.Enabled = true
		if err := m.Registry.Save(record); err != nil {
			return err
		}
		return m.startAndWait(ctx, record, startTimeout)
	})
}

// Destroy stops and removes a container with all that belongs to it. A
// container whose record is broken can be destroyed too.
func (m *Manager) Destroy(ctx context.Context, name string) error {
	return m.locked(ctx, name, purposeDestroy, m.lockTimeout(), func() error {
		if err := m.checkOwnerOf(name, "destroy"); err != nil {
			return err
		}
		return m.destroy(ctx, name)
	})
}

// destroy is Destroy for who holds the lock.
func (m *Manager) destroy(ctx context.Context, name string) error {
	if _, err := os.Stat(m.Registry.Container(name)); errors.Is(err, fs.ErrNotExist) {
		if len(m.staleRemovals(name)) == 0 {
			return &registry.NotRegistered{Name: name}
		}
		// A removal was killed in its last step.
		return m.remove(ctx, name)
	}
	change := m.begin(name, registry.Destroy, nil)
	if err := change.step(ctx, StepStop); errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// To remove is how space is made. Without a journal, a killed
		// removal leaves a broken container that can be destroyed.
		m.Logger.Warn("no journal", "container", name, "error", err)
	} else if err != nil {
		return err
	}
	// From here on the next command finishes the removal, also after a
	// Ctrl-C.
	m.Reporter.Phase(progress.Remove)
	err := m.remove(ctx, name)
	if err != nil {
		return fmt.Errorf("container %s is not wholly removed; run it again: devhost destroy %s: %w", name, name, err)
	}
	// They outlive a first ensure that failed, but not the container.
	_ = os.Remove(m.Registry.EvaluationLog(name))
	_ = os.Remove(m.Registry.BuildLog(name))
	return nil
}

// remove takes away everything of a container. The journal goes last, with
// the folder: a killed removal is finished by the next command.
func (m *Manager) remove(ctx context.Context, name string) error {
	if err := m.Engine.Stop(ctx, name, stopTimeout); err != nil {
		return err
	}
	if m.OnStep != nil {
		m.OnStep(StepRemove)
	}
	err := errors.Join(
		m.Profiles.DeleteProfile(m.Registry.Profile(name)),
		os.RemoveAll(m.Registry.ProfileFolder(name)),
		disk.RemoveFolder(m.gcRoots(name)),
		removeIfThere(m.Registry.Record(name)),
	)
	if err := errors.Join(err, m.publish(ctx)); err != nil {
		return err
	}
	// The folder with the journal is moved away in one step, so that a kill
	// cannot leave a folder without its journal.
	doomed := filepath.Join(m.Registry.Temporary(), fmt.Sprintf("removed.%s.%d", name, m.Now().UnixNano()))
	if err := os.Rename(m.Registry.Container(name), doomed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.removeTree(doomed); err != nil {
		return err
	}
	return errors.Join(m.removeStale(name), m.removeLastTraces(ctx))
}

// removeLastTraces removes what there is for all containers when none is left.
func (m *Manager) removeLastTraces(ctx context.Context) error {
	removed, err := m.removeUnusedNetwork(ctx)
	if err != nil || !removed {
		return err
	}
	for _, folder := range []string{m.Registry.GCRoots(), m.Registry.Profiles()} {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	var tidied error
	if preparer, ok := m.Engine.(engine.Preparer); ok {
		tidied = preparer.Tidy(ctx)
	}
	m.removeOldPrograms()
	return errors.Join(m.Systems.Idle(ctx), tidied)
}

// removeUnusedNetwork removes bridge and rules when no container is left. Who
// makes one has its folder first, and then takes the lock for its network: what
// it builds is not without rules.
func (m *Manager) removeUnusedNetwork(ctx context.Context) (removed bool, err error) {
	unlock, err := m.lockShared(ctx, "remove the network")
	if err != nil {
		return false, err
	}
	defer unlock()
	left, err := os.ReadDir(m.Registry.Containers())
	if err != nil || len(left) > 0 {
		return false, err
	}
	return true, m.Network.Remove(ctx)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// staleRemovals are the folders that killed removals of a container left. No
// name of a container holds a dot.
func (m *Manager) staleRemovals(name string) []string {
	stale, _ := filepath.Glob(filepath.Join(m.Registry.Temporary(), "removed."+name+".*"))
	return stale
}

// removeStale removes what killed removals left. The caller holds the lock.
func (m *Manager) removeStale(name string) error {
	var problems []error
	for _, folder := range m.staleRemovals(name) {
		problems = append(problems, m.removeTree(folder))
	}
	return errors.Join(problems...)
}

func (m *Manager) gcRoots(name string) string { return filepath.Join(m.Registry.GCRoots(), name) }

// Rollback makes an older generation current, and switches to it where the
// container runs. Number 0 means the one before the current. It returns the
// number of the generation that is current now.
func (m *Manager) Rollback(ctx context.Context, name string, number int, timeout time.Duration) (int, error) {
	err := m.locked(ctx, name, "rollback", m.lockTimeout(), func() error {
		old, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		if old.Dialect != "" && number == 0 {
			// What fc-manage installed is no generation of the host's: the one
			// before is the host's own.
			number = m.currentGeneration(name)
		}
		target, err := m.rollbackTarget(name, number)
		if err != nil {
			return err
		}
		number = target.Number
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		record := *old
		record.System = target.Path
		// No inputs are known to give this system: the next ensure finds out.
		record.Inputs = ""
		change := m.begin(name, registry.Update, old)
		if err := m.rollbackSteps(ctx, change, &record, target.Number, state.Status == engine.Running, timeout); err != nil {
			if undoErr := change.undo(ctx); undoErr != nil {
				err = errors.Join(err, undoErr)
			}
			return &Failure{Name: name, Err: err, Now: fmt.Sprintf("container %s keeps the system that it had", name)}
		}
		return change.done()
	})
	return number, err
}

func (m *Manager) rollbackTarget(name string, number int) (nix.Generation, error) {
	generations, err := m.Profiles.Generations(m.Registry.Profile(name))
	if err != nil {
		return nix.Generation{}, err
	}
	for i, generation := range generations {
		if number != 0 && generation.Number == number {
			return generation, nil
		}
		if number == 0 && generation.Current {
			if i == 0 {
				return nix.Generation{}, fmt.Errorf("container %s has no generation before its current one; see: devhost generations %s", name, name)
			}
			return generations[i-1], nil
		}
	}
	if number == 0 {
		return nix.Generation{}, fmt.Errorf("container %s has no current generation; choose one with --to; see: devhost generations %s", name, name)
	}
	return nix.Generation{}, fmt.Errorf("container %s has no generation %d; see: devhost generations %s", name, number, name)
}

func (m *Manager) rollbackSteps(ctx context.Context, change *change, record *registry.Container, number int, running bool, timeout time.Duration) error {
	if err := change.step(ctx, StepProfile); err != nil {
		return err
	}
	if _, err := m.Profiles.SwitchGeneration(ctx, m.Registry.Profile(record.Name), number); err != nil {
		return err
	}
	if err := change.step(ctx, StepRecord); err != nil {
		return err
	}
	if err := errors.Join(m.Registry.Save(record), m.dropGuestSystem(record)); err != nil {
		return err
	}
	if !running {
		return nil
	}
	change.entry.Switched = true
	if err := change.step(ctx, StepSwitch); err != nil {
		return err
	}
	m.Reporter.Phase(progress.Switch)
	err := m.switchTo(ctx, record.Name, record.System, timeout)
	if err != nil {
		return err
	}
	return m.waitForSSHBriefly(ctx, record, timeout)
}
