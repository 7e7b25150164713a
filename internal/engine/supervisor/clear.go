package supervisor

import (
	"context"
	"errors"
	"time"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/registry"
)

// clearTimeout bounds how long the dead may hold on to their cgroup.
const clearTimeout = time.Minute

// clearProcesses ends every process of the container and removes what nspawn
// leaves.
func (s *supervisor) clearProcesses(ctx context.Context) error {
	if s.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	if s.record.UIDBase == 0 {
		s.record.UIDBase = uidBaseOf(s.group)
	}
	if err := s.group.Kill(ctx); err != nil {
		return err
	}
	// The guest's ids are free now.
	if s.ids != nil {
		_ = s.ids.Close()
		s.ids = nil
	}
	return clearNspawn(s.Layout, s.Name, s.record.UIDBase)
}

func (s *supervisor) removeGroup(ctx context.Context) error {
	if s.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	return s.group.Remove(ctx)
}

// uidBaseOf asks the processes of a container which ids they have, for when no
// record says so.
func uidBaseOf(group *cgroup.Group) int {
	pids, err := group.PIDs()
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		if base := uidBase(pid); base != 0 {
			return base
		}
	}
	return 0
}

func clearNspawn(layout registry.Layout, name string, uidBase int) error {
	return errors.Join(clearBinds(layout, name), nspawn.Clear(nspawn.Leftovers{
		Machine: nspawn.MachineName(layout, name),
		Root:    layout.Root(name),
		UIDBase: uidBase,
	}))
}

// Clear ends every process of a container that has no living supervisor, and
// removes all that the supervisor would have removed, the record of a failure
// too. address may be the zero value when it is not known. The error is *Busy
// when there is a supervisor.
func Clear(ctx context.Context, layout registry.Layout, name string, address registry.Address, network Network) error {
	unlock, err := lock(layout, name)
	if err != nil {
		return err
	}
	defer removeRuntime(layout)
	defer unlock()
	// An unusable record is removed like any other.
	record, _ := ReadRecord(layout, name)
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	group := tree.Group(layout.Instance(), name)
	uidBase := uidBaseOf(group)
	if record != nil && record.UIDBase != 0 {
		uidBase = record.UIDBase
	}
	limited, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	if err := group.Kill(limited); err != nil {
		return err
	}
	problems := []error{
		clearNspawn(layout, name, uidBase),
		group.Remove(limited),
		removeIfThere(notifySocket(layout, name)),
		removeIfThere(consolePipe(layout, name)),
	}
	if address.HostInterface != "" {
		problems = append(problems, network.Detach(ctx, name, address))
	}
	return errors.Join(append(problems, removeRecord(layout, name))...)
}
