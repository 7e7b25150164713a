// Package cgroup gives every container a cgroup of its own in every mounted
// hierarchy: v1, v2, or both side by side (hybrid). See cgroups(7).
//
// The cgroup of container NAME is /devhost-INSTANCE/NAME below the root of each
// hierarchy as this machine sees it. It does not lie below the cgroup of whoever
// runs devhost: that one ends with their session, may be limited, and would be
// another one for the next person.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// hierarchy is one mounted hierarchy.
type hierarchy struct {
	mount string
	// unified says that it is cgroup v2.
	unified bool
	// controllers are those of a v1 hierarchy, with "name=systemd" for a named
	// one; for v2, those that its root offers.
	controllers []string
}

// Tree is all mounted hierarchies.
type Tree struct{ hierarchies []hierarchy }

// Discover reads the mount table.
func Discover() (*Tree, error) {
	mounts, err := mountinfo.GetMounts(func(info *mountinfo.Info) (skip, stop bool) {
		return info.FSType != "cgroup" && info.FSType != "cgroup2", false
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the mount table: %w", err)
	}
	return fromMounts(mounts)
}

func fromMounts(mounts []*mountinfo.Info) (*Tree, error) {
	tree := &Tree{}
	seen := map[string]bool{}
	for _, mount := range mounts {
		one := hierarchy{mount: mount.Mountpoint, unified: mount.FSType == "cgroup2"}
		if one.unified {
			text, err := os.ReadFile(filepath.Join(one.mount, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("cannot read the controllers of cgroup v2: %w", err)
			}
			one.controllers = strings.Fields(string(text))
		} else {
			one.controllers = controllersOf(mount.VFSOptions)
		}
		key := strings.Join(one.controllers, ",")
		if one.unified {
			key = "v2"
		}
		// The same hierarchy may be mounted twice.
		if !seen[key] {
			seen[key] = true
			tree.hierarchies = append(tree.hierarchies, one)
		}
	}
	if len(tree.hierarchies) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return tree, nil
}

// controllersOf picks the controllers from a v1 mount's options.
func controllersOf(options string) []string {
	var controllers []string
	for option := range strings.SplitSeq(options, ",") {
		name, _, hasValue := strings.Cut(option, "=")
		switch {
		case name == "name":
		case hasValue, name == "rw", name == "ro", name == "xattr", name == "clone_children", name == "noprefix",
			name == "cpuset_v2_mode", name == "favordynmods", name == "seclabel":
			continue
		}
		controllers = append(controllers, option)
	}
	slices.Sort(controllers)
	return controllers
}

// Unified says whether there is a cgroup v2 hierarchy, alone or beside v1.
func (t *Tree) Unified() bool {
	return slices.ContainsFunc(t.hierarchies, func(one hierarchy) bool { return one.unified })
}

// Group is the cgroup of one container, in all hierarchies.
type Group struct {
	tree *Tree
	// parent and path are relative to a hierarchy's root.
	parent, path string
	// container is its name.
	container string
}

// Group is the cgroup of a container of an instance. It need not exist.
func (t *Tree) Group(instance, name string) *Group {
	parent := "devhost-" + instance
	return &Group{tree: t, parent: parent, path: filepath.Join(parent, name), container: name}
}

func (g *Group) folder(one hierarchy) string { return filepath.Join(one.mount, g.path) }

// createTries bounds how often Create starts again because the last container
// of the instance went away at that moment and took the parent with it.
const createTries = 10

// Create makes the cgroup where it does not exist.
func (g *Group) Create() error {
	var err error
	for range createTries {
		// ENODEV is what a removed cgroup's open file says.
		if err = g.create(); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			break
		}
	}
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("cannot make the container's cgroup, because cgroups are read-only here: %w; this machine is itself a container: start it with writable cgroups (--privileged)", err)
	}
	if err != nil {
		return fmt.Errorf("cannot make the container's cgroup: %w", err)
	}
	return nil
}

// What a guest may nest its cgroups is bounded so that the paths of all of them
// stay shorter than what the kernel takes (PATH_MAX, 4096 bytes, with names of
// 255): longer ones could not be removed by path.
const (
	mostDepth       = "14"
	mostDescendants = "4096"
)

func boundNesting(folder string) error {
	for file, most := range map[string]string{"cgroup.max.depth": mostDepth, "cgroup.max.descendants": mostDescendants} {
		if err := writeIfThere(folder, file, most); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) create() error {
	for _, one := range g.tree.hierarchies {
		above := one.mount
		for _, path := range []string{g.parent, g.path} {
			folder := filepath.Join(one.mount, path)
			if one.unified {
				delegate(above, one.controllers)
			}
			if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if slices.Contains(one.controllers, "cpuset") && !one.unified {
				if err := inheritCPUSet(above, folder); err != nil {
					return err
				}
			}
			if slices.Contains(one.controllers, "memory") && !one.unified {
				// Kernels before 5.11 do not bound what lies below otherwise.
				if err := writeIfThere(folder, "memory.use_hierarchy", "1"); err != nil && !errors.Is(err, unix.EBUSY) {
					return err
				}
			}
			above = folder
		}
		if one.unified {
			if err := boundNesting(above); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegated are the controllers that limits need and that guests know.
var delegated = []string{"cpu", "cpuset", "io", "memory", "pids"}

// delegate turns controllers on for the children of a v2 cgroup. One that
// cannot be turned on is missed only by those who ask for its limit:
// SetLimits says so then.
func delegate(folder string, controllers []string) {
	control := filepath.Join(folder, "cgroup.subtree_control")
	text, err := os.ReadFile(control)
	if err != nil {
		return
	}
	enabled := strings.Fields(string(text))
	for _, controller := range delegated {
		if slices.Contains(controllers, controller) && !slices.Contains(enabled, controller) {
			_ = writeFile(control, "+"+controller)
		}
	}
}

// inheritCPUSet copies processors and memory nodes from the parent: a new v1
// cpuset is empty, and no process may enter it.
func inheritCPUSet(parent, folder string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(own)) != "" {
			continue
		}
		inherited, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(folder, file), string(inherited)); err != nil {
			return err
		}
	}
	return nil
}

// PIDs are the processes in the cgroup and below it, in any hierarchy, sorted.
func (g *Group) PIDs() ([]int, error) {
	pids := map[int]bool{}
	for _, one := range g.tree.hierarchies {
		folders, err := below(g.folder(one))
		if err != nil {
			return nil, err
		}
		for _, folder := range folders {
			text, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
			// ENODEV: it was removed meanwhile. EOPNOTSUPP: it is threaded, and
			// its processes are listed further up.
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read the processes of a container: %w", err)
			}
			for _, field := range strings.Fields(string(text)) {
				// 0 is a process that this pid namespace does not see.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids[pid] = true
				}
			}
		}
	}
	sorted := make([]int, 0, len(pids))
	for pid := range pids {
		sorted = append(sorted, pid)
	}
	slices.Sort(sorted)
	return sorted, nil
}

// below lists a cgroup and those below it, parents first; none if there is no
// such cgroup.
func below(folder string) ([]string, error) {
	var folders []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	return folders, err
}

// poll is how long Kill and Remove wait before they look again.
const poll = 5 * time.Millisecond

// Kill kills every process of the container and returns when none is left, or
// when the context ends.
func (g *Group) Kill(ctx context.Context) error {
	// What the freezer of v1 holds does not die.
	if err := g.Thaw(); err != nil {
		return err
	}
	for {
		for _, one := range g.tree.hierarchies {
			if one.unified {
				// At once and without a race, from Linux 5.14 on; what it
				// misses is killed one by one.
				_ = writeIfThere(g.folder(one), "cgroup.kill", "1")
			}
		}
		pids, err := g.PIDs()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of the container cannot be killed: %w", pids, ctx.Err())
		case <-time.After(poll):
		}
	}
}

// Remove removes the cgroup in all hierarchies, and the instance's when it was
// the last. A cgroup is busy for a moment after its last process; Remove tries
// until the context ends.
func (g *Group) Remove(ctx context.Context) error {
	for {
		err := g.remove()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot remove the container's cgroup: %w", err)
		case <-time.After(poll):
		}
	}
}

func (g *Group) remove() error {
	for _, one := range g.tree.hierarchies {
		folders, err := below(g.folder(one))
		if err != nil {
			return err
		}
		for _, folder := range slices.Backward(folders) {
			if err := unix.Rmdir(folder); err != nil && !errors.Is(err, unix.ENOENT) {
				return &fs.PathError{Op: "rmdir", Path: folder, Err: err}
			}
		}
		// Not empty while other containers run.
		_ = unix.Rmdir(filepath.Join(one.mount, g.parent))
	}
	return nil
}

// writeFile writes to a control file. It makes none: the kernel does.
func writeFile(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

func writeIfThere(folder, file, text string) error {
	err := writeFile(filepath.Join(folder, file), text)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
