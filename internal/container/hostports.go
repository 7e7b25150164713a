package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// mostForwardPorts bounds how many ports of the host one container may take.
const mostForwardPorts = 64

// ParseForwardPort reads HOST:GUEST or HOST:GUEST/PROTOCOL, such as 8080:80 or
// 5353:53/udp. Without a protocol it is tcp.
func ParseForwardPort(text string) (registry.ForwardPort, error) {
	wrong := func(reason string) (registry.ForwardPort, error) {
		return registry.ForwardPort{}, fmt.Errorf("%q is no forwarded port: %s; write it as 8080:80 or 5353:53/udp, the host's port first", text, reason)
	}
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return wrong(fmt.Sprintf("the protocol %q is neither tcp nor udp", protocol))
	}
	host, guest, two := strings.Cut(ports, ":")
	if !two {
		return wrong("it needs two ports")
	}
	forward := registry.ForwardPort{Protocol: protocol}
	for _, part := range []struct {
		text string
		into *uint16
	}{{host, &forward.HostPort}, {guest, &forward.GuestPort}} {
		number, err := strconv.ParseUint(part.text, 10, 16)
		if err != nil || number == 0 || part.text[0] == '+' {
			return wrong(fmt.Sprintf("%q is no port from 1 to 65535", part.text))
		}
		*part.into = uint16(number)
	}
	return forward, nil
}

// validateForwardPorts checks what can be checked without looking at the host.
func validateForwardPorts(ports []registry.ForwardPort) error {
	if len(ports) > mostForwardPorts {
		return fmt.Errorf("%d forwarded ports are too many: a container may have %d", len(ports), mostForwardPorts)
	}
	for i, port := range ports {
		if parsed, err := ParseForwardPort(port.String()); err != nil || parsed != port {
			return fmt.Errorf("%s is no forwarded port", port)
		}
		for _, other := range ports[:i] {
			if port.SameHostPort(other) {
				return fmt.Errorf("port %s of the host is forwarded twice", port.Host())
			}
		}
	}
	return nil
}

// PortRefused says that a port of the host cannot lead to a container.
type PortRefused struct {
	Port   registry.ForwardPort
	Reason string
	// Taken says that somebody has it; else the host's settings refuse it.
	Taken bool
}

func (p *PortRefused) Error() string {
	return fmt.Sprintf("port %s of this host cannot be forwarded: %s", p.Port.Host(), p.Reason)
}

// checkPorts refuses ports that the record must not have or that somebody else
// has. had are those that it has already: they are not looked at again. The
// error is *PortRefused.
func (m *Manager) checkPorts(record *registry.Container, had []registry.ForwardPort, others []*registry.Container) error {
	for _, port := range record.ForwardPorts {
		if slices.ContainsFunc(had, port.SameHostPort) {
			continue
		}
		if err := m.checkPort(port); err != nil {
			return err
		}
		for _, other := range others {
			if other.Name != record.Name && port.Protocol == "tcp" && other.Address.OnHost() && port.HostPort == other.Address.SSHPort {
				return &PortRefused{Port: port, Taken: true, Reason: fmt.Sprintf("the sshd of container %s listens there; take another one", other.Name)}
			}
			if other.Name != record.Name && slices.ContainsFunc(other.ForwardPorts, port.SameHostPort) {
				return &PortRefused{Port: port, Taken: true, Reason: fmt.Sprintf("it leads to container %s; take another one", other.Name)}
			}
		}
	}
	return nil
}

// checkPort looks at the host's settings and at its services.
func (m *Manager) checkPort(port registry.ForwardPort) error {
	if reason := m.Settings.PortRefusal(port.Protocol, port.HostPort); reason != "" {
		return &PortRefused{Port: port, Reason: reason}
	}
	inUse, err := m.Network.PortInUse(port)
	if err != nil {
		return err
	}
	if inUse {
		return &PortRefused{Port: port, Taken: true, Reason: fmt.Sprintf("a program of the host listens there (ss -lnp --%s 'sport = :%d'); take another one", port.Protocol, port.HostPort)}
	}
	return nil
}

// checkPortsEarly is checkPorts before anything is done, so that a deployment
// does not fail at its end. Whether the ports are still free then is looked at
// again by claim.
func (m *Manager) checkPortsEarly(request EnsureRequest, old *registry.Container) error {
	if request.ForwardPorts == nil {
		return nil
	}
	record := &registry.Container{Name: request.Name, ForwardPorts: *request.ForwardPorts}
	var had []registry.ForwardPort
	if old != nil {
		had = old.ForwardPorts
	}
	others, err := m.usable()
	if err != nil {
		return err
	}
	return m.checkPorts(record, had, others)
}

// claim saves a record. Ports that it did not have are claimed: no other
// container can get them at the same moment.
func (m *Manager) claim(ctx context.Context, record, old *registry.Container) error {
	if slices.Equal(record.ForwardPorts, old.ForwardPorts) {
		return m.Registry.Save(record)
	}
	unlock, err := m.lockShared(ctx, "claim ports")
	if err != nil {
		return err
	}
	defer unlock()
	others, err := m.usable()
	if err != nil {
		return err
	}
	if err := m.checkPorts(record, old.ForwardPorts, others); err != nil {
		return err
	}
	return m.Registry.Save(record)
}

// freedPorts is for a container that comes back from an archive: it removes
// those forwarded ports from the record that somebody else has by now, or that
// the settings allow no more, and returns a warning about each.
func (m *Manager) freedPorts(record *registry.Container) (warnings []string, err error) {
	others, err := m.usable()
	if err != nil {
		return nil, err
	}
	warnings = []string{}
	var kept []registry.ForwardPort
	for _, port := range record.ForwardPorts {
		alone := *record
		alone.ForwardPorts = []registry.ForwardPort{port}
		var refused *PortRefused
		switch err := m.checkPorts(&alone, nil, others); {
		case errors.As(err, &refused):
			warnings = append(warnings, fmt.Sprintf("container %s comes back without the forwarded port %s: %s", record.Name, port, refused.Reason))
		case err != nil:
			return nil, err
		default:
			kept = append(kept, port)
		}
	}
	record.ForwardPorts = kept
	return warnings, nil
}

// forwards are the open ports of all containers. Where two records have one
// port, which happens when a change that freed it was taken back, that of the
// older container comes first, and holds.
func forwards(records []*registry.Container) ([]network.Forward, error) {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b *registry.Container) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Name, b.Name))
	})
	var all []network.Forward
	for _, record := range records {
		addresses, err := parseAddress(record.Address)
		if err != nil {
			return nil, fmt.Errorf("the addresses of container %s: %w", record.Name, err)
		}
		for _, port := range record.ForwardPorts {
			all = append(all, network.Forward{Protocol: port.Protocol, HostPort: port.HostPort, GuestPort: port.GuestPort, Addresses: addresses})
		}
	}
	return all, nil
}

// PortInUse implements Network.
func (n *HostNetwork) PortInUse(port registry.ForwardPort) (bool, error) {
	return network.Listens(port.Protocol, port.HostPort)
}

// choose picks the network as the host's settings want it.
func (n *HostNetwork) choose() (network.Host, error) {
	host, err := settings.Load(n.Layout.Settings())
	if err != nil {
		return network.Host{}, err
	}
	wishes, err := Wishes(host.Network)
	if err != nil {
		return network.Host{}, err
	}
	chosen, err := network.ChooseHost(n.Layout.Instance(), wishes)
	if err != nil {
		return network.Host{}, fmt.Errorf("no network can be chosen for the containers: %w", err)
	}
	return chosen, nil
}

// Wishes are what the settings say about the network.
func Wishes(wanted settings.Network) (network.Wishes, error) {
	wishes := network.Wishes{IPv6Routed: wanted.IPv6Routed, NoNAT: !wanted.NAT}
	for _, pool := range []struct {
		key, text string
		into      *netip.Prefix
	}{{"ipv4Pool", wanted.IPv4Pool, &wishes.IPv4}, {"ipv6Pool", wanted.IPv6Pool, &wishes.IPv6}} {
		if pool.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(pool.text)
		if err != nil {
			return wishes, fmt.Errorf("network.%s in the settings of this host: %w", pool.key, err)
		}
		*pool.into = prefix
	}
	if err := wishes.Validate(); err != nil {
		return wishes, fmt.Errorf("network in the settings of this host: %w", err)
	}
	return wishes, nil
}
