package container

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"devhost/internal/engine"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Visit is a container in the hands of who holds its lock.
type Visit struct {
	// Record is as it stands on disk; what is changed in it counts after Save.
	Record *registry.Container
	// State is that of the beginning of the visit.
	State engine.State

	manager *Manager
}

// Visit calls do under the container's lock, for which it waits up to timeout:
// then the error is *registry.Locked. purpose is what others are told who wait.
func (m *Manager) Visit(ctx context.Context, name, purpose string, timeout time.Duration, do func(*Visit) error) error {
	return m.locked(ctx, name, purpose, timeout, func() error {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		state, err := m.Engine.State(name)
		if err != nil {
			return err
		}
		return do(&Visit{Record: record, State: state, manager: m})
	})
}

// CheckOwner refuses what shortens the life of somebody else's container. The
// error is *NotOwner.
func (v *Visit) CheckOwner(action string) error { return v.manager.checkOwner(v.Record, action) }

// Save writes the record.
func (v *Visit) Save() error { return v.manager.Registry.Save(v.Record) }

// Notice makes a text what people are told when they log in; "" is nothing.
func (v *Visit) Notice(text string) error { return v.manager.setNotice(v.Record.Name, text) }

// Stop powers the container off for good: it does not start with the host.
func (v *Visit) Stop(ctx context.Context) error {
	v.Record.Enabled = false
	if err := v.Save(); err != nil {
		return err
	}
	v.manager.Reporter.Phase(progress.Stop)
	return v.manager.Engine.Stop(ctx, v.Record.Name, stopTimeout)
}

// noticeFile is the file in the guest's folder that is shown at login.
const noticeFile = "notice"

func (m *Manager) setNotice(name, text string) error {
	path := filepath.Join(m.Registry.Guest(name), noticeFile)
	if text == "" {
		return removeIfThere(path)
	}
	return writeGuestFile(path, text)
}

// Notice is what people are told when they log in to a container, "" for
// nothing.
func (m *Manager) Notice(name string) string {
	text, err := os.ReadFile(filepath.Join(m.Registry.Guest(name), noticeFile))
	if err != nil {
		return ""
	}
	return string(text)
}
