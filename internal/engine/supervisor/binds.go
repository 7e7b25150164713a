package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/idmap"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// BadBind says that a folder of the host cannot be shown to a container.
type BadBind struct {
	HostPath, Reason string
	Err              error
}

func (b *BadBind) Error() string {
	return fmt.Sprintf("the bind mount of %s cannot be made: %s", b.HostPath, b.Reason)
}

func (b *BadBind) Unwrap() error { return b.Err }

// bindsFolder is where the mounts of a container's folders are made that nspawn
// hands on: root's alone.
func bindsFolder(layout registry.Layout, name string) string {
	return filepath.Join(layout.Runtime(), name+".binds")
}

// makeBinds mounts the folders of the host that a container sees, with the ids
// that the guest will have, and sets what nspawn is told about them. The lock on
// those ids is the caller's to hold while the guest runs.
func makeBinds(ctx context.Context, layout registry.Layout, container *registry.Container, runner execx.Runner, config *nspawn.Config) (*os.File, error) {
	if container.Declared == nil || len(container.Declared.Binds) == 0 {
		return nil, nil
	}
	base, lock, err := nspawn.PickIDs(config.Machine)
	if err != nil {
		return nil, err
	}
	folder := bindsFolder(layout, container.Name)
	// What an earlier life left that was killed.
	if err = clearBinds(layout, container.Name); err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	for i, wanted := range container.Declared.Binds {
		source := filepath.Join(folder, strconv.Itoa(i))
		if err == nil {
			err = makeBind(ctx, runner, wanted, base, source)
		}
		config.Binds = append(config.Binds, nspawn.Bind{Source: source, Target: wanted.GuestPath, ReadOnly: wanted.ReadOnly})
	}
	if err == nil {
		err = nspawn.MountPoints(config.Root, config.Binds)
	}
	if err != nil {
		return nil, errors.Join(err, clearBinds(layout, container.Name), lock.Close())
	}
	config.UIDBase = base
	return lock, nil
}

func makeBind(ctx context.Context, runner execx.Runner, wanted registry.Bind, base int, target string) error {
	bad := func(reason string, err error) error {
		return &BadBind{HostPath: wanted.HostPath, Reason: reason, Err: err}
	}
	// A folder on the way may be anybody's, who could put a link in the place of
	// the next one.
	descriptor, err := unix.Openat2(unix.AT_FDCWD, wanted.HostPath, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	switch {
	case errors.Is(err, unix.ELOOP):
		return bad("there is a symbolic link in its path; name the folder itself", err)
	case err != nil:
		return bad(err.Error(), err)
	}
	folder := os.NewFile(uintptr(descriptor), wanted.HostPath)
	defer folder.Close()
	info, err := folder.Stat()
	if err != nil {
		return bad(err.Error(), err)
	}
	status, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return bad("its owner is not known", nil)
	}
	uid, gid := int(status.Uid), int(status.Gid)
	switch {
	case uid == 0 && !wanted.ReadOnly:
		// What the guest makes setuid there would be root's on the host.
		return bad("it is root's, and containers must not write as root; give it to another account, or let them only read it", nil)
	case process.InGuest(base, uid) || process.InGuest(base, gid):
		return bad(fmt.Sprintf("it belongs to %d:%d, which are ids of containers", uid, gid), nil)
	}
	tree, err := bindTree(ctx, runner, folder, wanted.OwnerUID, base, uid, gid)
	if err != nil {
		return bad(fmt.Sprintf("its file system may not do that: %v", err), err)
	}
	defer tree.Close()
	attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if wanted.ReadOnly {
		attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, attributes); err != nil {
		return bad(fmt.Sprintf("mount_setattr: %v", err), err)
	}
	if err := os.Mkdir(target, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return bad(fmt.Sprintf("move_mount: %v", err), err)
	}
	return nil
}

// groupOfBind is the guest's group that the folder's group on the host becomes:
// nobody's.
const groupOfBind = process.GuestIDs - 2

// bindTree is a mount of the folder in which what belongs to its owner belongs to
// the guest's user, and the guest's other users keep ids that nobody else has.
func bindTree(ctx context.Context, runner execx.Runner, folder *os.File, owner, base, uid, gid int) (*os.File, error) {
	if owner == 0 {
		descriptor, err := unix.OpenTree(int(folder.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(descriptor), folder.Name()), nil
	}
	return idmap.Tree(ctx, runner, folder, exchanged(base, owner, uid), exchanged(base, groupOfBind, gid))
}

// exchanged maps the guest's ids to themselves, but for one, which is another one
// on the disk.
func exchanged(base, guest, disk int) []idmap.Mapping {
	mappings := []idmap.Mapping{{Disk: disk, Shown: base + guest, Size: 1}, {Disk: base, Shown: base, Size: guest}}
	if rest := process.GuestIDs - guest - 1; rest > 0 {
		mappings = append(mappings, idmap.Mapping{Disk: base + guest + 1, Shown: base + guest + 1, Size: rest})
	}
	return mappings
}

// clearBinds removes what makeBinds made. Containers that run keep theirs.
func clearBinds(layout registry.Layout, name string) error {
	folder := bindsFolder(layout, name)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	problems := []error{err}
	for _, entry := range entries {
		path := filepath.Join(folder, entry.Name())
		// EINVAL: nothing is mounted.
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			problems = append(problems, fmt.Errorf("cannot unmount %s: %w", path, err))
			continue
		}
		// Never what is in it.
		problems = append(problems, os.Remove(path))
	}
	return errors.Join(append(problems, os.Remove(folder))...)
}
