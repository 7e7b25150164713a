// Package idmap makes mounts in which files belong to other ids than on the
// disk, see mount_setattr(2).
package idmap

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

// Mapping says what ids on the disk become: Disk to Disk+Size-1 those from Shown
// on. What no Mapping names is nobody's, and nobody of those can make a file.
type Mapping struct{ Disk, Shown, Size int }

func ranges(mappings []Mapping) []syscall.SysProcIDMap {
	made := make([]syscall.SysProcIDMap, len(mappings))
	for i, mapping := range mappings {
		made[i] = syscall.SysProcIDMap{ContainerID: mapping.Disk, HostID: mapping.Shown, Size: mapping.Size}
	}
	return made
}

// namespace makes a user namespace with these ranges, which the kernel takes
// mappings from.
func namespace(ctx context.Context, runner execx.Runner, uids, gids []Mapping) (*os.File, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan int, 1)
	ended := make(chan error, 1)
	go func() {
		// The process is only there to make the namespace.
		ended <- runner.Run(ctx, execx.Command{
			Name: "sh", Args: []string{"-c", "echo $$; exec sleep 10"}, Grace: time.Millisecond,
			SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ranges(uids), GidMappings: ranges(gids)},
			Stdout: &execx.LineWriter{Line: func(line string) {
				pid, _ := strconv.Atoi(line)
				ready <- pid
			}},
		})
	}()
	select {
	case pid := <-ready:
		defer func() { cancel(); <-ended }()
		return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	case err := <-ended:
		return nil, fmt.Errorf("cannot make a user namespace: %w", err)
	}
}

// Tree makes a mount of a folder that is attached nowhere: what is mounted below
// the folder is not in it. It needs root, and a file system that lets ids be
// mapped.
func Tree(ctx context.Context, runner execx.Runner, folder *os.File, uids, gids []Mapping) (*os.File, error) {
	users, err := namespace(ctx, runner, uids, gids)
	if err != nil {
		return nil, err
	}
	defer users.Close()
	descriptor, err := unix.OpenTree(int(folder.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	tree := os.NewFile(uintptr(descriptor), folder.Name())
	attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(descriptor, "", unix.AT_EMPTY_PATH, attributes); err != nil {
		_ = tree.Close()
		return nil, fmt.Errorf("mount_setattr: %w", err)
	}
	return tree, nil
}
