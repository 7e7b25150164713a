package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"devhost/internal/engine"
	"devhost/internal/names"
	"devhost/internal/registry"
)

// BootResult is what Boot did with a container.
type BootResult string

// What Boot does with containers.
const (
	BootStarted BootResult = "started"
	// BootRuns is a container that ran already.
	BootRuns BootResult = "runs already"
	// BootStopped is a container that was stopped before the host went down.
	BootStopped BootResult = "stays stopped"
	// BootGone is a container whose first ensure, or whose removal, was cut
	// short: it is removed.
	BootGone BootResult = "removed, as an earlier command left it half made or half removed"
	// BootBusy is a container that another command works on.
	BootBusy   BootResult = "left to another command that works on it"
	BootFailed BootResult = "failed"
)

// Booted is what became of one container.
type Booted struct {
	Name   string
	Result BootResult
	// Err says why, with BootFailed.
	Err error
}

// bootsAtOnce is how many containers are started at a time for each processor.
const bootsAtOnce = 2

// Boot is what a host does after its own start: it makes anew what does not
// outlive it (units, bridge, packet filter, names), repairs what a crash left
// half changed, and starts every container that was not stopped. A container
// that fails keeps no other down. It does not wait for the guests' sshd.
//
// It is harmless at any other time. timeout bounds the start of each container.
func (m *Manager) Boot(ctx context.Context, timeout time.Duration) ([]Booted, error) {
	if err := m.Registry.Prepare(); err != nil {
		return nil, err
	}
	if preparer, ok := m.Engine.(engine.Preparer); ok {
		if err := preparer.Prepare(ctx); err != nil {
			return nil, err
		}
	}
	if err := m.publish(ctx); err != nil {
		// Where names cannot be written, say, containers run all the same.
		m.Reporter.Warn("not all of the containers' network and names could be set up: " + err.Error())
	}
	all, err := m.bootable()
	if err != nil {
		return nil, err
	}
	results := make([]Booted, len(all))
	slots := make(chan struct{}, bootsAtOnce*runtime.GOMAXPROCS(0))
	var group sync.WaitGroup
	for i, name := range all {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			result, err := m.boot(ctx, name, timeout)
			if err != nil {
				result = BootFailed
			}
			results[i] = Booted{Name: name, Result: result, Err: err}
		})
	}
	group.Wait()
	return results, nil
}

// bootable are the names of all containers, also of those that are half made.
func (m *Manager) bootable() ([]string, error) {
	folders, err := os.ReadDir(m.Registry.Containers())
	if err != nil {
		return nil, fmt.Errorf("cannot read the registered containers: %w", err)
	}
	var all []string
	for _, folder := range folders {
		if folder.IsDir() && names.Container(folder.Name()) == nil {
			all = append(all, folder.Name())
		}
	}
	return all, nil
}

func (m *Manager) boot(ctx context.Context, name string, timeout time.Duration) (result BootResult, err error) {
	err = m.locked(ctx, name, "boot", m.lockTimeout(), func() error {
		record, err := m.Registry.Load(name)
		var missing *registry.NotRegistered
		if errors.As(err, &missing) {
			result = BootGone
			return nil
		}
		if err != nil {
			return err
		}
		if !record.Enabled {
			result = BootStopped
			return nil
		}
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		if state.Status == engine.Running {
			result = BootRuns
			return nil
		}
		if record.Declared != nil && !record.Declared.AutoStart {
			// Somebody had started it.
			result, record.Enabled = BootStopped, false
			return m.Registry.Save(record)
		}
		limited, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		result = BootStarted
		if err := m.startGuest(ctx, limited, record); err != nil {
			return fmt.Errorf("it was not started with the host: %w; start it with: devhost start %s", err, name)
		}
		return nil
	})
	var busy *registry.Locked
	if errors.As(err, &busy) {
		return BootBusy, nil
	}
	return result, err
}
