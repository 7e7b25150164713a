package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// open sets what ports are forwarded, and nothing else.
func (l *lab) open(forwards ...Forward) {
	l.Helper()
	l.do(func() error {
		return l.network.SetPolicy(l.Context(), func() (Policy, error) { return Policy{Forwards: forwards}, nil })
	})
}

// forwardTo is a port of the host that leads to a service of a container.
func forwardTo(t *testing.T, inside *guest, service string, hostPort uint16) Forward {
	t.Helper()
	_, port, err := net.SplitHostPort(service)
	if err != nil {
		t.Fatal(err)
	}
	forward := Forward{Protocol: "tcp", HostPort: hostPort, Addresses: inside.Addresses}
	if _, err := fmt.Sscan(port, &forward.GuestPort); err != nil {
		t.Fatal(err)
	}
	return forward
}

// serveAll serves at all addresses of a namespace, and returns the port.
func (ns *namespace) serveAll() string { ns.t.Helper(); return ns.serve("::") }

func TestForward(t *testing.T) {
	const port = 8080
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	service := a.serveAll()
	l.setPeers(nil)
	outsideOf := map[string]string{hostOutside4: outside4, hostOutside6: outside6}
	at := func(host string) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
	for host := range outsideOf {
		l.outside.mustNotReach("control: before it is open", at(host))
	}
	l.open(forwardTo(t, a, service, port))
	for host, client := range outsideOf {
		if seen := l.outside.mustReach("outside to a forwarded port", at(host)); strings.TrimPrefix(seen, "::ffff:") != client {
			t.Errorf("the container sees %q, want the client's own address %q", seen, client)
		}
		if seen := l.host.mustReach("host to a forwarded port at its own address", at(host)); strings.TrimPrefix(seen, "::ffff:") != host {
			t.Errorf("the container sees %q, want the host's address %q", seen, host)
		}
		b.mustNotReach("another container to a forwarded port", at(host))
		a.mustNotReach("the container itself, by way of the host", at(host))
	}
	l.host.mustNotReach("loopback leads nowhere", at("127.0.0.1"))
	l.host.mustNotReach("loopback leads nowhere", at("::1"))

	l.run("a service of the host at loopback is not in the way", func(t *testing.T) {
		var listener net.Listener
		l.host.do(func() {
			var err error
			if listener, err = net.Listen("tcp", at("127.0.0.1")); err != nil {
				t.Fatal(err)
			}
		})
		defer listener.Close()
		accepted := make(chan struct{})
		go func() {
			defer close(accepted)
			if connection, err := listener.Accept(); err == nil {
				connection.Close()
			}
		}()
		connection, err := l.host.dial("tcp", "", at("127.0.0.1"), attempt)
		if err != nil {
			t.Fatal(err)
		}
		connection.Close()
		<-accepted
	})

	l.run("nothing but the port", func(*testing.T) {
		l.outside.defaultRoute("eth0", hostOutside4)
		l.outside.defaultRoute("eth0", hostOutside6)
		// The address of the container means nothing outside, open port or not.
		for _, address := range a.all() {
			_, open, _ := net.SplitHostPort(service)
			l.outside.mustNotReach("the open port at the container's own address", net.JoinHostPort(address.String(), open))
			l.outside.mustNotReach("another port", a.serve(address.String()))
		}
	})

	l.run("it is there after the rules were made again", func(*testing.T) {
		l.filter(func(filter *firewall) error { return filter.rebuild() })
		for host := range outsideOf {
			l.outside.mustReach("outside to a forwarded port", at(host))
		}
	})

	l.run("a connection ends when the port is closed", func(t *testing.T) {
		for host := range outsideOf {
			var listener net.Listener
			a.do(func() {
				var err error
				if listener, err = net.Listen("tcp", "[::]:0"); err != nil {
					t.Fatal(err)
				}
			})
			l.open(forwardTo(t, a, listener.Addr().String(), port))
			connection, err := l.outside.dial("tcp", "", at(host), attempt)
			if err != nil {
				t.Fatal(err)
			}
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			say := func(text string, mustWork bool) bool {
				_, _ = connection.Write([]byte(text))
				_ = server.SetReadDeadline(deadline(mustWork))
				n, err := server.Read(make([]byte, 8))
				return err == nil && n == len(text)
			}
			if !say("yes", true) {
				t.Errorf("control: nothing arrives at %s while it is open", host)
			}
			l.open()
			if say("no", false) {
				t.Errorf("an open connection to %s goes on after the port was closed", host)
			}
			l.outside.mustNotReach("a new connection", at(host))
			connection.Close()
			server.Close()
			listener.Close()
		}
	})

	l.run("two for one port", func(*testing.T) {
		other := b.serveAll()
		l.open(forwardTo(t, a, service, port), forwardTo(t, b, other, port))
		l.outside.mustReach("the first one", at(hostOutside4))
		l.open(forwardTo(t, b, other, port))
		l.outside.mustReach("the other one", at(hostOutside6))
	})

	l.run("unchanged ports write nothing", func(t *testing.T) {
		before := l.generation()
		l.open(forwardTo(t, b, "[::]:1", port), forwardTo(t, a, "[::]:2", port))
		changed := l.generation()
		l.open(forwardTo(t, b, "[::]:1", port), forwardTo(t, a, "[::]:2", port))
		if after := l.generation(); before == changed || after != changed {
			t.Errorf("the ruleset's generations are %d, %d, %d", before, changed, after)
		}
	})

	l.run("what is no port", func(t *testing.T) {
		for _, forward := range []Forward{
			{Protocol: "icmp", HostPort: 1, GuestPort: 1, Addresses: a.Addresses},
			{Protocol: "tcp", GuestPort: 1, Addresses: a.Addresses},
			{Protocol: "udp", HostPort: 1, Addresses: a.Addresses},
			{Protocol: "udp", HostPort: 1, GuestPort: 1},
		} {
			err := l.host.try(func() error {
				return l.network.SetPolicy(t.Context(), func() (Policy, error) { return Policy{Forwards: []Forward{forward}}, nil })
			})
			if err == nil {
				t.Errorf("%+v is accepted", forward)
			}
		}
	})
}

func TestForwardUDP(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a := l.container("a")
	var socket *net.UDPConn
	a.do(func() {
		var err error
		if socket, err = net.ListenUDP("udp", &net.UDPAddr{}); err != nil {
			t.Fatal(err)
		}
	})
	defer socket.Close()
	go func() {
		message := make([]byte, 64)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(message)
			if err != nil {
				return
			}
			_, _ = socket.WriteToUDPAddrPort(message[:n], from)
		}
	}()
	echoed := func(from *namespace, host string, mustWork bool) bool {
		connection, err := from.dial("udp", "", net.JoinHostPort(host, "5353"), attempt)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		_, _ = connection.Write([]byte("x"))
		_ = connection.SetReadDeadline(deadline(mustWork))
		_, err = connection.Read(make([]byte, 8))
		return err == nil
	}
	forward := forwardTo(t, a, socket.LocalAddr().String(), 5353)
	l.open(forward) // the same port for TCP
	if echoed(l.outside, hostOutside4, false) {
		t.Error("a port that is open for TCP is open for UDP")
	}
	forward.Protocol = "udp"
	l.open(forward)
	for _, host := range []string{hostOutside4, hostOutside6} {
		if !echoed(l.outside, host, true) {
			t.Errorf("no answer from outside at %s", host)
		}
		if !echoed(l.host, host, true) {
			t.Errorf("no answer from the host at %s", host)
		}
	}
}

// routed makes the lab's network one whose IPv6 addresses are routed to it.
func (l *lab) routed(wishes Wishes) {
	l.Helper()
	l.do(func() error {
		var err error
		l.config, err = ChooseHost("0badcafe", wishes)
		return err
	})
	l.renew()
	l.outside.defaultRoute("eth0", hostOutside4)
	l.outside.defaultRoute("eth0", hostOutside6)
	// They know each other's MAC addresses from now on. To find out for somebody
	// else, the host needs a link-local address, which takes a second or two.
	l.host.mustReach("host to outside", l.outside.serve(outside6))
}

// TestRoutedIPv6: containers have addresses that mean something outside, and
// are no more open for it.
func TestRoutedIPv6(t *testing.T) {
	l := newLab(t)
	// A part of the uplink's own network, as where a provider routes a part of
	// what it has assigned.
	l.host.do(func() { l.host.route("2001:db8:1::/48", 0) })
	l.routed(Wishes{IPv6: netip.MustParsePrefix("2001:db8:1:7::/64"), IPv6Routed: true})
	l.ensure()
	a, b := l.container("a"), l.container("b")
	service := a.serveAll()
	_, port, _ := net.SplitHostPort(service)
	own := net.JoinHostPort(a.IPv6.String(), port)
	if seen := a.mustReach("container to outside", l.outside.serve(outside6)); seen != a.IPv6.String() {
		t.Errorf("outside, the container is seen as %q, want its own address %s", seen, a.IPv6)
	}
	if seen := a.mustReach("container to outside", l.outside.serve(outside4)); seen != hostOutside4 {
		t.Errorf("outside, the container is seen as %q, want the host's address", seen)
	}
	l.outside.mustNotReach("a port that is not open", own)
	l.open(forwardTo(t, a, service, 8080))
	if seen := l.outside.mustReach("an open port at the container's own address", own); seen != outside6 {
		t.Errorf("the container sees %q", seen)
	}
	l.outside.mustReach("an open port at the host's address", net.JoinHostPort(hostOutside6, "8080"))
	l.outside.mustNotReach("another port", a.serve(a.IPv6.String()))
	l.outside.mustNotReach("the host's port at the container's address", net.JoinHostPort(a.IPv6.String(), "8080"))
	l.outside.mustNotReach("the open port at the private address", net.JoinHostPort(a.IPv4.String(), port))
	l.outside.mustNotReach("the port of another container", net.JoinHostPort(b.IPv6.String(), port))
	b.mustNotReach("another container", own)
	l.open()
	l.outside.mustNotReach("a port that was closed", own)
}

// TestNoNAT: what containers send has their addresses, and nothing else is
// different.
func TestNoNAT(t *testing.T) {
	l := newLab(t)
	l.routed(Wishes{IPv4: netip.MustParsePrefix("10.77.0.0/24"), NoNAT: true})
	l.ensure()
	a := l.container("a")
	if !strings.HasPrefix(a.IPv4.String(), "10.77.0.") {
		t.Errorf("the container has the address %s", a.IPv4)
	}
	for address, service := range map[string]string{a.IPv4.String(): l.outside.serve(outside4), a.IPv6.String(): l.outside.serve(outside6)} {
		if seen := a.mustReach("container to outside", service); seen != address {
			t.Errorf("outside, the container is seen as %q, want its own address %s", seen, address)
		}
		l.outside.mustNotReach("outside to container", a.serve(address))
	}
}

func TestWishes(t *testing.T) {
	prefix := func(text string) netip.Prefix {
		if text == "" {
			return netip.Prefix{}
		}
		return netip.MustParsePrefix(text)
	}
	for _, c := range []struct {
		name, ipv4, ipv6, reason string
		routed                   bool
	}{
		{"none", "", "", "", false},
		{"both", "10.9.0.0/16", "fd00:1::/64", "", false},
		{"routed", "", "2001:db8:1::/64", "", true},
		{"smallest", "10.9.0.0/29", "fd00:1::/112", "", false},
		{"too small", "10.9.0.0/30", "", "/8 to /29", false},
		{"too large", "", "fd00::/16", "/32 to /112", false},
		{"an address", "10.9.0.1/16", "", "the network is 10.9.0.0/16", false},
		{"IPv6 for IPv4", "fd00:1::/64", "", "other family", false},
		{"IPv4 for IPv6", "", "10.9.0.0/16", "other family", false},
		{"multicast", "224.0.0.0/8", "", "meaning of its own", false},
		{"loopback", "127.0.0.0/8", "", "meaning of its own", false},
		{"link-local", "", "fe80::/64", "meaning of its own", false},
		{"routed without a network", "", "", "must be given", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Wishes{IPv4: prefix(c.ipv4), IPv6: prefix(c.ipv6), IPv6Routed: c.routed}.Validate()
			if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
				t.Errorf("error = %v, want %q", err, c.reason)
			}
		})
	}
}

// TestWishedPoolInUse: a pool that the host has is refused, also where only a
// part of it is wished; a routed one may be a part of what the host has.
func TestWishedPoolInUse(t *testing.T) {
	l := newLab(t)
	l.host.do(func() {
		l.host.route("10.50.0.0/16", 0)
		l.host.route("2001:db8:5::/48", 0)
		l.host.route("2001:db8:6::/80", 0)
	})
	for _, c := range []struct {
		name   string
		wishes Wishes
		inUse  bool
	}{
		{"part of a network of the host", Wishes{IPv4: netip.MustParsePrefix("10.50.3.0/24")}, true},
		{"free", Wishes{IPv4: netip.MustParsePrefix("10.51.3.0/24")}, false},
		{"part, not routed", Wishes{IPv6: netip.MustParsePrefix("2001:db8:5:1::/64")}, true},
		{"part, routed", Wishes{IPv6: netip.MustParsePrefix("2001:db8:5:1::/64"), IPv6Routed: true}, false},
		{"the same, routed", Wishes{IPv6: netip.MustParsePrefix("2001:db8:5::/48"), IPv6Routed: true}, true},
		{"holds one of the host's, routed", Wishes{IPv6: netip.MustParsePrefix("2001:db8:6::/64"), IPv6Routed: true}, true},
	} {
		l.run(c.name, func(t *testing.T) {
			err := l.host.try(func() error { _, err := ChooseHost("0badcafe", c.wishes); return err })
			var overlap *Overlap
			if errors.As(err, &overlap) != c.inUse || (err != nil) != c.inUse {
				t.Errorf("error = %v", err)
			}
		})
	}
}

// TestReconnect: somebody else removes what running containers hang on.
func TestReconnect(t *testing.T) {
	l := newLab(t)
	l.ensure()
	a, b := l.container("a"), l.container("b")
	stopped := l.allocate("stopped")
	service := a.serveAll()
	policy := Policy{
		Groups:     map[string][]Addresses{"g": {a.Addresses, b.Addresses}},
		Forwards:   []Forward{forwardTo(t, a, service, 8080)},
		Containers: []Addresses{a.Addresses, b.Addresses, stopped},
	}
	restore := func() {
		l.ensure()
		l.do(func() error {
			return l.network.SetPolicy(l.Context(), func() (Policy, error) { return policy, nil })
		})
	}
	restore()
	good := l.snapshot()
	for _, damage := range []struct {
		name string
		do   func()
	}{
		{"the bridge is gone", func() {
			link := l.host.link(l.config.Bridge)
			l.do(func() error { return netlink.LinkDel(link) })
		}},
		{"all rules are gone", func() {
			l.host.do(func() {
				conn := &nftables.Conn{}
				conn.FlushRuleset()
				l.host.must(conn.Flush())
			})
		}},
		{"both", func() {
			l.dropTable(nftables.TableFamilyINet)
			l.dropTable(nftables.TableFamilyBridge)
			link := l.host.link(l.config.Bridge)
			l.do(func() error { return netlink.LinkDel(link) })
		}},
		{"a container is not admitted", func() {
			l.filter(func(filter *firewall) error { return filter.admit(a.Addresses, false) })
		}},
		{"a cable is not plugged in", func() {
			link := l.host.link(a.HostInterface)
			l.do(func() error { return netlink.LinkSetNoMaster(link) })
		}},
		{"a cable is down", func() {
			link := l.host.link(a.HostInterface)
			l.do(func() error { return netlink.LinkSetDown(link) })
		}},
	} {
		l.run(damage.name, func(t *testing.T) {
			damage.do()
			restore()
			after := l.snapshot()
			if len(after) != len(good) || strings.Join(after, "\n") != strings.Join(good, "\n") {
				t.Errorf("it is not as before:\n%s\nbut:\n%s", strings.Join(good, "\n"), strings.Join(after, "\n"))
			}
			l.host.mustReach("host to container", a.serve(a.IPv4.String()))
			b.mustReach("peer to peer", a.serve(a.IPv6.String()))
			a.mustReach("container to outside", l.outside.serve(outside4))
			l.outside.mustReach("outside to a forwarded port", net.JoinHostPort(hostOutside6, "8080"))
			port := l.host.link(a.HostInterface)
			l.do(func() error {
				information, err := netlink.LinkGetProtinfo(port)
				if !information.Isolated {
					t.Error("the port is not isolated")
				}
				return err
			})
		})
	}
	generation := l.generation()
	restore()
	if after := l.generation(); after != generation {
		t.Errorf("with nothing to do the ruleset's generation went from %d to %d", generation, after)
	}
}

// TestHostWithIPv6Off: net.ipv6.conf.*.disable_ipv6 is 1, as many a guide says.
func TestHostWithIPv6Off(t *testing.T) {
	l := newLab(t)
	l.do(func() error {
		return errors.Join(setSysctl("ipv6/conf/all/disable_ipv6", "1"), setSysctl("ipv6/conf/default/disable_ipv6", "1"))
	})
	l.ensure()
	a, b := l.container("a"), l.container("b")
	l.setPeers(map[string][]Addresses{"g": {a.Addresses, b.Addresses}})
	a.mustReach("container to outside", l.outside.serve(outside4))
	l.host.mustReach("host to container", a.serve(a.IPv4.String()))
	// Among themselves containers have IPv6 all the same.
	l.host.mustReach("host to container", a.serve(a.IPv6.String()))
	b.mustReach("peer to peer", a.serve(a.IPv6.String()))
	a.mustNotReach("container to a service of the host", l.host.serve(hostOutside4))
	if !l.current() {
		t.Error("something is missing")
	}
}

func TestListens(t *testing.T) {
	l := newLab(t)
	l.ensure()
	for _, c := range []struct {
		protocol, address string
		listens           bool
	}{
		{"tcp", "0.0.0.0:7001", true},
		{"tcp", "[::]:7002", true},
		{"tcp", hostOutside4 + ":7003", true},
		{"tcp", "[" + hostOutside6 + "]:7004", true},
		{"tcp", "127.0.0.1:7005", false},
		{"tcp", "[::1]:7006", false},
		{"tcp", "[::ffff:127.0.0.1]:7007", false},
		{"udp", "0.0.0.0:7001", true},
		{"udp", "[::]:7002", true},
		{"udp", "127.0.0.1:7005", false},
	} {
		l.run(c.protocol+" "+c.address, func(t *testing.T) {
			port := netip.MustParseAddrPort(c.address).Port()
			found := func(protocol string) (found bool) {
				l.do(func() (err error) { found, err = Listens(protocol, port); return err })
				return found
			}
			if found(c.protocol) {
				t.Fatal("control: somebody listens before")
			}
			l.host.do(func() {
				if c.protocol == "udp" {
					socket, err := net.ListenPacket("udp", c.address)
					l.host.must(err)
					t.Cleanup(func() { socket.Close() })
					return
				}
				listener, err := net.Listen("tcp", c.address)
				l.host.must(err)
				t.Cleanup(func() { listener.Close() })
			})
			if found(c.protocol) != c.listens {
				t.Errorf("it says %t", !c.listens)
			}
			other := map[string]string{"tcp": "udp", "udp": "tcp"}[c.protocol]
			if found(other) {
				t.Errorf("it says so for %s too", other)
			}
		})
	}
	l.run("a client", func(t *testing.T) {
		service := l.outside.serve(outside4)
		connection, err := l.host.dial("tcp", "", service, attempt)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		port := uint16(connection.LocalAddr().(*net.TCPAddr).Port)
		l.do(func() error {
			found, err := Listens("tcp", port)
			if found {
				t.Error("a client's port counts as one that somebody listens at")
			}
			return err
		})
	})
}
