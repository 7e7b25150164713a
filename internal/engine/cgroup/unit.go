package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Unit is the cgroup of a unit of systemd that runs a container: path is its
// property ControlGroup. Hierarchies in which systemd made none for the unit are
// left out: there its processes are where systemd's own are.
func (t *Tree) Unit(path, container string) *Group {
	path = strings.TrimPrefix(filepath.Clean("/"+path), "/")
	group := &Group{tree: &Tree{}, parent: filepath.Dir(path), path: path, container: container}
	for _, one := range t.hierarchies {
		if isFolder(filepath.Join(one.mount, path)) {
			group.tree.hierarchies = append(group.tree.hierarchies, one)
		}
	}
	return group
}

// MakeRoom brings the memory that a running container uses below a limit that
// somebody else is about to set, so that nothing is killed for it. The error is a
// *LimitError when it uses more than that. Where memory is not counted there is
// nothing to do.
func (g *Group) MakeRoom(bytes int64) error {
	folder, unified, found := g.controlled("memory")
	if !found || bytes <= 0 {
		return nil
	}
	var err error
	if unified {
		if _, missing := os.Stat(filepath.Join(folder, "memory.high")); missing == nil {
			err = reclaim(folder, bytes)
		}
	} else {
		err = set(folder, "memory.limit_in_bytes", fmt.Sprint(bytes), false)
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		// EINVAL: the limit with swap is lower still, and will be raised.
		return nil
	}
	return &LimitError{Name: g.container, Limit: "memory", Value: fmt.Sprintf("of %d bytes", bytes), Err: err}
}
