package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"devhost/internal/execx"
	"devhost/internal/network"
	"devhost/internal/registry"
)

// HostNetwork is the network of one state folder on this machine. It is the
// Network of a Manager and of a supervisor. Its Host is chosen with the first
// container and recorded.
type HostNetwork struct {
	Layout registry.Layout
	// HostsFile is where names are published, /etc/hosts in life.
	HostsFile string
	// Runner asks for groups that are not in /etc/group.
	Runner execx.Runner
}

// host reads the recorded network.
func (n *HostNetwork) host() (network.Host, error) {
	var host network.Host
	data, err := os.ReadFile(n.Layout.Network())
	if err == nil {
		err = json.Unmarshal(data, &host)
	}
	if err != nil {
		return host, fmt.Errorf("cannot read the recorded network %s: %w", n.Layout.Network(), err)
	}
	return host, nil
}

// open is for what needs no rules about builders.
func (n *HostNetwork) open() (*network.Network, error) {
	host, err := n.host()
	if err != nil {
		return nil, err
	}
	return network.New(host, n.Layout.NetworkLock())
}

// whole is the network with all of its rules.
func (n *HostNetwork) whole(ctx context.Context) (*network.Network, error) {
	host, err := n.host()
	if err != nil {
		return nil, err
	}
	if host.Builders, err = n.builders(ctx); err != nil {
		return nil, err
	}
	return network.New(host, n.Layout.NetworkLock())
}

// NameInUse implements Network.
func (n *HostNetwork) NameInUse(name string) (string, error) {
	hostName, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return network.NameInUse(n.HostsFile, hostName, name)
}

// hostOrNew chooses a network and records it where there is none.
func (n *HostNetwork) hostOrNew() (network.Host, error) {
	host, err := n.host()
	if errors.Is(err, fs.ErrNotExist) {
		if host, err = n.choose(); err != nil {
			return network.Host{}, err
		}
		err = registry.WriteJSON(n.Layout.Network(), host)
	}
	return host, err
}

// Prepare implements Network.
func (n *HostNetwork) Prepare(ctx context.Context) error {
	if _, err := n.hostOrNew(); err != nil {
		return err
	}
	opened, err := n.whole(ctx)
	if err != nil {
		return err
	}
	return n.connect(ctx, opened)
}

// Allocate implements Network. The caller holds the shared lock, so that only
// one network is chosen.
func (n *HostNetwork) Allocate(name string, used []registry.Address) (registry.Address, error) {
	host, err := n.hostOrNew()
	if err != nil {
		return registry.Address{}, err
	}
	taken := make([]network.Addresses, 0, len(used))
	for _, address := range used {
		if parsed, err := parseAddress(address); err == nil {
			taken = append(taken, parsed)
		}
	}
	addresses, err := network.Allocate(host, taken, name)
	if err != nil {
		return registry.Address{}, err
	}
	address := registry.Address{IPv4: addresses.IPv4.String(), MAC: addresses.MAC, HostInterface: addresses.HostInterface}
	if addresses.IPv6.IsValid() {
		address.IPv6 = addresses.IPv6.String()
	}
	return address, nil
}

func parseAddress(address registry.Address) (network.Addresses, error) {
	addresses := network.Addresses{MAC: address.MAC, HostInterface: address.HostInterface}
	var err error
	if addresses.IPv4, err = netip.ParseAddr(address.IPv4); err != nil {
		return addresses, err
	}
	if address.IPv6 != "" {
		addresses.IPv6, err = netip.ParseAddr(address.IPv6)
	}
	return addresses, err
}

// GuestFiles implements Network.
func (n *HostNetwork) GuestFiles(_ string, address registry.Address, peers []Host) (map[string]string, error) {
	if address.OnHost() {
		return guestFilesOnHost(address, peers)
	}
	host, err := n.host()
	if err != nil {
		return nil, err
	}
	addresses, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	resolvers, err := network.ResolvConf()
	if err != nil {
		return nil, err
	}
	return map[string]string{
		networkdFile: network.GuestNetworkFile(host, addresses),
		resolvFile:   resolvers.Content,
		"hosts":      network.HostsFile(hostEntries(peers)),
	}, nil
}

func hostEntries(hosts []Host) []network.HostEntry {
	entries := make([]network.HostEntry, 0, len(hosts))
	for _, host := range hosts {
		entry := network.HostEntry{Name: host.Name}
		// Records are checked when they are read: what is no address is left out.
		entry.IPv4, _ = netip.ParseAddr(host.IPv4)
		entry.IPv6, _ = netip.ParseAddr(host.IPv6)
		entries = append(entries, entry)
	}
	return entries
}

// RefreshResolvers writes the host's resolvers for the guest anew where they
// changed. A guest without files yet is left alone.
func (n *HostNetwork) RefreshResolvers(name string) error {
	path := filepath.Join(n.Layout.Guest(name), resolvFile)
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(n.Layout.Guest(name), sshdFile)); err == nil {
		content, err := network.ResolvConfOnHost()
		if err != nil {
			return err
		}
		return writeGuestFile(path, content)
	}
	resolvers, err := network.ResolvConf()
	if err != nil {
		return err
	}
	return writeGuestFile(path, resolvers.Content)
}

// resolvFile is the file in the guest's folder with its resolvers.
const resolvFile = "resolv.conf"

// Publish implements Network.
func (n *HostNetwork) Publish(ctx context.Context, records []*registry.Container) error {
	hosts := make([]Host, len(records))
	for i, record := range records {
		hosts[i] = hostOf(record)
	}
	if len(records) > 0 {
		opened, err := n.whole(ctx)
		if err != nil {
			return err
		}
		if err := n.connect(ctx, opened); err != nil {
			return err
		}
	}
	// Last: where the hosts file is read-only, all else is done.
	return network.PublishHosts(ctx, n.HostsFile, n.Layout.Instance(), hostEntries(hosts))
}

// connect makes bridge and packet filter what they shall be.
func (n *HostNetwork) connect(ctx context.Context, opened *network.Network) error {
	if err := opened.Ensure(ctx); err != nil {
		return err
	}
	// A supervisor does this without the shared lock. So who sets the policy
	// reads the records when nobody else can set it.
	return opened.SetPolicy(ctx, n.policy)
}

// policy is that of all containers: those of one owner and environment reach
// each other, and the forwarded ports are open.
func (n *HostNetwork) policy() (network.Policy, error) {
	policy := network.Policy{Groups: map[string][]network.Addresses{}}
	records, err := usableRecords(registry.New(n.Layout))
	if err != nil {
		return policy, err
	}
	for _, record := range records {
		if record.Address.OnHost() {
			// What it sends is the host's.
			continue
		}
		addresses, err := parseAddress(record.Address)
		if err != nil {
			return policy, fmt.Errorf("the addresses of container %s: %w", record.Name, err)
		}
		policy.Containers = append(policy.Containers, addresses)
		if record.Environment != "" {
			// No login and no environment holds a line break.
			group := record.Owner + "\n" + record.Environment
			policy.Groups[group] = append(policy.Groups[group], addresses)
		}
	}
	policy.Forwards, err = forwards(records)
	return policy, err
}

// Current implements Network.
func (n *HostNetwork) Current(ctx context.Context) (bool, error) {
	opened, err := n.whole(ctx)
	if err != nil {
		return false, err
	}
	return opened.Current()
}

// Remove implements Network. No container is left.
func (n *HostNetwork) Remove(ctx context.Context) error {
	opened, err := n.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := opened.Remove(ctx); err != nil {
		return err
	}
	// Nobody has an address of it any more: the next container chooses one that
	// is free then.
	return removeIfThere(n.Layout.Network())
}

// Attach connects a container that starts; bridge and rules are made if they
// are missing, as after a restart of the host.
func (n *HostNetwork) Attach(ctx context.Context, _ string, address registry.Address) error {
	if address.OnHost() {
		return nil
	}
	opened, err := n.whole(ctx)
	if err != nil {
		return err
	}
	addresses, err := parseAddress(address)
	if err != nil {
		return err
	}
	if err := n.connect(ctx, opened); err != nil {
		return err
	}
	return opened.Attach(ctx, addresses)
}

// Detach takes back what Attach did.
func (n *HostNetwork) Detach(ctx context.Context, _ string, address registry.Address) error {
	if address.OnHost() {
		return nil
	}
	opened, err := n.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	addresses, err := parseAddress(address)
	if err != nil {
		return err
	}
	return opened.Detach(ctx, addresses)
}
