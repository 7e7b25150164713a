package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// guestInterface is the container's end of its cable.
const guestInterface = "host0"

// GuestNetworkFile is a file for systemd-networkd inside the container, in the
// format of systemd.network(5) as versions 247 to 257 read it. The addresses
// are host routes: all traffic goes to the gateway, which filters it.
func GuestNetworkFile(host Host, addresses Addresses) string {
	var file strings.Builder
	fmt.Fprintf(&file, `# Written by devhost when the container starts; changes are lost.
[Match]
Name=%s

[Link]
MACAddress=%s
# The addresses below need no wait: the network is online as soon as the cable
# is connected. With "no", systemd-networkd-wait-online would wait in vain.
RequiredForOnline=yes

[Network]
DHCP=no
LinkLocalAddressing=no
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
LLMNR=no
MulticastDNS=no
LLDP=no
EmitLLDP=no
`, guestInterface, addresses.MAC)
	gateways := map[bool]netip.Addr{true: host.Gateway4(), false: host.Gateway6()}
	for _, address := range addresses.all() {
		fmt.Fprintf(&file, `
[Address]
Address=%s/%d
DuplicateAddressDetection=none

[Route]
Gateway=%s
GatewayOnLink=yes
`, address, address.BitLen(), gateways[address.Is4()])
	}
	return file.String()
}

// HostEntry is a name and its addresses; one of the addresses may be missing.
type HostEntry struct {
	Name string
	IPv4 netip.Addr
	IPv6 netip.Addr
}

// hostLines are the entries in the format of hosts(5), by name, each with suffix.
func hostLines(entries []HostEntry, suffix string) string {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b HostEntry) int { return strings.Compare(a.Name, b.Name) })
	var lines strings.Builder
	for _, entry := range sorted {
		for _, address := range []netip.Addr{entry.IPv4, entry.IPv6} {
			if address.IsValid() {
				fmt.Fprintf(&lines, "%s %s%s\n", address, entry.Name, suffix)
			}
		}
	}
	return lines.String()
}

// HostsFile is the part of a container's hosts(5) that the host knows: its own
// name and those of the containers that it may reach. It has no line for
// localhost.
func HostsFile(entries []HostEntry) string {
	return "# Written by devhost; changes are lost.\n" + hostLines(entries, "")
}
