package supervisor

import (
	"fmt"
	"os"
	"path/filepath"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/registry"
)

// Prepared is a container that is ready to be started.
type Prepared struct {
	// Argv and Environment are nspawn's.
	Argv, Environment []string
	// Group is the container's cgroup, with its limits.
	Group *cgroup.Group
}

// Prepare makes the container's cgroup and root folder and says how nspawn is
// started. A caller that becomes nspawn itself (exec) starts from here.
//
// notifySocket is where nspawn reports; program is nspawn's, "" for the one on
// PATH.
func Prepare(layout registry.Layout, container *registry.Container, notifySocket, program string) (*Prepared, error) {
	tree, err := cgroup.Discover()
	if err != nil {
		return nil, err
	}
	group := tree.Group(layout.Instance(), container.Name)
	if err := group.Create(); err != nil {
		return nil, err
	}
	if err := group.SetLimits(container.Limits); err != nil {
		return nil, err
	}
	hostUsr, err := nspawn.HostUsr(container.System)
	if err != nil {
		return nil, err
	}
	// nspawn would say only that the guest's program is missing.
	if _, err := os.Lstat(filepath.Join(container.System, "init")); err != nil {
		return nil, fmt.Errorf("the container's system has no init: %w; build it again with: devhost ensure %s", err, container.Name)
	}
	if err := nspawn.PrepareRoot(layout.Root(container.Name), hostUsr); err != nil {
		return nil, err
	}
	if program == "" {
		program = nspawn.Program
	}
	arguments := nspawn.Arguments(nspawn.Config{
		Machine:       nspawn.MachineName(layout, container.Name),
		Hostname:      container.Name,
		Root:          layout.Root(container.Name),
		Guest:         layout.Guest(container.Name),
		Store:         storeFolder,
		System:        container.System,
		HostUsr:       hostUsr,
		HostInterface: container.Address.HostInterface,
	})
	return &Prepared{
		Argv:        append([]string{program}, arguments...),
		Environment: nspawn.Environment(notifySocket, tree.Unified()),
		Group:       group,
	}, nil
}

// storeFolder is where store paths lie, outside and inside.
const storeFolder = "/nix/store"
