package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Visitors are the processes that entered the container through its door and
// have not left, sorted: one for each command that runs there by exec or shell, and
// two while it enters.
// The guest can neither see nor change them.
func (g *Group) Visitors() ([]int, error) {
	var pids []int
	for _, one := range g.tree.hierarchies {
		text, err := os.ReadFile(filepath.Join(g.folder(one), visitors, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read who is in the container: %w", err)
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}
