package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"devhost/internal/engine"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// update brings a registered container to what is asked for.
func (m *Manager) update(ctx context.Context, request EnsureRequest, old *registry.Container) (*EnsureResult, error) {
	state, err := m.Engine.State(old.Name)
	if err != nil {
		return nil, err
	}
	want, err := m.resolve(ctx, request, old)
	if err != nil {
		return nil, &Failure{Name: old.Name, Err: err, Now: unchangedNow(old.Name, state)}
	}
	defer want.discard()
	if state.Status == engine.Running && old.Nesting != want.record.Nesting {
		want.warnings = append(want.warnings, nestingLater(&want.record))
	}
	if state.Status == engine.Running && state.SupervisorPID == 0 {
		// Its supervisor was killed: a new one takes over.
		if err := m.Engine.Start(ctx, old.Name); err != nil {
			return nil, err
		}
	}
	if err := m.handOver(ctx, &want.record); err != nil {
		return nil, &Failure{Name: old.Name, Err: err, Now: unchangedNow(old.Name, state)}
	}
	if old.Dialect != "" || (want.record.Inputs == old.Inputs && m.currentGeneration(old.Name) > 0) {
		return m.refresh(ctx, request, old, want, state)
	}
	record := &want.record
	if record.System, err = m.system(ctx, want); err != nil {
		return nil, &Failure{Name: old.Name, Err: err, Now: unchangedNow(old.Name, state)}
	}
	return m.changeSystem(ctx, request, old, want, state)
}

// nestingLater says when a change of nesting takes effect: a running guest
// keeps the rights that it was started with.
func nestingLater(record *registry.Container) string {
	verb := "gets"
	if !record.Nesting {
		verb = "loses"
	}
	return fmt.Sprintf("container %s %s nesting when it is started next; do that now with: devhost restart %[1]s", record.Name, verb)
}

func unchangedNow(name string, state engine.State) string {
	return fmt.Sprintf("container %s is as it was (%s)", name, state.Status)
}

// refresh applies what needs no new system.
func (m *Manager) refresh(ctx context.Context, request EnsureRequest, old *registry.Container, want *wanted, state engine.State) (*EnsureResult, error) {
	record := &want.record
	result := &EnsureResult{Container: record, Unchanged: true, Units: []Unit{}, Warnings: want.warnings}
	portsChanged := !slices.Equal(old.ForwardPorts, record.ForwardPorts)
	switch {
	case state.Status != engine.Running && request.NoStart:
		if err := m.claim(ctx, record, old); err != nil {
			return nil, err
		}
	case state.Status != engine.Running:
		if err := m.claim(ctx, record, old); err != nil {
			return nil, err
		}
		if err := m.startAndWait(ctx, record, request.Timeout); err != nil {
			return nil, err
		}
		result.Started, result.Unchanged = true, false
		var err error
		if result.Units, err = m.settle(ctx, record, request.Timeout); err != nil {
			return nil, err
		}
	default:
		m.repairNetwork(ctx)
		// The settings' keys may have changed too.
		if authorize(m.Registry, m.Settings, record) != nil || old.Environment != record.Environment {
			if err := m.writeGuestFiles(record); err != nil {
				return nil, err
			}
		}
		if err := m.waitForSSHBriefly(ctx, record, request.Timeout); err != nil {
			if now, ended := m.hasEnded(ctx, record.Name); ended {
				return m.refresh(ctx, request, old, want, now)
			}
			return nil, err
		}
	}
	if old.Limits != record.Limits && state.Status == engine.Running && !result.Started {
		if err := m.changeLimits(ctx, record.Name, old.Limits, record.Limits); err != nil {
			return nil, err
		}
	}
	if old.Degraded && state.Status == engine.Running && !result.Started {
		var err error
		if result.Units, err = m.settle(ctx, record, request.Timeout); err != nil {
			return nil, err
		}
	}
	if portsChanged && !result.Started {
		if err := m.claim(ctx, record, old); err != nil {
			return nil, err
		}
	}
	// The name and the addresses are published as they were; the ingress
	// reads the aliases from the record.
	return result, m.deployed(ctx, record, result.Started || portsChanged || old.Environment != record.Environment)
}

// repairNetwork makes bridge and packet filter again where somebody else has
// removed them: without, sshd would be waited for in vain. What fails is said
// by the wait.
func (m *Manager) repairNetwork(ctx context.Context) {
	if current, err := m.Network.Current(ctx); err == nil && current {
		return
	}
	if err := m.publish(ctx); err != nil {
		m.Reporter.Warn(fmt.Sprintf("the containers' network is not as it shall be, and cannot be repaired: %v", err))
	}
}

// changeLimits changes the limits of a running container, all or none.
func (m *Manager) changeLimits(ctx context.Context, name string, from, to registry.Limits) error {
	if err := m.boundDisk(ctx, name, to.DiskBytes); err != nil {
		return errors.Join(err, m.boundDisk(context.WithoutCancel(ctx), name, from.DiskBytes))
	}
	limiter, ok := m.Engine.(engine.Limiter)
	if !ok {
		return nil
	}
	if err := limiter.SetLimits(ctx, name, to); err != nil {
		ctx = context.WithoutCancel(ctx)
		return errors.Join(err, limiter.SetLimits(ctx, name, from), m.boundDisk(ctx, name, from.DiskBytes))
	}
	return nil
}

// hasEnded tells whether a container that was running no longer is: somebody
// powered it off or killed it, and this was noticed only now.
func (m *Manager) hasEnded(ctx context.Context, name string) (engine.State, bool) {
	state, err := m.Engine.State(name)
	return state, err == nil && ctx.Err() == nil && (state.Status == engine.Stopped || state.Status == engine.Failed)
}

func (m *Manager) waitForSSHBriefly(ctx context.Context, record *registry.Container, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return m.timedOut(ctx, limited, record.Name, "its sshd answers", timeout, m.waitForSSH(limited, record))
}

// changeSystem brings a built system into a registered container, and goes
// back to the previous one if that fails.
func (m *Manager) changeSystem(ctx context.Context, request EnsureRequest, old *registry.Container, want *wanted, state engine.State) (*EnsureResult, error) {
	change := m.begin(old.Name, registry.Update, old)
	result, err := m.changeSteps(ctx, change, request, old, want, state)
	if err == nil {
		return result, errors.Join(change.done(), m.dropProvisions(&want.record))
	}
	if undoErr := change.undo(ctx); undoErr != nil {
		return nil, &Failure{Name: old.Name, Err: err, Now: fmt.Sprintf("going back to the previous system of container %s failed too: %v; the next command for it tries again", old.Name, undoErr)}
	}
	if change.entry.Started {
		return nil, &Failure{Name: old.Name, Err: err, Now: fmt.Sprintf("container %s is stopped, as it was, and keeps its previous system", old.Name)}
	}
	return nil, &Failure{Name: old.Name, Err: err, Now: fmt.Sprintf("container %s runs its previous system again", old.Name)}
}

func (m *Manager) changeSteps(ctx context.Context, change *change, request EnsureRequest, old *registry.Container, want *wanted, state engine.State) (*EnsureResult, error) {
	record := &want.record
	result := &EnsureResult{Container: record, Warnings: want.warnings, Units: []Unit{}}
	if err := m.install(ctx, change, want); err != nil {
		return nil, err
	}
	if err := change.step(ctx, StepRecord); err != nil {
		return nil, err
	}
	if err := m.claim(ctx, record, old); err != nil {
		return nil, err
	}
	switch {
	case state.Status == engine.Running:
		change.entry.Switched = true
		if err := change.step(ctx, StepSwitch); err != nil {
			return nil, err
		}
		if old.Limits != record.Limits {
			if err := m.changeLimits(ctx, record.Name, old.Limits, record.Limits); err != nil {
				return nil, err
			}
		}
		m.Reporter.Phase(progress.Switch)
		if err := m.switchTo(ctx, record.Name, record.System, request.Timeout); err != nil {
			return nil, err
		}
		result.Switched = true
		if err := m.waitForSSHBriefly(ctx, record, request.Timeout); err != nil {
			return nil, err
		}
	case request.NoStart:
		if err := change.step(ctx, StepPublish); err != nil {
			return nil, err
		}
		return result, m.deployed(ctx, record, true)
	default:
		change.entry.Started = true
		if err := change.step(ctx, StepStart); err != nil {
			return nil, err
		}
		if err := m.startAndWait(ctx, record, request.Timeout); err != nil {
			return nil, err
		}
		result.Started = true
	}
	return result, m.finish(ctx, change, result, request.Timeout)
}
