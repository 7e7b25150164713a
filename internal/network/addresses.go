package network

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Addresses are how one container is reached.
type Addresses struct {
	IPv4 netip.Addr `json:"ipv4"`
	// IPv6 is the zero Addr when the network has no IPv6.
	IPv6 netip.Addr `json:"ipv6,omitzero"`
	// MAC is the address of the container's interface, as 02:00:5e:10:00:01.
	MAC string `json:"mac"`
	// HostInterface is the host's end of the container's virtual cable; nspawn
	// makes it: --network-veth-extra=<HostInterface>:host0.
	HostInterface string `json:"hostInterface"`
}

// PoolFull says that no address is left.
type PoolFull struct {
	Pool netip.Prefix
	Used int
}

func (p *PoolFull) Error() string {
	return fmt.Sprintf("no IPv4 address is left for another container: %d of %s are in use; remove containers that nobody needs (devhost list, devhost destroy NAME)", p.Used, p.Pool)
}

// Allocate picks addresses for the container name. They depend on the name, so
// that a container that is made again gets its old ones if they are free, and
// meet none of used. The error is *PoolFull.
func Allocate(host Host, used []Addresses, name string) (Addresses, error) {
	if err := host.validate(); err != nil {
		return Addresses{}, err
	}
	taken := make(map[string]bool, 4*len(used))
	for _, other := range used {
		taken[other.IPv4.String()] = true
		taken[other.IPv6.String()] = true
		taken[other.MAC] = true
		taken[other.HostInterface] = true
	}
	var found Addresses

	// Offset 0 is the network, 1 the gateway, the last one the broadcast
	// address.
	sum := sha256.Sum256([]byte(host.Instance + "\x00" + name))
	size := uint32(1) << (32 - host.IPv4.Bits())
	count := size - 3
	start := binary.BigEndian.Uint32(sum[:4])
	for i := range count {
		offset := 2 + (start%count+i)%count
		ipv4 := at(host.IPv4, offset)
		// The same number in both families: easier for people, and free in
		// both or in none.
		ipv6 := at(host.IPv6, offset)
		if !taken[ipv4.String()] && (!ipv6.IsValid() || !taken[ipv6.String()]) {
			found.IPv4, found.IPv6 = ipv4, ipv6
			break
		}
	}
	if !found.IPv4.IsValid() {
		return Addresses{}, &PoolFull{Pool: host.IPv4, Used: len(used)}
	}

	for attempt := 0; ; attempt++ {
		tag := digest(host.Instance, name, strconv.Itoa(attempt))
		found.HostInterface = host.portPrefix() + tag[:maxInterfaceName-len(host.portPrefix())]
		sum := sha256.Sum256([]byte(tag))
		// 02: locally administered, unicast (IEEE 802).
		found.MAC = net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
		if !taken[found.HostInterface] && !taken[found.MAC] {
			return found, nil
		}
	}
}

// maxInterfaceName is the length of the longest name of an interface.
const maxInterfaceName = 15

// at is an address of a pool by its number, the zero Addr without a pool.
func at(pool netip.Prefix, offset uint32) netip.Addr {
	if !pool.IsValid() {
		return netip.Addr{}
	}
	bytes := pool.Masked().Addr().AsSlice()
	last := bytes[len(bytes)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+offset)
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

// validate refuses addresses that are not of this network. They come from a
// state file, and end as an interface's name and in the packet filter.
func (a Addresses) validate(host Host) error {
	mac, err := net.ParseMAC(a.MAC)
	switch {
	case err != nil || len(mac) != 6 || mac[0]&1 != 0:
		return fmt.Errorf("MAC address %q is not one of a network interface", a.MAC)
	case !a.IPv4.Is4() || !host.IPv4.Contains(a.IPv4) || a.IPv4 == host.Gateway4():
		return fmt.Errorf("IPv4 address %s is not one for containers in %s", a.IPv4, host.IPv4)
	case a.IPv6.IsValid() && (!host.IPv6.IsValid() || !host.IPv6.Contains(a.IPv6) || a.IPv6 == host.Gateway6()):
		return fmt.Errorf("IPv6 address %s is not one for containers in %s", a.IPv6, host.IPv6)
	case !strings.HasPrefix(a.HostInterface, host.portPrefix()) || len(a.HostInterface) > maxInterfaceName || strings.ContainsAny(a.HostInterface, "/ \n:"):
		return fmt.Errorf("interface name %q does not begin with %s, or is too long", a.HostInterface, host.portPrefix())
	}
	return nil
}

func (a Addresses) hardware() net.HardwareAddr {
	mac, _ := net.ParseMAC(a.MAC)
	return mac
}

// all are the valid IP addresses.
func (a Addresses) all() []netip.Addr {
	if a.IPv6.IsValid() {
		return []netip.Addr{a.IPv4, a.IPv6}
	}
	return []netip.Addr{a.IPv4}
}
