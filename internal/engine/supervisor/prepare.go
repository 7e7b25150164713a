package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/registry"
)

// Prepared is a container that is ready to be started.
type Prepared struct {
	// Argv and Environment are nspawn's.
	Argv, Environment []string
	// Group is the container's cgroup, with its limits.
	Group *cgroup.Group
	// System is the store path of what is started.
	System string
	// IDs is the lock on the guest's ids, to be held while it runs; nil where
	// nspawn chooses them.
	IDs *os.File
	// Fallback says why that is not what fc-manage installed inside, nil where
	// it is, or where there is none.
	Fallback error
}

// Prepare makes the container's cgroup and root folder and says how nspawn is
// started by a supervisor.
//
// runner makes the namespaces that bind mounts take their ids from. notifySocket
// is where nspawn reports; program is nspawn's, "" for the one on
// PATH.
func Prepare(ctx context.Context, layout registry.Layout, container *registry.Container, runner execx.Runner, notifySocket, program string) (*Prepared, error) {
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
	config, fallback, err := configure(layout, container)
	if err != nil {
		return nil, err
	}
	ids, err := makeBinds(ctx, layout, container, runner, &config)
	if err != nil {
		return nil, err
	}
	return &Prepared{
		IDs:         ids,
		Argv:        append([]string{cmp.Or(program, nspawn.Program)}, nspawn.Arguments(config)...),
		Environment: nspawn.Environment(notifySocket, tree.Unified()),
		Group:       group,
		System:      config.System,
		Fallback:    fallback,
	}, nil
}

// configure makes the container's root folder ready and says what nspawn is told;
// fallback is Prepared's.
func configure(layout registry.Layout, container *registry.Container) (config nspawn.Config, fallback, err error) {
	system, fallback := nspawn.System(layout, container)
	hostUsr, err := nspawn.HostUsr(system)
	if err != nil {
		return config, fallback, err
	}
	// nspawn would say only that the guest's program is missing.
	if _, err := os.Lstat(filepath.Join(system, "init")); err != nil {
		return config, fallback, fmt.Errorf("the container's system has no init: %w; build it again with: devhost ensure %s", err, container.Name)
	}
	if container.Declared != nil && container.Declared.Ephemeral {
		if err := nspawn.EmptyRoot(layout.Root(container.Name)); err != nil {
			return config, fallback, err
		}
	}
	if err := nspawn.PrepareRoot(layout.Root(container.Name), hostUsr); err != nil {
		return config, fallback, err
	}
	onHost := container.Address.OnHost()
	if onHost && container.Declared == nil {
		return config, fallback, fmt.Errorf("its record gives it the host's network, which only the configuration of this host may do; remove it with: devhost destroy %s", container.Name)
	}
	// Who can build by the host's daemon can fetch with the host's network: only
	// containers that build their own system get there.
	socket := ""
	if container.Dialect != "" {
		socket = nixSocket
		// A daemon may start, and make its socket, while the guest runs.
		if err := os.MkdirAll(socket, 0o755); err != nil {
			return config, fallback, err
		}
	}
	return nspawn.Config{
		Machine:       nspawn.MachineName(layout, container.Name),
		Hostname:      container.Name,
		Root:          layout.Root(container.Name),
		Guest:         layout.Guest(container.Name),
		Store:         storeFolder,
		NixSocket:     socket,
		System:        system,
		HostUsr:       hostUsr,
		HostInterface: container.Address.HostInterface,
		HostNetwork:   onHost,
		// Until it is started again, both may be in the record.
		Nesting: container.Nesting && !onHost,
	}, fallback, nil
}

// storeFolder is where store paths lie, outside and inside.
const storeFolder = "/nix/store"

// nixSocket is the folder of the Nix daemon's socket.
var nixSocket = filepath.Dir(nix.DefaultSocket)
