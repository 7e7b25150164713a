package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testHost is a network as ChooseHost makes them, without the chance.
func testHost() Host {
	return Host{
		Instance: "1a2b3c4d", Bridge: "dh-1a2b3c4d", Table: "devhost-1a2b3c4d",
		IPv4: netip.MustParsePrefix("10.231.32.0/20"), IPv6: netip.MustParsePrefix("fd12:3456:789a::/64"),
	}
}

var compareAddresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestAllocate(t *testing.T) {
	host := testHost()
	allocate := func(t *testing.T, used []Addresses, name string) Addresses {
		t.Helper()
		addresses, err := Allocate(host, used, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := addresses.validate(host); err != nil {
			t.Errorf("it does not accept its own choice: %v", err)
		}
		return addresses
	}
	first := allocate(t, nil, "demo")

	t.Run("the same name gets the same", func(t *testing.T) {
		if diff := cmp.Diff(first, allocate(t, nil, "demo"), compareAddresses); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a taken one is not used", func(t *testing.T) {
		second := allocate(t, []Addresses{first}, "demo")
		if second.IPv4 == first.IPv4 || second.IPv6 == first.IPv6 || second.MAC == first.MAC || second.HostInterface == first.HostInterface {
			t.Errorf("%+v and %+v", first, second)
		}
	})
	t.Run("another instance", func(t *testing.T) {
		other := host
		other.Instance, other.Bridge, other.Table = "deadbeef", "dh-deadbeef", "devhost-deadbeef"
		addresses, err := Allocate(other, nil, "demo")
		if err != nil {
			t.Fatal(err)
		}
		if addresses.HostInterface == first.HostInterface || addresses.MAC == first.MAC || strings.HasPrefix(addresses.HostInterface, host.portPrefix()) {
			t.Errorf("%+v and %+v", first, addresses)
		}
	})
	t.Run("without IPv6", func(t *testing.T) {
		plain := host
		plain.IPv6 = netip.Prefix{}
		addresses, err := Allocate(plain, nil, "demo")
		if err != nil || addresses.IPv6.IsValid() || addresses.IPv4 != first.IPv4 {
			t.Errorf("%+v, %v", addresses, err)
		}
	})
	t.Run("until the pool is full", func(t *testing.T) {
		small := host
		small.IPv4 = netip.MustParsePrefix("10.231.32.0/28")
		var used []Addresses
		seen := map[string]bool{small.Gateway4().String(): true, "10.231.32.0": true, "10.231.32.15": true}
		for i := range 13 {
			addresses, err := Allocate(small, used, fmt.Sprintf("c%d", i))
			if err != nil {
				t.Fatalf("container %d: %v", i, err)
			}
			for _, value := range []string{addresses.IPv4.String(), addresses.IPv6.String(), addresses.MAC, addresses.HostInterface} {
				if seen[value] {
					t.Errorf("container %d gets %s, which is taken", i, value)
				}
				seen[value] = true
			}
			used = append(used, addresses)
		}
		_, err := Allocate(small, used, "one-more")
		var full *PoolFull
		if !errors.As(err, &full) || full.Used != 13 {
			t.Errorf("error = %v, want *PoolFull", err)
		}
		if _, err := Allocate(small, used[1:], "one-more"); err != nil {
			t.Errorf("with one freed: %v", err)
		}
	})
	t.Run("shape", func(t *testing.T) {
		mac, err := net.ParseMAC(first.MAC)
		if err != nil || mac[0]&0b11 != 0b10 {
			t.Errorf("MAC address %s is not locally administered and unicast", first.MAC)
		}
		if len(first.HostInterface) > maxInterfaceName || !strings.HasPrefix(first.HostInterface, "vd-") {
			t.Errorf("interface name %q", first.HostInterface)
		}
	})
}

func TestValidateAddresses(t *testing.T) {
	host := testHost()
	good, err := Allocate(host, nil, "demo")
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		change func(*Addresses)
	}{
		{"the gateway's IPv4", func(a *Addresses) { a.IPv4 = host.Gateway4() }},
		{"the gateway's IPv6", func(a *Addresses) { a.IPv6 = host.Gateway6() }},
		{"a foreign IPv4", func(a *Addresses) { a.IPv4 = netip.MustParseAddr("192.0.2.1") }},
		{"a foreign IPv6", func(a *Addresses) { a.IPv6 = netip.MustParseAddr("2001:db8::1") }},
		{"no IPv4", func(a *Addresses) { a.IPv4 = netip.Addr{} }},
		{"families exchanged", func(a *Addresses) { a.IPv4, a.IPv6 = a.IPv6, a.IPv4 }},
		{"no MAC", func(a *Addresses) { a.MAC = "" }},
		{"a multicast MAC", func(a *Addresses) { a.MAC = "01:00:5e:00:00:01" }},
		{"an InfiniBand MAC", func(a *Addresses) { a.MAC = "02:00:5e:10:00:00:00:01" }},
		{"the host's uplink", func(a *Addresses) { a.HostInterface = "eth0" }},
		{"a long interface name", func(a *Addresses) { a.HostInterface += "x" }},
		{"a path as an interface name", func(a *Addresses) { a.HostInterface = host.portPrefix() + "/../.." }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			if err := bad.validate(host); err == nil {
				t.Errorf("accepted: %+v", bad)
			}
		})
	}
}

func TestValidateHost(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Host)
	}{
		{"no instance", func(h *Host) { h.Instance, h.Bridge, h.Table = "", "dh-", "devhost-" }},
		{"an instance with a slash", func(h *Host) { h.Instance, h.Bridge, h.Table = "a/b/", "dh-a/b/", "devhost-a/b/" }},
		{"a foreign bridge", func(h *Host) { h.Bridge = "docker0" }},
		{"a foreign table", func(h *Host) { h.Table = "firewalld" }},
		{"no IPv4", func(h *Host) { h.IPv4 = netip.Prefix{} }},
		{"too small", func(h *Host) { h.IPv4 = netip.MustParsePrefix("10.0.0.0/30") }},
		{"not masked", func(h *Host) { h.IPv4 = netip.MustParsePrefix("10.0.0.1/20") }},
		{"IPv6 for IPv4", func(h *Host) { h.IPv4 = h.IPv6 }},
		{"IPv4 for IPv6", func(h *Host) { h.IPv6 = h.IPv4 }},
	}
	if err := testHost().validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			host := testHost()
			c.change(&host)
			if _, err := New(host, filepath.Join(t.TempDir(), "lock")); err == nil {
				t.Errorf("accepted: %+v", host)
			}
			if _, err := Allocate(host, nil, "demo"); err == nil {
				t.Errorf("allocated from: %+v", host)
			}
		})
	}
}

func TestHostAsJSON(t *testing.T) {
	plain := testHost()
	plain.IPv6 = netip.Prefix{}
	for name, host := range map[string]Host{"both families": testHost(), "IPv4 only": plain} {
		t.Run(name, func(t *testing.T) {
			data, err := json.Marshal(host)
			if err != nil {
				t.Fatal(err)
			}
			var back Host
			if err := json.Unmarshal(data, &back); err != nil {
				t.Fatal(err)
			}
			if back != host {
				t.Errorf("%+v became %s and %+v", host, data, back)
			}
		})
	}
}

func TestFreePool(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		var prefixes []netip.Prefix
		for _, text := range texts {
			prefixes = append(prefixes, netip.MustParsePrefix(text))
		}
		return prefixes
	}
	cases := []struct {
		name   string
		taken  []netip.Prefix
		within string // "" when there is none
	}{
		{"nothing taken", nil, "10.231.0.0/16"},
		{"others taken", prefixes("10.0.0.0/16", "192.168.0.0/16", "172.17.0.0/16"), "10.231.0.0/16"},
		{"an address in each but one", prefixes(
			"10.231.0.1/32", "10.231.16.1/32", "10.231.32.1/32", "10.231.48.1/32", "10.231.64.1/32", "10.231.80.1/32", "10.231.96.1/32", "10.231.112.1/32",
			"10.231.128.1/32", "10.231.144.1/32", "10.231.160.1/32", "10.231.176.1/32", "10.231.192.1/32", "10.231.208.1/32", "10.231.240.1/32"), "10.231.224.0/20"},
		{"the first range taken", prefixes("10.231.0.0/16"), "10.224.0.0/12"},
		{"a VPN with all of 10", prefixes("10.0.0.0/8"), "172.28.0.0/14"},
		{"all private", prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"), "198.18.0.0/15"},
		{"nothing free", prefixes("10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15"), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pool, err := freePool("1a2b3c4d", c.taken)
			if c.within == "" {
				if err == nil {
					t.Errorf("chose %s", pool)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			within := netip.MustParsePrefix(c.within)
			if !within.Overlaps(pool) || pool.Bits() != poolBits4 || within.Bits() > pool.Bits() || pool != pool.Masked() {
				t.Errorf("chose %s, want a /%d within %s", pool, poolBits4, within)
			}
			if overlap := overlapping(pool, c.taken); overlap != nil {
				t.Errorf("chose %s, which overlaps %s", pool, overlap)
			}
		})
	}
	if a, _ := freePool("00000000", nil); a == mustPool(t, "1a2b3c4d") {
		t.Error("two instances prefer the same range")
	}
}

func mustPool(t *testing.T, instance string) netip.Prefix {
	t.Helper()
	pool, err := freePool(instance, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func TestChooseHost(t *testing.T) {
	for _, bad := range []string{"", "abc", "ABCDEF12", "1a2b3c4d5e6f7", "1a2b/c4d", "1a2b3c4d\n"} {
		if _, err := ChooseHost(bad, Wishes{}); err == nil {
			t.Errorf("instance %q is accepted", bad)
		}
	}
	l := newLab(t)
	// In the lab, nothing is taken that it would want; now the preferred range
	// is, by a route in another table.
	preferred := l.config.IPv4
	l.host.do(func() { l.host.route(preferred.String(), 1000) })
	l.choose("1a2b3c4d")
	if l.config.IPv4.Overlaps(preferred) {
		t.Errorf("chose %s in spite of the route", l.config.IPv4)
	}
	if !netip.MustParsePrefix("fd00::/8").Contains(l.config.IPv6.Addr()) || l.config.IPv6.Bits() != 64 {
		t.Errorf("IPv6 %s is no unique local /64", l.config.IPv6)
	}
	// Halves of a default route, as VPNs make them, take nothing.
	l.host.do(func() {
		l.host.route("0.0.0.0/1", 254)
		l.host.route("128.0.0.0/1", 254)
	})
	l.choose("1a2b3c4d")
}

func TestGuestNetworkFile(t *testing.T) {
	addresses := Addresses{
		IPv4: netip.MustParseAddr("10.231.42.48"), IPv6: netip.MustParseAddr("fd12:3456:789a::a30"),
		MAC: "02:fe:77:28:ed:50", HostInterface: "vd-bic5spfxxrme",
	}
	plainHost, plain := testHost(), addresses
	plainHost.IPv6, plain.IPv6 = netip.Prefix{}, netip.Addr{}
	for name, file := range map[string]string{
		"guest.network":      GuestNetworkFile(testHost(), addresses),
		"guest-ipv4.network": GuestNetworkFile(plainHost, plain),
	} {
		t.Run(name, func(t *testing.T) {
			golden, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), file); diff != "" {
				t.Errorf("-testdata/%s +made:\n%s", name, diff)
			}
		})
	}
}

func TestHostsFile(t *testing.T) {
	entries := []HostEntry{
		{Name: "web", IPv4: netip.MustParseAddr("10.231.0.3"), IPv6: netip.MustParseAddr("fd00::3")},
		{Name: "db", IPv4: netip.MustParseAddr("10.231.0.2")},
		{Name: "v6", IPv6: netip.MustParseAddr("fd00::4")},
	}
	want := "# Written by devhost; changes are lost.\n10.231.0.2 db\nfd00::4 v6\n10.231.0.3 web\nfd00::3 web\n"
	if diff := cmp.Diff(want, HostsFile(entries)); diff != "" {
		t.Error(diff)
	}
}
