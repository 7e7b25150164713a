package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/docker/go-units"

	"devhost/internal/disk"
	"devhost/internal/registry"
)

// DiskUsage is what a container's files take.
type DiskUsage struct {
	// UsedBytes is known where Enforced is true.
	UsedBytes int64 `json:"usedBytes,omitempty"`
	// LimitBytes is zero without a limit.
	LimitBytes int64 `json:"limitBytes,omitempty"`
	// Enforced says that the file system keeps the container to its limit.
	Enforced bool `json:"enforced"`
}

// DiskUsage says what the files of a container take, nil where neither that is
// known nor there is a limit. It costs a few system calls.
func (m *Manager) DiskUsage(record *registry.Container) (*DiskUsage, error) {
	root := m.Registry.Root(record.Name)
	project, err := m.Disk.ProjectOf(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !disk.IsProject(project) || !m.Disk.Enforces(root) {
		if record.Limits.DiskBytes == 0 {
			return nil, nil
		}
		return &DiskUsage{LimitBytes: record.Limits.DiskBytes}, nil
	}
	usage, err := m.Disk.Usage(root, project)
	return &DiskUsage{UsedBytes: usage.Bytes, LimitBytes: usage.Limit, Enforced: true}, err
}

// notEnforced is said when a limit is asked for that the file system, or the
// kernel, does not keep.
func (m *Manager) notEnforced(request EnsureRequest) []string {
	var notes []string
	if request.DiskBytes != nil && *request.DiskBytes != 0 && !m.Disk.Enforces(m.Registry.Containers()) {
		notes = append(notes, fmt.Sprintf("--disk-size %s is recorded, not enforced: the file system of %s has no project quotas; ext4 has them when made with -O project,quota, xfs always, each mounted with prjquota",
			units.BytesSize(float64(*request.DiskBytes)), m.Registry.State))
	}
	if request.IOWeight != nil && *request.IOWeight != 0 && !m.Engine.Features().IOWeight {
		notes = append(notes, fmt.Sprintf("--io-weight %d is recorded and has no effect: this host's kernel weighs no access to disks (no io controller, and no weights in blkio)", *request.IOWeight))
	}
	return notes
}

// boundDisk bounds what the root folder of a container holds, in bytes; zero
// takes the limit away. It does nothing where the file system has no project
// quotas.
func (m *Manager) boundDisk(ctx context.Context, name string, bytes int64) error {
	return m.boundFolder(ctx, m.Registry.Root(name), bytes)
}

func (m *Manager) boundFolder(ctx context.Context, folder string, bytes int64) error {
	project, err := m.Disk.ProjectOf(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := disk.IsProject(project)
	if (bytes == 0 && !known) || !m.Disk.Enforces(folder) {
		return nil
	}
	if !known {
		if project, err = m.claimProject(ctx, folder, bytes); err != nil {
			return err
		}
		return m.Disk.Assign(folder, project)
	}
	usage, err := m.Disk.Usage(folder, project)
	if err != nil || usage.Limit == disk.RoundLimit(bytes) {
		return err
	}
	if err := m.Disk.SetLimit(folder, project, bytes); err != nil || bytes == 0 {
		return err
	}
	// Whoever set the limit before may have been killed on the way down.
	return m.Disk.Assign(folder, project)
}

// claimProject chooses a project and gives it its limit, so that nobody else
// chooses it.
func (m *Manager) claimProject(ctx context.Context, folder string, bytes int64) (uint32, error) {
	unlock, err := m.lockShared(ctx, "choose a disk project")
	if err != nil {
		return 0, err
	}
	defer unlock()
	// Several state folders may lie on one file system.
	const base, bits = 16, 32
	start, err := strconv.ParseUint(m.Registry.Instance(), base, bits)
	if err != nil {
		return 0, err
	}
	project, err := m.Disk.NewProject(folder, uint32(start))
	if err != nil {
		return 0, err
	}
	return project, m.Disk.SetLimit(folder, project, bytes)
}

// unbound takes the limits of the root folders away that lie in the folder of
// a container or of a snapshot.
func (m *Manager) unbound(folder string) error {
	inside, err := filepath.Glob(filepath.Join(folder, "snapshots", "*"))
	problems := []error{err}
	for _, folder := range append(inside, folder) {
		err := m.boundFolder(context.Background(), registry.SnapshotRoot(folder), 0)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// removeTree removes the folder of a container or of a snapshot, and the limits
// of what is in it.
func (m *Manager) removeTree(folder string) error {
	return errors.Join(m.unbound(folder), disk.RemoveFolder(folder))
}
