package container

import (
	"context"
	"errors"

	"devhost/internal/execx"
	"devhost/internal/network"
	"devhost/internal/nix"
	"devhost/internal/settings"
)

// prepareNetwork makes bridge and packet filter before anything is built for a
// container: the filter is what restricts builders.
func (m *Manager) prepareNetwork(ctx context.Context) error {
	unlock, err := m.lockShared(ctx, "make the network")
	if err != nil {
		return err
	}
	defer unlock()
	return m.Network.Prepare(ctx)
}

// builders are those that the network restricts, by the settings of this host.
func (n *HostNetwork) builders(ctx context.Context) (network.Builders, error) {
	if !n.restrictsBuilders() {
		return network.Builders{}, nil
	}
	return findBuilders(ctx, n.Runner, "/")
}

func (n *HostNetwork) restrictsBuilders() bool {
	// Of a file with mistakes, what is good holds: a guest that starts is not
	// to wait for its correction.
	host, _ := settings.Load(n.Layout.Settings())
	return host.Network.RestrictBuilders
}

// findBuilders looks for the build users of the host whose files are below root.
func findBuilders(ctx context.Context, runner execx.Runner, root string) (network.Builders, error) {
	config, err := nix.ReadSettings(root)
	if err != nil {
		return network.Builders{}, err
	}
	users, err := nix.FindBuildUsers(ctx, runner, root, config)
	var none *nix.NoBuildUsers
	if errors.As(err, &none) {
		// Then Nix builds nothing, or as root, and devhost has nothing built.
		return network.Builders{}, nil
	}
	return network.Builders{GID: users.GID, FirstUID: users.FirstUID, LastUID: users.LastUID}, err
}
