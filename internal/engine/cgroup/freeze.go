package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// freezeTimeout is how long processes may take to stand still. One that waits
// for a disk does so when that answers.
const freezeTimeout = 30 * time.Second

// Freezes says whether processes can be held: cgroup v2 from Linux 5.2 on, or
// the controller freezer of v1.
func (t *Tree) Freezes() bool {
	return slices.ContainsFunc(t.hierarchies, func(one hierarchy) bool { return one.unified || one.freezer() })
}

func (h hierarchy) freezer() bool { return !h.unified && slices.Contains(h.controllers, "freezer") }

// freezing is the hierarchy that holds processes: v2 where there is one, for a
// process that it holds can still be killed.
func (t *Tree) freezing() (hierarchy, bool) {
	for _, wanted := range []func(hierarchy) bool{func(one hierarchy) bool { return one.unified }, hierarchy.freezer} {
		if i := slices.IndexFunc(t.hierarchies, wanted); i >= 0 {
			return t.hierarchies[i], true
		}
	}
	return hierarchy{}, false
}

// Freeze holds every process of the container, and returns when all of them
// stand still. When that fails none is held.
func (g *Group) Freeze(ctx context.Context) error {
	one, ok := g.tree.freezing()
	if !ok {
		return errors.New("this host cannot hold processes: it has neither cgroup v2 nor the freezer of v1")
	}
	folder := g.folder(one)
	file, order, answer, frozen := "freezer.state", "FROZEN", "freezer.state", "FROZEN"
	if one.unified {
		file, order, answer, frozen = "cgroup.freeze", "1", "cgroup.events", "frozen 1"
	}
	limited, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	err := writeFile(filepath.Join(folder, file), order)
	for err == nil {
		var text []byte
		if text, err = os.ReadFile(filepath.Join(folder, answer)); err != nil {
			break
		}
		if slices.Contains(strings.Split(strings.TrimSpace(string(text)), "\n"), frozen) {
			return nil
		}
		select {
		case <-limited.Done():
			err = limited.Err()
		case <-time.After(poll):
		}
	}
	return errors.Join(fmt.Errorf("cannot hold the container's processes: %w", err), g.Thaw())
}

// Thaw lets the processes of the container go on. One that is not held, or that
// has no cgroup, is left alone.
func (g *Group) Thaw() error {
	var problems []error
	for _, one := range g.tree.hierarchies {
		file, order := "freezer.state", "THAWED"
		switch {
		case one.unified:
			file, order = "cgroup.freeze", "0"
		case !one.freezer():
			continue
		}
		if err := writeIfThere(g.folder(one), file, order); err != nil && !errors.Is(err, unix.ENODEV) {
			problems = append(problems, fmt.Errorf("cannot let the container's processes go on: %w", err))
		}
	}
	return errors.Join(problems...)
}
