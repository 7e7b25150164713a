package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Overlap says that the network of the containers is in use for something else
// by now, a VPN for example.
type Overlap struct {
	Pool netip.Prefix
	With netip.Prefix
}

func (o *Overlap) Error() string {
	return fmt.Sprintf("the containers' network %s overlaps %s, which this host has a route or an address for; remove that route (ip route), or move the containers to another state folder", o.Pool, o.With)
}

// bridgeMAC is the bridge's own MAC address. Without one, a bridge takes the
// lowest of its ports' addresses, and containers lose their gateway for a while
// whenever that changes.
func (h Host) bridgeMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte(h.Bridge))
	return append(net.HardwareAddr{0x02}, sum[:5]...) // locally administered
}

// bridgeAttributes are the settings that differ from what a bridge has when it
// is made, by attribute number (linux/if_link.h).
func bridgeAttributes() map[uint16][]byte {
	return map[uint16][]byte{
		// No spanning tree: containers make no loops, and ports work at once.
		nl.IFLA_BR_STP_STATE:     nl.Uint32Attr(0),
		nl.IFLA_BR_FORWARD_DELAY: nl.Uint32Attr(0),
		// With snooping, neighbour discovery depends on who listens to what.
		nl.IFLA_BR_MCAST_SNOOPING: {0},
	}
}

// bridgeState is what there is of the bridge.
type bridgeState struct {
	index      int
	up         bool
	isBridge   bool
	mac        net.HardwareAddr
	attributes map[uint16][]byte
}

// state reads the bridge; index is 0 when there is none. The library does not
// read what is compared here, so the message is taken apart by hand.
func (h Host) state() (bridgeState, error) {
	var state bridgeState
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(h.Bridge)))
	messages, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) {
		return state, nil
	}
	if err != nil {
		return state, explain("look at", "bridge "+h.Bridge, err)
	}
	if len(messages) != 1 {
		return state, explain("look at", "bridge "+h.Bridge, fmt.Errorf("the kernel gave %d answers", len(messages)))
	}
	message := nl.DeserializeIfInfomsg(messages[0])
	state.index, state.up = int(message.Index), message.Flags&unix.IFF_UP != 0
	attributes, err := nl.ParseRouteAttrAsMap(messages[0][message.Len():])
	if err != nil {
		return state, explain("look at", "bridge "+h.Bridge, err)
	}
	state.mac = attributes[unix.IFLA_ADDRESS].Value
	information, err := nl.ParseRouteAttrAsMap(attributes[unix.IFLA_LINKINFO].Value)
	if err != nil {
		return state, explain("look at", "bridge "+h.Bridge, err)
	}
	state.isBridge = unix.ByteSliceToString(information[nl.IFLA_INFO_KIND].Value) == "bridge"
	settings, err := nl.ParseRouteAttrAsMap(information[nl.IFLA_INFO_DATA].Value)
	if err != nil {
		return state, explain("look at", "bridge "+h.Bridge, err)
	}
	state.attributes = make(map[uint16][]byte, len(settings))
	for kind, attribute := range settings {
		state.attributes[kind] = attribute.Value
	}
	return state, nil
}

// linkCurrent says whether the bridge is as it shall be, apart from addresses.
func (h Host) linkCurrent(state bridgeState) bool {
	if state.index == 0 || !state.isBridge || !state.up || !bytes.Equal(state.mac, h.bridgeMAC()) {
		return false
	}
	return attributesCurrent(state)
}

func attributesCurrent(state bridgeState) bool {
	for kind, value := range bridgeAttributes() {
		if !bytes.Equal(state.attributes[kind], value) {
			return false
		}
	}
	return true
}

// gateways are the bridge's addresses with the lengths of the pools.
func (h Host) gateways() []netip.Prefix {
	gateways := []netip.Prefix{netip.PrefixFrom(h.Gateway4(), h.IPv4.Bits())}
	if h.IPv6.IsValid() {
		gateways = append(gateways, netip.PrefixFrom(h.Gateway6(), h.IPv6.Bits()))
	}
	return gateways
}

// missingGateways are those that the bridge does not have. An address that is
// still being checked for duplicates counts as missing.
func (h Host) missingGateways(index int) ([]netip.Prefix, error) {
	addresses, err := retryDump(func() ([]netlink.Addr, error) {
		return netlink.AddrList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}, netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, explain("list the addresses of", "bridge "+h.Bridge, err)
	}
	there := map[netip.Prefix]bool{}
	for _, address := range addresses {
		if prefix, ok := prefixOf(address.IP, address.Mask); ok && address.Flags&unix.IFA_F_TENTATIVE == 0 {
			there[prefix] = true
		}
	}
	var missing []netip.Prefix
	for _, gateway := range h.gateways() {
		if !there[gateway] {
			missing = append(missing, gateway)
		}
	}
	return missing, nil
}

// current says whether the bridge, its addresses and the kernel's settings are
// as they shall be.
func (h Host) bridgeCurrent() (bool, error) {
	state, err := h.state()
	if err != nil || !h.linkCurrent(state) || !h.sysctlsCurrent() {
		return false, err
	}
	missing, err := h.missingGateways(state.index)
	return err == nil && len(missing) == 0, err
}

// ensureBridge makes the bridge, or what is missing of it.
func (h Host) ensureBridge() error {
	what := "bridge " + h.Bridge
	state, err := h.state()
	if err != nil {
		return err
	}
	if state.index != 0 && !state.isBridge {
		return &Error{Action: "make", Thing: what, Err: unix.EEXIST, Remedy: "an interface of that name is there and is no bridge; remove it with: ip link delete " + h.Bridge}
	}
	if state.index == 0 {
		if err := h.checkOverlap(); err != nil {
			return err
		}
	}
	if state.index == 0 || !attributesCurrent(state) || !bytes.Equal(state.mac, h.bridgeMAC()) {
		if err := h.writeLink(); err != nil {
			return explain("make", what, err)
		}
	}
	if err := h.setBridgeSysctls(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(h.Bridge)
	if err != nil {
		return explain("find", what, err)
	}
	missing, err := h.missingGateways(link.Attrs().Index)
	if err != nil {
		return err
	}
	for _, gateway := range missing {
		address := &netlink.Addr{IPNet: ipNet(gateway)}
		if gateway.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, address); err != nil {
			return explain("add address "+gateway.String()+" to", what, err)
		}
	}
	return explain("bring up", what, netlink.LinkSetUp(link))
}

// checkOverlap is done when the bridge is made, not later: a network that works
// is not taken down because of a new route.
func (h Host) checkOverlap() error {
	taken, err := takenPrefixes(h.Bridge)
	if err != nil {
		return err
	}
	return h.overlap(taken)
}

// overlap says which of the taken prefixes a pool meets. A prefix that is routed
// to this host may be a part of a larger one that the host has.
func (h Host) overlap(taken []netip.Prefix) error {
	for _, pool := range []netip.Prefix{h.IPv4, h.IPv6} {
		if !pool.IsValid() {
			continue
		}
		others := taken
		if pool == h.IPv6 && h.IPv6Routed {
			others = slices.DeleteFunc(slices.Clone(taken), func(other netip.Prefix) bool { return other.Bits() < pool.Bits() })
		}
		if with := overlapping(pool, others); with != nil {
			return &Overlap{Pool: pool, With: *with}
		}
	}
	return nil
}

// writeLink makes or changes the bridge, all settings in one message: it never
// exists with others.
func (h Host) writeLink() error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(h.Bridge)))
	request.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, h.bridgeMAC()))
	information := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	information.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	settings := information.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for kind, value := range bridgeAttributes() {
		settings.AddRtAttr(int(kind), value)
	}
	request.AddData(information)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}

// removeLinks deletes the bridge and what is left of its ports.
func (h Host) removeLinks() error {
	links, err := retryDump(netlink.LinkList)
	if err != nil {
		return explain("list", "the interfaces of this host", err)
	}
	for _, link := range links {
		name := link.Attrs().Name
		if name != h.Bridge && !strings.HasPrefix(name, h.portPrefix()) {
			continue
		}
		// A port vanishes by itself when its container ends.
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return explain("remove", "interface "+name, err)
		}
	}
	return nil
}
