package network

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

func deadline(mustWork bool) time.Time {
	if mustWork {
		return time.Now().Add(attempt)
	}
	return time.Now().Add(100 * time.Millisecond)
}

// sink receives UDP packets outside.
func (l *lab) sink(address string) *net.UDPConn {
	l.Helper()
	var sink *net.UDPConn
	l.outside.do(func() {
		var err error
		if sink, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0))); err != nil {
			l.Fatal(err)
		}
	})
	l.Cleanup(func() { l.host.must(sink.Close()) })
	return sink
}

// arrives sends a packet from the source address, and says whether it arrives.
func (l *lab) arrives(from *guest, source, sinkAddress string, mustWork bool) bool {
	l.Helper()
	sink := l.sink(sinkAddress)
	connection, err := from.dial("udp", source, sink.LocalAddr().String(), attempt)
	if err != nil {
		l.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("x")); err != nil {
		l.Fatal(err)
	}
	_ = sink.SetReadDeadline(deadline(mustWork))
	_, _, err = sink.ReadFromUDP(make([]byte, 8))
	return err == nil
}

// TestSpoofedSource: own port and MAC, but an address of somebody else's.
func TestSpoofedSource(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	a.address(guestInterface, b.IPv4.String()+"/32")
	a.address(guestInterface, b.IPv6.String()+"/128")
	a.address(guestInterface, "203.0.113.7/32")
	cases := []struct{ name, source, sink string }{
		{"IPv4 of a neighbour", b.IPv4.String(), outside4},
		{"IPv6 of a neighbour", b.IPv6.String(), outside6},
		{"a foreign IPv4", "203.0.113.7", outside4},
	}
	if !l.arrives(a, a.IPv4.String(), outside4, true) || !l.arrives(a, a.IPv6.String(), outside6, true) {
		t.Fatal("what a container sends from its own addresses does not arrive")
	}
	for _, c := range cases {
		l.run(c.name, func(t *testing.T) {
			if l.arrives(a, c.source, c.sink, false) {
				t.Error("a packet with a source address of somebody else's gets out")
			}
		})
	}
	l.dropTable(nftables.TableFamilyBridge)
	for _, c := range cases {
		l.run("control "+c.name, func(t *testing.T) {
			if !l.arrives(a, c.source, c.sink, true) {
				t.Error("it does not arrive without the table either, so the test above shows nothing")
			}
		})
	}
}

// TestSpoofedMAC: own port and addresses, but a MAC of somebody else's; and
// everything of somebody else's but the port.
func TestSpoofedMAC(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	link := a.link(guestInterface)
	wear := func(mac net.HardwareAddr) {
		a.do(func() { a.must(netlink.LinkSetHardwareAddr(link, mac)) })
	}
	a.address(guestInterface, b.IPv4.String()+"/32")
	cases := []struct {
		name   string
		source netip.Addr
	}{{"own address", a.IPv4}, {"the whole neighbour", b.IPv4}}

	wear(b.hardware())
	for _, c := range cases {
		l.run(c.name, func(t *testing.T) {
			if l.arrives(a, c.source.String(), outside4, false) {
				t.Error("a packet with a MAC address of somebody else's gets out")
			}
		})
	}
	l.dropTable(nftables.TableFamilyBridge)
	for _, c := range cases {
		l.run("control "+c.name, func(t *testing.T) {
			if !l.arrives(a, c.source.String(), outside4, true) {
				t.Error("it does not arrive without the table either")
			}
		})
	}
}

// TestTaggedFrames: a VLAN tag hides a packet from rules that look for IPv4.
func TestTaggedFrames(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	heard := l.listen(unix.ETH_P_ALL, l.config.Bridge)
	a.frame(append(append(append(broadcast(), a.hardware()...), 0x81, 0, 0, 7), 0x08, 0x06, 'm', 'a', 'r', 'k'))
	if heard("mark", false) {
		t.Error("a frame with a VLAN tag passes")
	}
	l.dropTable(nftables.TableFamilyBridge)
	a.frame(append(append(append(broadcast(), a.hardware()...), 0x81, 0, 0, 7), 0x08, 0x06, 'm', 'a', 'r', 'k'))
	if !heard("mark", true) {
		t.Error("control: it does not pass without the table either")
	}
}

func broadcast() []byte { return []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// frame sends a whole Ethernet frame.
func (g *guest) frame(content []byte) {
	g.t.Helper()
	link := g.link(guestInterface)
	g.do(func() {
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		g.must(err)
		defer func() { g.must(unix.Close(socket)) }()
		g.must(unix.Sendto(socket, content, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: 6}))
	})
}

// listen hears what comes up from an interface of the host; the function that
// it returns says whether a frame with the mark did.
func (l *lab) listen(protocol uint16, interfaceName string) func(mark string, mustWork bool) bool {
	l.Helper()
	link := l.host.link(interfaceName)
	var file *os.File
	l.host.do(func() {
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
		l.host.must(err)
		swapped := protocol<<8 | protocol>>8
		l.host.must(unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: swapped, Ifindex: link.Attrs().Index}))
		file = os.NewFile(uintptr(socket), "packet socket")
	})
	l.Cleanup(func() { file.Close() })
	return func(mark string, mustWork bool) bool {
		_ = file.SetReadDeadline(deadline(mustWork))
		for {
			content := make([]byte, 2048)
			n, err := file.Read(content)
			if err != nil {
				return false
			}
			if n >= len(mark) && string(content[n-len(mark):n]) == mark {
				return true
			}
		}
	}
}

// neighbours are the host's neighbours on the bridge that have a MAC address.
func (l *lab) neighbour(address netip.Addr) string {
	l.Helper()
	bridge := l.host.link(l.config.Bridge)
	found := ""
	l.host.do(func() {
		neighbours, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_ALL)
		l.host.must(err)
		for _, neighbour := range neighbours {
			if ip, ok := netip.AddrFromSlice(neighbour.IP); ok && ip.Unmap() == address {
				found = neighbour.HardwareAddr.String()
			}
		}
	})
	return found
}

// TestSpoofedARP: the address of a container that is stopped is claimed.
func TestSpoofedARP(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	stopped := l.allocate("stopped")
	// A question from the stopped container for the gateway's MAC.
	claim := append(append(broadcast(), a.hardware()...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	claim = append(append(claim, a.hardware()...), stopped.IPv4.AsSlice()...)
	claim = append(append(claim, make([]byte, 6)...), l.config.Gateway4().AsSlice()...)
	heard := l.listen(unix.ETH_P_ARP, l.config.Bridge)

	a.frame(claim)
	if heard(string(l.config.Gateway4().AsSlice()), false) || l.neighbour(stopped.IPv4) != "" {
		t.Error("ARP about an address of somebody else's passes")
	}
	other := append([]byte(nil), claim...)
	copy(other[22:], net.HardwareAddr{2, 1, 1, 1, 1, 1}) // another sender's MAC
	copy(other[28:], a.IPv4.AsSlice())                   // for the own address
	a.frame(other)
	if heard(string(l.config.Gateway4().AsSlice()), false) {
		t.Error("ARP with a MAC address of somebody else's passes")
	}
	own := append([]byte(nil), claim...)
	copy(own[28:], a.IPv4.AsSlice())
	a.frame(own)
	if !heard(string(l.config.Gateway4().AsSlice()), true) {
		t.Error("ARP about its own address does not pass")
	}
	l.dropTable(nftables.TableFamilyBridge)
	a.frame(claim)
	eventually(t, "control: the host believes the claim without the table", func() bool {
		return l.neighbour(stopped.IPv4) == a.MAC
	})
}

// TestSpoofedNeighbourAdvertisement is the same for IPv6: the sender is right,
// but it speaks for another address.
func TestSpoofedNeighbourAdvertisement(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	stopped := l.allocate("stopped")
	claim := func() {
		// The host asks for the address, ...
		connection, err := l.host.dial("udp", "", netip.AddrPortFrom(stopped.IPv6, 9).String(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		_, _ = connection.Write([]byte("x"))
		// ... and the container answers: solicited, override, with its MAC.
		advert := append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, stopped.IPv6.AsSlice()...)
		advert = append(append(advert, 2, 1), a.hardware()...)
		a.icmp6(a.IPv6.String(), l.config.Gateway6().String(), advert)
	}
	claim()
	a.mustReach("container to outside, behind its claim", l.outside.serve(outside6))
	if mac := l.neighbour(stopped.IPv6); mac == a.MAC {
		t.Errorf("the host believes that %s is at %s", stopped.IPv6, mac)
	}
	l.dropTable(nftables.TableFamilyBridge)
	eventually(t, "control: the host believes the claim without the table", func() bool {
		claim()
		return l.neighbour(stopped.IPv6) == a.MAC
	})
}

// icmp6 sends an ICMPv6 message with the hop limit that neighbour discovery
// asks for; the kernel fills in the checksum.
func (ns *namespace) icmp6(source, target string, message []byte) {
	ns.t.Helper()
	ns.do(func() {
		connection, err := net.ListenPacket("ip6:ipv6-icmp", source)
		ns.must(err)
		defer func() { ns.must(connection.Close()) }()
		raw := ipv6.NewPacketConn(connection)
		ns.must(raw.SetHopLimit(255))
		ns.must(raw.SetMulticastHopLimit(255))
		address, err := net.ResolveIPAddr("ip6", target)
		ns.must(err)
		_, err = raw.WriteTo(message, nil, address)
		ns.must(err)
	})
}

// TestPortsAreIsolated: a container that knows its neighbour's MAC address and
// sends straight to it, past the host's routing.
func TestPortsAreIsolated(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	// What is left without the rules for routed packets is the isolation.
	l.dropTable(nftables.TableFamilyINet)
	link := a.link(guestInterface)
	a.do(func() {
		a.must(netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(b.IPv4, 32)), Scope: netlink.SCOPE_LINK}))
		a.must(netlink.NeighSet(neighbour(link, b.IPv4, b.Addresses)))
	})
	var service *net.UDPConn
	b.do(func() {
		var err error
		if service, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.IPv4, 0))); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { b.must(service.Close()) }()
	heard := func(mustWork bool) bool {
		connection, err := a.dial("udp", "", service.LocalAddr().String(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if _, err := connection.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = service.SetReadDeadline(deadline(mustWork))
		_, _, err = service.ReadFromUDP(make([]byte, 8))
		return err == nil
	}
	if heard(false) {
		t.Error("a frame passes from one container to another")
	}
	isolate := func(isolated bool) {
		for _, guest := range []*guest{a, b} {
			port := l.host.link(guest.HostInterface)
			l.do(func() error { return netlink.LinkSetIsolated(port, isolated) })
		}
	}
	isolate(false)
	if !heard(true) {
		t.Error("control: it does not pass between ports that are not isolated either")
	}
	// Attach repairs a port, and leaves one alone that is right.
	for range 2 {
		for _, guest := range []*guest{a, b} {
			l.do(func() error { return l.network.Attach(t.Context(), guest.Addresses) })
		}
	}
	if heard(false) {
		t.Error("Attach does not isolate a port again")
	}
	l.ensure()
	l.host.mustReach("host to container", a.serve(a.IPv4.String()))
}
