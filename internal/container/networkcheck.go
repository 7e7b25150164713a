package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Troubles looks at the network of the containers that there are; without one
// there is nothing to look at.
func (n *HostNetwork) Troubles(ctx context.Context) ([]network.Trouble, error) {
	host, err := n.host()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var troubles []network.Trouble
	switch current, err := n.Current(ctx); {
	case err != nil:
		return nil, err
	case !current:
		troubles = append(troubles, network.Trouble{
			What:   "bridge or packet filter of the containers is missing, was changed by somebody, or is older than the settings: they may be cut off, or open to others",
			Remedy: "run: sudo devhost boot; it leaves running containers running",
		})
	}
	wanted, err := settings.Load(n.Layout.Settings())
	if err == nil {
		troubles = append(troubles, differences(host, wanted.Network)...)
	}
	records, err := usableRecords(registry.New(n.Layout))
	if err != nil {
		return troubles, err
	}
	ports, err := n.portTroubles(records)
	return append(troubles, ports...), err
}

// Forwards are the forwarded ports of all containers.
func (n *HostNetwork) Forwards() ([]network.Forward, error) {
	records, err := usableRecords(registry.New(n.Layout))
	if err != nil {
		return nil, err
	}
	return forwards(records)
}

// differences are between the settings and the network that was chosen.
func differences(host network.Host, wanted settings.Network) []network.Trouble {
	wishes, err := Wishes(wanted)
	if err != nil {
		return []network.Trouble{{What: err.Error(), Remedy: "correct the settings, and check them with: devhost host check"}}
	}
	var troubles []network.Trouble
	compare := func(key string, differs bool, want, has any) {
		if differs {
			troubles = append(troubles, network.Trouble{
				What:   fmt.Sprintf("network.%s of the settings is %v, but the containers have %v: the network is chosen with the first container, and kept while there is one", key, want, has),
				Remedy: "undo the change of the settings, or destroy all containers and make them again",
			})
		}
	}
	pool := func(key string, want, has netip.Prefix) {
		compare(key, want.IsValid() && has.IsValid() && want != has, want, has)
	}
	pool("ipv4Pool", wishes.IPv4, host.IPv4)
	pool("ipv6Pool", wishes.IPv6, host.IPv6)
	compare("ipv6Routed", host.IPv6.IsValid() && wishes.IPv6Routed != host.IPv6Routed, wishes.IPv6Routed, host.IPv6Routed)
	compare("nat", wishes.NoNAT != host.NoNAT, !wishes.NoNAT, !host.NoNAT)
	return troubles
}

// portTroubles are forwarded ports that somebody else has too.
func (n *HostNetwork) portTroubles(records []*registry.Container) ([]network.Trouble, error) {
	var troubles []network.Trouble
	owners := map[string]string{}
	for _, record := range records {
		for _, port := range record.ForwardPorts {
			if other := owners[port.Host()]; other != "" {
				troubles = append(troubles, network.Trouble{
					What:   fmt.Sprintf("port %s of this host is to lead to the containers %s and %s; it leads to the older one", port.Host(), other, record.Name),
					Remedy: "give one of them other ports: devhost ensure NAME --forward-port HOST:GUEST",
				})
				continue
			}
			owners[port.Host()] = record.Name
			listens, err := n.PortInUse(port)
			if err != nil {
				return troubles, err
			}
			if listens {
				troubles = append(troubles, network.Trouble{
					What:   fmt.Sprintf("a program of the host listens at port %s, which leads to container %s: it hears nothing from outside", port.Host(), record.Name),
					Remedy: fmt.Sprintf("give one of them another port; which program it is says: ss -lnp --%s 'sport = :%d'", port.Protocol, port.HostPort),
				})
			}
		}
	}
	return troubles, nil
}
