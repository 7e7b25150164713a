package container

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"devhost/internal/engine"
	"devhost/internal/network"
	"devhost/internal/registry"
)

// wantsHostNetwork tells which network a container is to have. Only what the
// host's configuration declares can have the host's: a clone or what is brought
// back from an archive has one of its own.
func wantsHostNetwork(record *registry.Container) bool {
	return record.Declared != nil && record.Declared.HostNetwork
}

// takeNetwork gives a container that is about to start addresses of the network
// that it is to have from now on, and another port in the host's network where a
// program has its own. One that runs keeps what it has.
func (m *Manager) takeNetwork(ctx context.Context, record *registry.Container) error {
	keeps := record.Address.OnHost() == wantsHostNetwork(record)
	if keeps && (!record.Address.OnHost() || m.Network.FreeOnHost(ctx, record.Address)) {
		return m.publishOnce(ctx, record)
	}
	state, err := m.Engine.State(record.Name)
	if err != nil {
		return err
	}
	if state.LeaderPID != 0 || (state.Status != engine.Stopped && state.Status != engine.Failed) {
		return nil
	}
	if err := m.allocate(ctx, record); err != nil {
		return err
	}
	return m.publish(ctx)
}

// publishOnce publishes a container's addresses unless that was done: a command
// may have been killed after it had recorded new ones.
func (m *Manager) publishOnce(ctx context.Context, record *registry.Container) error {
	file := record.Name + ".json"
	want, err := publishedText(m.published(record)[file])
	if err != nil {
		return err
	}
	if found, err := os.ReadFile(filepath.Join(m.Registry.Published(), file)); err == nil && string(found) == want {
		return nil
	}
	return m.publish(ctx)
}

// sshAddress is where a container's sshd answers, as HOST:PORT.
func (m *Manager) sshAddress(record *registry.Container) string {
	port := cmp.Or(m.sshPort, "22")
	if record.Address.OnHost() {
		port = strconv.Itoa(int(record.Address.SSHPort))
	}
	return net.JoinHostPort(record.Address.IPv4, port)
}

// AllocateOnHost implements Network.
func (n *HostNetwork) AllocateOnHost(ctx context.Context, name string, others []*registry.Container) (registry.Address, error) {
	// The bridge and the packet filter are there for all containers together.
	if _, err := n.hostOrNew(); err != nil {
		return registry.Address{}, err
	}
	var used []network.OnHost
	var taken []uint16
	for _, other := range others {
		if address, err := netip.ParseAddr(other.Address.IPv4); err == nil && other.Address.OnHost() {
			used = append(used, network.OnHost{Address: address, SSHPort: other.Address.SSHPort})
		}
		for _, port := range other.ForwardPorts {
			taken = append(taken, port.HostPort)
		}
	}
	found, err := network.AllocateOnHost(ctx, n.Layout.Instance(), used, taken, name)
	if err != nil {
		return registry.Address{}, err
	}
	return registry.Address{IPv4: found.Address.String(), SSHPort: found.SSHPort}, nil
}

// FreeOnHost implements Network.
func (n *HostNetwork) FreeOnHost(ctx context.Context, address registry.Address) bool {
	parsed, err := netip.ParseAddr(address.IPv4)
	return err == nil && network.OnHost{Address: parsed, SSHPort: address.SSHPort}.Free(ctx)
}

// Names of files in the guest's folder about its network: a container has the
// first where that is its own, and the second where it is the host's.
const (
	networkdFile = "network/10-host0.network"
	sshdFile     = "sshd.conf"
)

// guestFilesOnHost are GuestFiles in the host's network.
func guestFilesOnHost(address registry.Address, peers []Host) (map[string]string, error) {
	parsed, err := netip.ParseAddr(address.IPv4)
	if err != nil {
		return nil, err
	}
	resolvers, err := network.ResolvConfOnHost()
	if err != nil {
		return nil, err
	}
	return map[string]string{
		sshdFile:   network.GuestSSHFile(network.OnHost{Address: parsed, SSHPort: address.SSHPort}),
		resolvFile: resolvers,
		"hosts":    network.HostsFile(hostEntries(peers)),
	}, nil
}
