// Package disktest gives tests file systems of their own, on loop devices.
package disktest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"devhost/internal/execx"
)

// Kind is a file system to make.
type Kind struct {
	Name string
	// Make are the arguments of its mkfs program, which is the first; Options
	// are those of mount(8).
	Make    []string
	Options string
}

// The kinds that tests know.
var (
	// Ext4 and XFS bound what projects hold.
	Ext4 = Kind{"ext4", []string{"mkfs.ext4", "-q", "-O", "project,quota"}, "prjquota"}
	XFS  = Kind{"xfs", []string{"mkfs.xfs", "-q", "-m", "reflink=1"}, "prjquota"}
	// Reflinks are for sharing blocks alone.
	ReflinkXFS   = Kind{"xfs", []string{"mkfs.xfs", "-q", "-m", "reflink=1"}, "defaults"}
	ReflinkBtrfs = Kind{"btrfs", []string{"mkfs.btrfs", "-q"}, "defaults"}
)

// Mount makes a file system of the size in bytes, mounts it for the test, and
// returns where. It skips the test, and says why, where this host cannot.
func Mount(t testing.TB, kind Kind, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := exec.LookPath(kind.Make[0]); err != nil {
		t.Skipf("%s is not installed", kind.Make[0])
	}
	folder := t.TempDir()
	image, mount := filepath.Join(folder, "image"), filepath.Join(folder, "mount")
	file, err := os.Create(image)
	if err == nil {
		err = file.Truncate(size)
		_ = file.Close()
	}
	if err == nil {
		err = os.Mkdir(mount, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(argv ...string) error {
		return execx.New().Run(context.WithoutCancel(t.Context()), execx.Command{Name: argv[0], Args: argv[1:], Dir: "/"})
	}
	if err := run(append(slices.Clone(kind.Make), image)...); err != nil {
		t.Fatal(err)
	}
	if err := run("mount", "-o", "loop,"+kind.Options, image, mount); err != nil {
		t.Skipf("this host cannot mount %s with %s (no loop devices, or a kernel without quotas): %v", kind.Name, kind.Options, err)
	}
	t.Cleanup(func() {
		if err := run("umount", mount); err != nil {
			t.Error(err)
		}
	})
	return mount
}
