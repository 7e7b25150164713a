package network

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/nftables"
)

// inBothFamilies runs a check for IPv4 and IPv6.
func (l *lab) inBothFamilies(check func(t *testing.T, address func(*guest) string, outside, hostOutside string)) {
	for _, family := range []struct {
		name, outside, host string
		address             func(*guest) netip.Addr
	}{
		{"IPv4", outside4, hostOutside4, func(g *guest) netip.Addr { return g.IPv4 }},
		{"IPv6", outside6, hostOutside6, func(g *guest) netip.Addr { return g.IPv6 }},
	} {
		l.Log("checking", family.name)
		check(l.T, func(g *guest) string { return family.address(g).String() }, family.outside, family.host)
	}
}

func TestPolicy(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	l.inBothFamilies(func(t *testing.T, address func(*guest) string, outside, hostOutside string) {
		inside := a.serve(address(a))
		l.host.mustReach("host to container", inside)
		b.mustNotReach("container to container", inside)
		a.mustReach("container to itself", inside)

		world := l.outside.serve(outside)
		if seen := a.mustReach("container to outside", world); seen != hostOutside {
			t.Errorf("the outside sees %q, want the host's address %q", seen, hostOutside)
		}
		a.mustNotReach("container to a service of the host at its outside address", l.host.serve(hostOutside))
		gateway := l.config.Gateway4().String()
		if outside == outside6 {
			gateway = l.config.Gateway6().String()
		}
		a.mustNotReach("container to a service of the host at the gateway address", l.host.serve(gateway))
		if seen := l.host.mustReach("host to itself", l.host.serve(gateway)); seen != gateway {
			t.Errorf("the host reaches itself from %q, want %q", seen, gateway)
		}
	})
}

// TestNoWayIn: a machine on the host's network that routes to the containers.
func TestNoWayIn(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	l.outside.defaultRoute("eth0", hostOutside4)
	l.outside.defaultRoute("eth0", hostOutside6)
	l.inBothFamilies(func(_ *testing.T, address func(*guest) string, _, _ string) {
		l.outside.mustNotReach("outside to container", a.serve(address(a)))
	})
	l.dropTable(nftables.TableFamilyINet)
	l.inBothFamilies(func(_ *testing.T, address func(*guest) string, _, _ string) {
		l.outside.mustReach("control: outside to container without the table", a.serve(address(a)))
	})
}

// TestHostServicesControl shows that it is the table that TestPolicy tests.
func TestHostServicesControl(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	l.dropTable(nftables.TableFamilyINet)
	l.inBothFamilies(func(_ *testing.T, _ func(*guest) string, _, hostOutside string) {
		a.mustReach("control: container to host without the table", l.host.serve(hostOutside))
	})
}

// TestPublishedPort: what another program publishes on the host by destination
// NAT is a service of the host.
func TestPublishedPort(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	world := netip.MustParseAddrPort(l.outside.serve(outside4))
	l.host.do(func() { publish(t, netip.MustParseAddr(hostOutside4), world) })
	published := netip.AddrPortFrom(netip.MustParseAddr(hostOutside4), world.Port()).String()
	a.mustNotReach("container to a published port", published)
	l.dropTable(nftables.TableFamilyINet)
	// Without the table there is no masquerading either; the outside needs a
	// way back.
	l.outside.defaultRoute("eth0", hostOutside4)
	a.mustReach("control: container to a published port without the table", published)
}

func TestMetadata(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	for _, address := range []string{"169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"} {
		l.run(address, func(t *testing.T) {
			bits := "/32"
			if netip.MustParseAddr(address).Is6() {
				bits = "/128"
			}
			l.outside.address("lo", address+bits)
			a.mustNotReach("container to the metadata service", l.outside.serve(address))
			l.host.mustReach("control: host to the metadata service", l.outside.serve(address))
			var resolver net.Listener
			l.outside.do(func() {
				var err error
				if resolver, err = net.Listen("tcp", net.JoinHostPort(address, "53")); err != nil {
					t.Fatal(err)
				}
			})
			defer resolver.Close()
			connection, err := a.dial("tcp", "", resolver.Addr().String(), attempt)
			if err != nil {
				t.Fatalf("container to a resolver at that address: %v", err)
			}
			connection.Close()
		})
	}
}

func TestPeers(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b, c := l.container("a"), l.container("b"), l.container("c")
	set := l.setPeers
	set(map[string][]Addresses{"one": {a.Addresses, b.Addresses}, "two": {c.Addresses}})
	l.inBothFamilies(func(t *testing.T, address func(*guest) string, _, _ string) {
		inA, inB, inC := a.serve(address(a)), b.serve(address(b)), c.serve(address(c))
		if seen := b.mustReach("peer to peer", inA); seen != address(b) {
			t.Errorf("a peer is seen as %q, want its own address %q", seen, address(b))
		}
		a.mustReach("peer to peer", inB)
		c.mustNotReach("another group", inA)
		a.mustNotReach("another group", inC)
	})

	l.run("unchanged groups write nothing", func(t *testing.T) {
		before := l.generation()
		set(map[string][]Addresses{"one": {b.Addresses, a.Addresses}})
		if after := l.generation(); after != before {
			t.Errorf("the ruleset's generation went from %d to %d", before, after)
		}
	})

	l.run("a connection ends with the group", func(t *testing.T) {
		var listener net.Listener
		a.do(func() {
			var err error
			if listener, err = net.Listen("tcp", net.JoinHostPort(a.IPv4.String(), "0")); err != nil {
				t.Fatal(err)
			}
		})
		defer listener.Close()
		connection, err := b.dial("tcp", "", listener.Addr().String(), attempt)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		say := func(text string) bool {
			_, _ = connection.Write([]byte(text))
			_ = server.SetReadDeadline(deadline(text == "yes"))
			n, err := server.Read(make([]byte, 8))
			return err == nil && n == len(text)
		}
		if !say("yes") {
			t.Fatal("control: nothing arrives while they are peers")
		}
		set(map[string][]Addresses{"two": {b.Addresses, c.Addresses}})
		if say("no") {
			t.Error("an open connection goes on after the group has changed")
		}
	})

	b.mustReach("new peer", c.serve(c.IPv4.String()))
	set(nil)
	b.mustNotReach("no group any more", c.serve(c.IPv4.String()))

	l.run("two groups", func(t *testing.T) {
		err := l.host.try(func() error {
			return l.network.SetPolicy(t.Context(), func() (Policy, error) {
				return Policy{Groups: map[string][]Addresses{
					"one": {a.Addresses, b.Addresses}, "two": {b.Addresses, c.Addresses},
				}}, nil
			})
		})
		if err == nil {
			t.Error("a container in two groups is accepted")
		}
	})
}

// TestNoRedirects: containers are not told that a peer is on their own wire,
// because by that way they do not reach it.
func TestNoRedirects(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	l.setPeers(map[string][]Addresses{"g": {a.Addresses, b.Addresses}})
	redirected := func(from, to *guest, mustWork bool) bool {
		const icmpRedirect = 5
		var socket net.PacketConn
		from.do(func() {
			var err error
			if socket, err = net.ListenPacket("ip4:icmp", from.IPv4.String()); err != nil {
				t.Fatal(err)
			}
		})
		defer func() { l.host.must(socket.Close()) }()
		from.mustReach("peer to peer", to.serve(to.IPv4.String()))
		_ = socket.SetReadDeadline(deadline(mustWork))
		for {
			message := make([]byte, 1500)
			if _, _, err := socket.ReadFrom(message); err != nil {
				return false
			}
			if message[0] == icmpRedirect {
				return true
			}
		}
	}
	if redirected(b, a, false) {
		t.Error("b was told another way to a")
	}
	l.dropTable(nftables.TableFamilyINet)
	// The kernel limits how often it tells one receiver, and about one
	// destination: the other way round, both are fresh.
	if !redirected(a, b, true) {
		t.Error("control: a is not told another way without the table either")
	}
}

// TestBroadcastToHost: a service of the host that listens to everybody.
func TestBroadcastToHost(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	var service *net.UDPConn
	l.host.do(func() {
		var err error
		if service, err = net.ListenUDP("udp4", &net.UDPAddr{}); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { l.host.must(service.Close()) }()
	target := netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), service.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	heard := func(mustWork bool) bool {
		connection, err := a.dial("udp", a.IPv4.String(), target.String(), attempt)
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
		t.Error("the host hears a container's broadcast")
	}
	l.dropTable(nftables.TableFamilyINet)
	if !heard(true) {
		t.Error("control: it does not hear it without the table either")
	}
}
