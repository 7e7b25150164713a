package container

import (
	"net/netip"
	"strings"
	"testing"

	"devhost/internal/network"
	"devhost/internal/settings"
)

func TestNetworkDiffersFromSettings(t *testing.T) {
	chosen := network.Host{IPv4: netip.MustParsePrefix("10.231.0.0/20"), IPv6: netip.MustParsePrefix("fd00:1::/64")}
	for _, c := range []struct {
		name   string
		host   network.Host
		wanted settings.Network
		keys   []string
	}{
		{"default", chosen, settings.Default().Network, nil},
		{"the same pools", chosen, settings.Network{IPv4Pool: "10.231.0.0/20", IPv6Pool: "fd00:1::/64", NAT: true}, nil},
		{"other pools", chosen, settings.Network{IPv4Pool: "10.9.0.0/20", IPv6Pool: "fd00:2::/64", NAT: true}, []string{"ipv4Pool", "ipv6Pool"}},
		{"no NAT", chosen, settings.Network{}, []string{"nat"}},
		{"routed", chosen, settings.Network{IPv6Pool: "fd00:1::/64", IPv6Routed: true, NAT: true}, []string{"ipv6Routed"}},
		{"no NAT before", network.Host{IPv4: chosen.IPv4, NoNAT: true}, settings.Network{NAT: true}, []string{"nat"}},
		{"a host without IPv6", network.Host{IPv4: chosen.IPv4}, settings.Network{IPv6Pool: "fd00:1::/64", IPv6Routed: true, NAT: true}, nil},
		{"bad settings", chosen, settings.Network{IPv4Pool: "x", NAT: true}, []string{"ipv4Pool"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			troubles := differences(c.host, c.wanted)
			if len(troubles) != len(c.keys) {
				t.Fatalf("found %+v, want %v", troubles, c.keys)
			}
			for i, key := range c.keys {
				if !strings.Contains(troubles[i].What, "network."+key) || troubles[i].Remedy == "" {
					t.Errorf("found %+v, want %s", troubles[i], key)
				}
			}
		})
	}
}
