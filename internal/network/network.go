// Package network is the network of the containers of one state folder: a
// bridge with an IPv4 and an IPv6 gateway address, addresses for containers,
// one packet filter, and the names under which containers are found.
//
// The policy: a container reaches the outside through NAT;
// it is reached only from the host itself and from containers of its group; it
// reaches no service of the host, no metadata service of a cloud, and sends
// from its own addresses only. How it is enforced:
//
//   - Ports of the bridge are isolated: no frame passes from one container to
//     another. A container has host routes (/32, /128) and sends everything to
//     the gateway, so what containers say to each other is routed, and passes
//     the same stateful filter as everything else.
//   - nftables table "bridge devhost-<instance>" looks at every frame that
//     enters by a port: interface, MAC and IP address must belong together, in
//     ARP and neighbour discovery too.
//   - nftables table "inet devhost-<instance>" holds the rules for routed
//     traffic and for Nix' builders, and NAT.
//
// All of it is done with netlink and /proc/sys; no program is started, and
// nothing that belongs to somebody else is changed, with one exception: IP
// forwarding is turned on, and stays on.
package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is the network of one state folder on this machine. It is chosen once
// (ChooseHost), recorded by the caller, and the same from then on.
type Host struct {
	// Instance is the short hexadecimal id of the state folder.
	Instance string `json:"instance"`
	// Bridge is the name of the bridge, dh-<instance>.
	Bridge string `json:"bridge"`
	// Table is the name of the nftables tables, devhost-<instance>.
	Table string `json:"table"`
	// IPv4 is the pool of addresses; the first host address is the gateway.
	IPv4 netip.Prefix `json:"ipv4"`
	// IPv6 is the pool of addresses; the first one after the network's is the
	// gateway. It is the zero Prefix on a kernel without IPv6.
	IPv6 netip.Prefix `json:"ipv6,omitzero"`
	// IPv6Routed says that others route the IPv6 pool to this host: containers
	// are seen outside by their own addresses.
	IPv6Routed bool `json:"ipv6Routed,omitempty"`
	// NoNAT says that what containers send to the outside keeps its source
	// address, and that somebody else sees to the way back.
	NoNAT bool `json:"noNAT,omitempty"`
	// Builders are those of this machine that are to be restricted. They are
	// looked up each time, and not recorded.
	Builders Builders `json:"-"`
}

// Wishes are what a host's admin wants of a network that is chosen.
type Wishes struct {
	// IPv4 and IPv6 are the pools, the zero Prefix for any that is free.
	IPv4, IPv6 netip.Prefix
	// IPv6Routed and NoNAT are those of Host. A routed pool must be given.
	IPv6Routed, NoNAT bool
}

// translated are the pools whose addresses mean nothing outside.
func (h Host) translated() []netip.Prefix {
	switch {
	case h.NoNAT:
		return nil
	case h.IPv6Routed || !h.IPv6.IsValid():
		return []netip.Prefix{h.IPv4}
	}
	return []netip.Prefix{h.IPv4, h.IPv6}
}

// Gateway4 is the bridge's IPv4 address.
func (h Host) Gateway4() netip.Addr { return h.IPv4.Masked().Addr().Next() }

// Gateway6 is the bridge's IPv6 address, the zero Addr without IPv6.
func (h Host) Gateway6() netip.Addr {
	if !h.IPv6.IsValid() {
		return netip.Addr{}
	}
	return h.IPv6.Masked().Addr().Next()
}

// portPrefix begins the names of the bridge's ports: vd- and four characters
// for the instance. The packet filter relies on it: what such an interface
// sends is refused unless it is known.
func (h Host) portPrefix() string { return "vd-" + digest(h.Instance)[:portTagLength] }

const portTagLength = 4

// digest is a hash of the parts in lower-case base32, which packs more into an
// interface's name (15 characters) than hexadecimal digits do.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}

// Error says what failed on which part of the network, and what to do.
type Error struct {
	// Action is what was tried: "make the bridge".
	Action string
	// Thing is what it was tried on: an interface, a table, a file.
	Thing string
	// Remedy is what a person can do, "" when the cause says it all.
	Remedy string
	Err    error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("cannot %s %s: %v", e.Action, e.Thing, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// explain gives an error of the kernel the remedy that is known for it.
func explain(action, thing string, err error) error {
	if err == nil {
		return nil
	}
	explained := &Error{Action: action, Thing: thing, Err: err}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		explained.Remedy = "this needs root: run it with sudo"
	case errors.Is(err, unix.EROFS):
		explained.Remedy = "the file system is read-only: inside a container, it must be one with its own writable /proc/sys (privileged)"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT):
		explained.Remedy = "the kernel lacks a part of it: devhost needs bridge, veth and nftables (nf_tables, nft_ct, nft_fib_inet, nft_masq, nft_reject_inet)"
	}
	return explained
}

var (
	// pools4 are the ranges out of which ChooseHost takes a /20, in the order
	// in which it tries them: all of 10.224.0.0/12, starting with 10.231; then,
	// where a VPN has all of 10.0.0.0/8, the private range least used by
	// container engines; then the range for benchmarks (RFC 2544).
	pools4 = []netip.Prefix{
		netip.MustParsePrefix("10.231.0.0/16"),
		netip.MustParsePrefix("10.224.0.0/12"),
		netip.MustParsePrefix("172.28.0.0/14"),
		netip.MustParsePrefix("198.18.0.0/15"),
	}
	instanceID = regexp.MustCompile(`\A[0-9a-f]{4,12}\z`)
)

const (
	poolBits4 = 20 // 4093 containers
	poolBits6 = 64
)

// ChooseHost picks a network for a new state folder: the pools of the wishes;
// else a /20 that overlaps no route and no address of this host, out of
// 10.231.0.0/16 if possible (else 10.224.0.0/12, 172.28.0.0/14, 198.18.0.0/15),
// and a random unique local IPv6 /64 (RFC 4193). The caller records it and
// passes it from then on. instance is 4 to 12 lower-case hexadecimal digits.
// The error is *Overlap where a wished pool is in use, *BadPool where it can be
// none.
func ChooseHost(instance string, wishes Wishes) (Host, error) {
	if !instanceID.MatchString(instance) {
		return Host{}, fmt.Errorf("instance id %q is not 4 to 12 lower-case hexadecimal digits", instance)
	}
	if err := wishes.Validate(); err != nil {
		return Host{}, err
	}
	taken, err := takenPrefixes("")
	if err != nil {
		return Host{}, err
	}
	host := Host{
		Instance: instance, Bridge: "dh-" + instance, Table: "devhost-" + instance,
		IPv4: wishes.IPv4.Masked(), NoNAT: wishes.NoNAT,
	}
	if !wishes.IPv4.IsValid() {
		if host.IPv4, err = freePool(instance, taken); err != nil {
			return Host{}, err
		}
	}
	if kernelHasIPv6() {
		host.IPv6, host.IPv6Routed = wishes.IPv6.Masked(), wishes.IPv6Routed
		if !wishes.IPv6.IsValid() {
			host.IPv6 = randomLocalPrefix(taken)
		}
	}
	return host, host.overlap(taken)
}

// BadPool says that a pool cannot be one for containers.
type BadPool struct {
	Pool   netip.Prefix
	Reason string
}

func (b *BadPool) Error() string {
	return fmt.Sprintf("containers cannot have addresses of %s: %s", b.Pool, b.Reason)
}

// Validate checks what can be checked without looking at the host. The error is
// *BadPool.
func (w Wishes) Validate() error {
	for _, pool := range []struct {
		prefix            netip.Prefix
		longest, shortest int
		is4               bool
	}{{w.IPv4, longestPool4, 8, true}, {w.IPv6, longestPool6, 32, false}} {
		prefix, reason := pool.prefix, ""
		switch {
		case !prefix.IsValid():
			continue
		case prefix.Addr().Is4() != pool.is4 || prefix.Addr().Is4In6():
			reason = "it is of the other family"
		case prefix.Bits() > pool.longest || prefix.Bits() < pool.shortest:
			reason = fmt.Sprintf("its length must be /%d to /%d", pool.shortest, pool.longest)
		case prefix != prefix.Masked():
			reason = fmt.Sprintf("it is an address in a network; the network is %s", prefix.Masked())
		case prefix.Addr().IsMulticast(), prefix.Addr().IsLoopback(), prefix.Addr().IsLinkLocalUnicast(), prefix.Addr().IsUnspecified():
			reason = "it is a range with a meaning of its own"
		default:
			continue
		}
		return &BadPool{Pool: prefix, Reason: reason}
	}
	if w.IPv6Routed && !w.IPv6.IsValid() {
		return errors.New("a routed IPv6 network must be given: which prefix is routed to this host?")
	}
	return nil
}

// The longest prefixes of pools: five containers, and as many as in IPv4.
const longestPool4, longestPool6 = 29, 112

// freePool is the first /20 that overlaps nothing taken. The search starts at
// a place that depends on the instance, so that two state folders that choose
// at the same moment hardly choose the same.
func freePool(instance string, taken []netip.Prefix) (netip.Prefix, error) {
	sum := sha256.Sum256([]byte(instance))
	start := binary.BigEndian.Uint32(sum[:4])
	for _, pool := range pools4 {
		base := binary.BigEndian.Uint32(pool.Addr().AsSlice())
		count := uint32(1) << (poolBits4 - pool.Bits())
		for i := range count {
			var address [4]byte
			binary.BigEndian.PutUint32(address[:], base+(start+i)%count<<(32-poolBits4))
			candidate := netip.PrefixFrom(netip.AddrFrom4(address), poolBits4)
			if overlapping(candidate, taken) == nil {
				return candidate, nil
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free range of IPv4 addresses for containers: routes or addresses of this host overlap every /%d of %v; ip route shows them", poolBits4, pools4)
}

func overlapping(candidate netip.Prefix, taken []netip.Prefix) *netip.Prefix {
	for i := range taken {
		if candidate.Overlaps(taken[i]) {
			return &taken[i]
		}
	}
	return nil
}

func randomLocalPrefix(taken []netip.Prefix) netip.Prefix {
	for {
		address := [16]byte{0: 0xfd}
		// rand.Read never fails (Go 1.24). The subnet id, bytes 6 and 7, is 0.
		_, _ = rand.Read(address[1:6])
		candidate := netip.PrefixFrom(netip.AddrFrom16(address), poolBits6)
		if overlapping(candidate, taken) == nil {
			return candidate
		}
	}
}

// takenPrefixes are the destinations of all routes, in all tables, and the
// networks of all addresses of this host, without those of the interface
// except. Default routes, also halves of them as VPNs make them, take nothing.
func takenPrefixes(except string) ([]netip.Prefix, error) {
	const shortest = 8 // 10.0.0.0/8 is a network, 0.0.0.0/1 is half of a default route
	exceptIndex := -1
	if link, err := netlink.LinkByName(except); err == nil {
		exceptIndex = link.Attrs().Index
	}
	var taken []netip.Prefix
	add := func(prefix netip.Prefix, index int) {
		if index != exceptIndex && prefix.Bits() >= shortest && !prefix.Addr().IsMulticast() && !prefix.Addr().IsLinkLocalUnicast() {
			taken = append(taken, prefix.Masked())
		}
	}
	routes, err := retryDump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, explain("list", "the routes of this host", err)
	}
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if prefix, ok := prefixOf(route.Dst.IP, route.Dst.Mask); ok {
			add(prefix, route.LinkIndex)
		}
	}
	addresses, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, explain("list", "the addresses of this host", err)
	}
	for _, address := range addresses {
		if prefix, ok := prefixOf(address.IP, address.Mask); ok {
			add(prefix, address.LinkIndex)
		}
	}
	return taken, nil
}

// retryDump lists again when the list changed while the kernel made it.
func retryDump[T any](list func() ([]T, error)) ([]T, error) {
	const (
		attempts = 100
		pause    = 5 * time.Millisecond
	)
	var found []T
	var err error
	for range attempts {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
		time.Sleep(pause)
	}
	return found, err
}

func prefixOf(ip, mask []byte) (netip.Prefix, bool) {
	address, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(address.Unmap(), bits), true
}

func kernelHasIPv6() bool {
	_, err := os.Stat(sysctlRoot + "/ipv6/conf/all/forwarding")
	return err == nil
}

// validate refuses what ChooseHost cannot have made: the record lies in a file
// that may be damaged.
func (h Host) validate() error {
	switch {
	case !instanceID.MatchString(h.Instance), h.Bridge != "dh-"+h.Instance, h.Table != "devhost-"+h.Instance:
		return fmt.Errorf("the recorded network is damaged: instance %q, bridge %q and table %q do not belong together", h.Instance, h.Bridge, h.Table)
	case !h.IPv4.IsValid(), !h.IPv4.Addr().Is4(), h.IPv4.Bits() > longestPool4, h.IPv4 != h.IPv4.Masked():
		return fmt.Errorf("the recorded network is damaged: %q is no range of IPv4 addresses", h.IPv4)
	case h.IPv6.IsValid() && (!h.IPv6.Addr().Is6() || h.IPv6.Bits() > longestPool6 || h.IPv6 != h.IPv6.Masked()):
		return fmt.Errorf("the recorded network is damaged: %q is no range of IPv6 addresses", h.IPv6)
	}
	return nil
}
