package container

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"devhost/internal/disk"
)

// fakeDisk copies by os.CopyFS, and has projects in its own books.
type fakeDisk struct {
	// fails is the error of the next copy, enforces whether there are quotas.
	fails    error
	enforces bool
	// projects are those of folders, by their inode; limits by the project.
	projects map[uint64]uint32
	limits   map[uint32]int64
}

func (d *fakeDisk) CopyTree(_ context.Context, from, to string) error {
	if d.fails != nil {
		_ = os.WriteFile(filepath.Join(to, "half"), nil, 0o600)
		return d.fails
	}
	return os.CopyFS(to, os.DirFS(from))
}

func (*fakeDisk) WayIn(string) (disk.Way, error) { return disk.Copy, nil }

func (*fakeDisk) Exchange(one, other string) error { return disk.Host{}.Exchange(one, other) }

func (d *fakeDisk) Enforces(string) bool { return d.enforces }

func (d *fakeDisk) NewProject(string, uint32) (uint32, error) {
	return uint32(0x44480000 + len(d.limits)), nil
}

func inode(folder string) (uint64, error) {
	var status unix.Stat_t
	err := unix.Lstat(folder, &status)
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: folder, Err: err}
	}
	return status.Ino, nil
}

func (d *fakeDisk) ProjectOf(folder string) (uint32, error) {
	number, err := inode(folder)
	return d.projects[number], err
}

func (d *fakeDisk) Assign(folder string, project uint32) error {
	number, err := inode(folder)
	if d.projects == nil {
		d.projects = map[uint64]uint32{}
	}
	d.projects[number] = project
	return err
}

func (d *fakeDisk) SetLimit(_ string, project uint32, bytes int64) error {
	if d.limits == nil {
		d.limits = map[uint32]int64{}
	}
	d.limits[project] = bytes
	return nil
}

func (d *fakeDisk) Usage(_ string, project uint32) (disk.Usage, error) {
	return disk.Usage{Limit: d.limits[project]}, nil
}
