package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"devhost/internal/registry"
)

// resolveProvision finds out which provision is asked for, and takes a snapshot
// of a new one.
func (m *Manager) resolveProvision(ctx context.Context, request EnsureRequest, want *wanted) error {
	switch {
	case request.Provision == nil:
		if want.record.ProvisionHash != "" {
			want.provisionDir = m.provisionPlace(&want.record)
		}
	case *request.Provision == "":
		want.record.ProvisionHash = ""
	default:
		destination, err := os.MkdirTemp(m.Registry.Temporary(), provisionPrefix(request.Name))
		if err != nil {
			return err
		}
		snapshot, err := m.Systems.Snapshot(ctx, *request.Provision, request.Stdin, request.Caller, destination)
		if err != nil {
			_ = os.RemoveAll(destination)
			return err
		}
		want.provisionDir, want.newSnapshot, want.provisionName = destination, true, *request.Provision
		want.record.ProvisionHash = snapshot.Hash
		for _, secret := range snapshot.Secrets {
			want.warnings = append(want.warnings, secret.String())
		}
	}
	return nil
}

// provisionPlace is where the snapshot of a record is kept. Each content has
// its own place, so that the snapshot of an old record outlives a change that
// is taken back.
func (m *Manager) provisionPlace(record *registry.Container) string {
	hash := sha256.Sum256([]byte(record.ProvisionHash))
	return filepath.Join(m.Registry.Provision(record.Name), hex.EncodeToString(hash[:16]))
}

// keepProvision moves a new snapshot to its place.
func (m *Manager) keepProvision(want *wanted) error {
	if !want.newSnapshot {
		return nil
	}
	place := m.provisionPlace(&want.record)
	if _, err := os.Lstat(place); err == nil {
		// The same content; it got there in one step.
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return err
	}
	if err := os.Rename(want.provisionDir, place); err != nil {
		return err
	}
	want.newSnapshot = false
	return nil
}

// dropProvisions removes the snapshots that the record does not use.
func (m *Manager) dropProvisions(record *registry.Container) error {
	folder := m.Registry.Provision(record.Name)
	snapshots, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	used := ""
	if record.ProvisionHash != "" {
		used = filepath.Base(m.provisionPlace(record))
	}
	for _, snapshot := range snapshots {
		if snapshot.Name() != used {
			if err := os.RemoveAll(filepath.Join(folder, snapshot.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
