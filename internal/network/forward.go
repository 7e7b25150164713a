package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forward is a port of the host that leads to one of a container, from outside
// and from the host, at every address of the host but those of loopback.
type Forward struct {
	// Protocol is "tcp" or "udp".
	Protocol            string
	HostPort, GuestPort uint16
	Addresses           Addresses
}

// transportNumber is the IP protocol number, 0 for one that is not known.
func transportNumber(protocol string) byte {
	switch protocol {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	default:
		return 0
	}
}

// publishPorts adds the chains that change where packets to forwarded ports go.
func (h Host) publishPorts(table *ruleset) {
	outside := table.base(chainPublished, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	local := table.base(chainFromHost, nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	for _, family := range []struct {
		number         byte
		loopback       netip.Prefix
		targets        string
		portOfTheGuest uint32
	}{
		{unix.NFPROTO_IPV4, netip.MustParsePrefix("127.0.0.0/8"), mapForward4, afterIPv4},
		{unix.NFPROTO_IPV6, netip.MustParsePrefix("::1/128"), mapForward6, afterIPv6},
	} {
		lead := concat(
			targetPort(register),
			[]expr.Any{
				&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: family.targets},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family.number), RegAddrMin: register, RegProtoMin: family.portOfTheGuest},
			},
		)
		outside.rule("a forwarded port", protocol(family.number), toHostAddress(), lead)
		// What the host says to its loopback addresses stays there: the kernel
		// sends nothing from them by an interface, and services of the host
		// that listen there only are not in the way.
		local.rule("loopback", addressIn(family.loopback, ipv4Target, ipv6Target), accept())
		local.rule("a forwarded port", protocol(family.number), toHostAddress(), lead)
	}
}

// openPorts adds the rules about connections that were begun outside.
func (h Host) openPorts(forward *chain) {
	for _, family := range []struct {
		number                   byte
		target, length, portInto uint32
		open                     string
		ownAddress               bool
	}{
		{unix.NFPROTO_IPV4, ipv4Target, 4, afterIPv4, setOpen4, false},
		{unix.NFPROTO_IPV6, ipv6Target, 16, afterIPv6, setOpen6, h.IPv6Routed},
	} {
		// Where the containers' addresses mean nothing outside, only who used
		// the host's address comes in.
		way := connection(expr.CtKeySTATUS, statusTargetNAT, expr.CmpOpNeq)
		if family.ownAddress {
			way = nil
		}
		forward.rule("a forwarded port",
			to(h.Bridge), protocol(family.number), way,
			payload(expr.PayloadBaseNetworkHeader, family.target, family.length, register),
			targetPort(family.portInto), inSet(family.open),
			accept())
	}
	// So a connection ends when its port is closed. Errors about answers are no
	// part of it, nor is a connection that a container has asked for (FTP).
	forward.rule("a port that was closed",
		to(h.Bridge), connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED, expr.CmpOpNeq), fromWhoBegan(),
		connection(expr.CtKeySTATUS, statusExpected, expr.CmpOpEq),
		drop())
}

// forwardElements are the elements of mapForward4, setOpen4 and of those for
// IPv6.
type forwardElements struct {
	forward4, open4, forward6, open6 []nftables.SetElement
}

// forwards makes the elements. A port that is there twice leads to the first
// one.
func (n *Network) forwards(wanted []Forward) (forwardElements, error) {
	var elements forwardElements
	type port struct {
		protocol byte
		number   uint16
	}
	taken := map[port]bool{}
	for _, forward := range wanted {
		number := transportNumber(forward.Protocol)
		if number == 0 || forward.HostPort == 0 || forward.GuestPort == 0 {
			return elements, fmt.Errorf("%d:%d/%s is no port to forward", forward.HostPort, forward.GuestPort, forward.Protocol)
		}
		addresses, err := n.known(forward.Addresses)
		if err != nil {
			return elements, err
		}
		if taken[port{number, forward.HostPort}] {
			continue
		}
		taken[port{number, forward.HostPort}] = true
		key := portKey(number, forward.HostPort)
		for _, address := range addresses.all() {
			leads := nftables.SetElement{Key: key, Val: append(address.AsSlice(), paddedPort(forward.GuestPort)...)}
			open := nftables.SetElement{Key: append(address.AsSlice(), portKey(number, forward.GuestPort)...)}
			if address.Is4() {
				elements.forward4, elements.open4 = append(elements.forward4, leads), append(elements.open4, open)
			} else {
				elements.forward6, elements.open6 = append(elements.forward6, leads), append(elements.open6, open)
			}
		}
	}
	return elements, nil
}

// portKey is a protocol and a port as parts of a key, each padded to 32 bits.
func portKey(protocol byte, port uint16) []byte {
	return append([]byte{protocol, 0, 0, 0}, paddedPort(port)...)
}

func paddedPort(port uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, port), 0, 0) }

// Listens tells whether a program of the host has the port at an address that
// is not one of loopback. protocol is "tcp" or "udp".
func Listens(protocol string, port uint16) (bool, error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := retryDump(func() ([]*netlink.Socket, error) {
			if protocol == "udp" {
				return netlink.SocketDiagUDP(family)
			}
			return netlink.SocketDiagTCP(family)
		})
		if err != nil {
			return false, explain("list", "the "+protocol+" sockets of this host", err)
		}
		for _, socket := range sockets {
			if socket.ID.SourcePort == port && waitsForAnybody(protocol, socket) {
				return true, nil
			}
		}
	}
	return false, nil
}

// waitsForAnybody tells whether a socket gets packets of peers that it has not
// chosen, at other addresses than loopback.
func waitsForAnybody(protocol string, socket *netlink.Socket) bool {
	// net/tcp_states.h; a UDP socket without a peer is in the state of a
	// closed one.
	const closed, listening = 7, 10
	wanted := uint8(listening)
	if protocol == "udp" {
		wanted = closed
	}
	address, ok := netip.AddrFromSlice(socket.ID.Source)
	return ok && socket.State == wanted && !address.Unmap().IsLoopback()
}
