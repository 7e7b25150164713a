package network

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// builderGID is the group of build users in these tests.
const builderGID = 30123

// restrict makes the lab's network one that restricts builders.
func (l *lab) restrict(builders Builders) {
	l.Helper()
	l.config.Builders = builders
	l.renew()
	l.ensure()
}

// asGroup runs f so that its sockets are those of a process of the group: what
// counts is the thread's id for files, which follows the effective one.
func (l *lab) asGroup(gid int, f func()) { l.Helper(); l.as(unix.SetfsgidRetGid, gid, f) }

// asUser is the same for a user.
func (l *lab) asUser(uid int, f func()) { l.Helper(); l.as(unix.SetfsuidRetUid, uid, f) }

func (l *lab) as(set func(int) (int, error), id int, f func()) {
	l.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := set(id)
	l.host.must(err)
	defer func() {
		if now, err := set(before); now != id || err != nil {
			l.Errorf("the id was %d, not %d: %v", now, id, err)
		}
	}()
	f()
}

// mustRefuseBuilders checks that a builder's connection ends at once, and that
// somebody else's does not.
func (l *lab) mustRefuseBuilders(what, target string) {
	l.Helper()
	l.asGroup(builderGID, func() {
		if _, err := l.host.reach(target, attempt); !errors.Is(err, unix.ECONNREFUSED) {
			l.Errorf("a builder to %s at %s: %v", what, target, err)
		}
	})
	l.asGroup(builderGID+1, func() { l.host.mustReach("control: somebody else to "+what+" at "+target, target) })
}

// says tells whether what the host sends to an address is heard there.
func (l *lab) says(target string, listener net.PacketConn, mustWork bool) bool {
	l.Helper()
	connection, err := l.host.dial("udp", "", target, attempt)
	l.host.must(err)
	defer connection.Close()
	if _, err := connection.Write([]byte("x")); err != nil {
		return false
	}
	l.host.must(listener.SetReadDeadline(deadline(mustWork)))
	_, _, err = listener.ReadFrom(make([]byte, 8))
	return err == nil
}

func TestBuilders(t *testing.T) {
	l := newLab(t)
	l.restrict(Builders{GID: builderGID})
	a := l.container("a")
	port := func(target string) uint16 { return netip.MustParseAddrPort(target).Port() }
	at := func(address string, port uint16) string { return net.JoinHostPort(address, strconv.Itoa(int(port))) }
	inside4, inside6 := a.serve(a.IPv4.String()), a.serve(a.IPv6.String())
	const forwarded4, forwarded6 = 21004, 21006
	l.do(func() error {
		return l.network.SetPolicy(t.Context(), func() (Policy, error) {
			return Policy{Forwards: []Forward{
				{Protocol: "tcp", HostPort: forwarded4, GuestPort: port(inside4), Addresses: a.Addresses},
				{Protocol: "tcp", HostPort: forwarded6, GuestPort: port(inside6), Addresses: a.Addresses},
			}}, nil
		})
	})
	services := []string{
		l.host.serve("127.0.0.1"), l.host.serve("127.1.2.3"), l.host.serve("::1"),
		l.host.serve(hostOutside4), l.host.serve(hostOutside6),
		l.host.serve(l.config.Gateway4().String()), l.host.serve(l.config.Gateway6().String()),
	}

	l.run("services of the host", func(*testing.T) {
		for _, service := range services {
			l.mustRefuseBuilders("a service of the host", service)
		}
	})
	l.run("containers", func(*testing.T) {
		l.mustRefuseBuilders("a container", inside4)
		l.mustRefuseBuilders("a container", inside6)
		l.mustRefuseBuilders("a forwarded port", at(hostOutside4, forwarded4))
		l.mustRefuseBuilders("a forwarded port", at(hostOutside6, forwarded6))
	})
	l.run("outside", func(t *testing.T) {
		l.asGroup(builderGID, func() {
			for address, own := range map[string]string{outside4: hostOutside4, outside6: hostOutside6} {
				if seen := l.host.mustReach("a builder to the outside", l.outside.serve(address)); seen != own {
					t.Errorf("the outside sees a builder at %q, not at %s", seen, own)
				}
			}
		})
	})
	l.run("metadata services", func(*testing.T) {
		for _, service := range []string{"169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"} {
			address := netip.MustParseAddr(service)
			l.outside.address("lo", netip.PrefixFrom(address, address.BitLen()).String())
			l.mustRefuseBuilders("a metadata service", l.outside.serve(service))
		}
	})
	l.run("resolvers", func(t *testing.T) {
		for _, resolver := range []struct {
			at      *namespace
			address string
			reached bool
		}{
			{l.host, "127.0.0.53", true}, {l.host, "::1", true}, {l.host, hostOutside4, true},
			{l.outside, "169.254.169.254", true}, {l.outside, "fd00:ec2::254", true},
			{a.namespace, a.IPv4.String(), false}, {a.namespace, a.IPv6.String(), false},
		} {
			target := at(resolver.address, 53)
			var stream net.Listener
			var packets net.PacketConn
			l.host.must(resolver.at.try(func() (err error) {
				if stream, err = net.Listen("tcp", target); err != nil {
					return err
				}
				packets, err = net.ListenPacket("udp", target)
				return err
			}))
			l.asGroup(builderGID, func() {
				connection, err := l.host.dial("tcp", "", target, attempt)
				if err == nil {
					connection.Close()
				}
				if (err == nil) != resolver.reached {
					t.Errorf("a builder to the resolver at %s over TCP: %v", resolver.address, err)
				}
				if l.says(target, packets, resolver.reached) != resolver.reached {
					t.Errorf("the resolver at %s hears a builder over UDP: %v", resolver.address, !resolver.reached)
				}
			})
			if !l.says(target, packets, true) {
				t.Errorf("control: the resolver at %s does not hear root over UDP", resolver.address)
			}
			l.host.must(errors.Join(stream.Close(), packets.Close()))
		}
	})
	l.run("packets", func(t *testing.T) {
		link := l.host.link(uplink).Attrs()
		for _, address := range []string{"127.0.0.1", "::1", hostOutside4, "192.0.2.255", "255.255.255.255", "224.0.0.251", "ff02::fb%" + uplink} {
			parsed := netip.MustParseAddr(address)
			var service *net.UDPConn
			l.host.must(l.host.try(func() (err error) {
				own := &net.UDPAddr{IP: parsed.WithZone("").AsSlice(), Zone: parsed.Zone()}
				switch {
				case parsed.IsMulticast():
					own.Port = 25353
					service, err = net.ListenMulticastUDP("udp", &net.Interface{Index: link.Index, Name: link.Name}, own)
				default:
					service, err = net.ListenUDP("udp", &net.UDPAddr{})
				}
				return err
			}))
			target := at(address, uint16(service.LocalAddr().(*net.UDPAddr).Port))
			if !l.says(target, service, true) {
				t.Errorf("control: a service of the host does not hear what root says to %s", target)
			}
			l.asGroup(builderGID, func() {
				if l.says(target, service, false) {
					t.Errorf("a service of the host hears what a builder says to %s", target)
				}
			})
			l.host.must(service.Close())
		}
	})
	l.run("multipath TCP", func(t *testing.T) {
		// Its sockets of the kernel's own are those of who asked for them.
		var dialer net.Dialer
		dialer.SetMultipathTCP(true)
		dialer.Timeout = attempt
		for _, service := range []string{services[0], services[2]} {
			l.asGroup(builderGID, func() {
				l.host.do(func() {
					if connection, err := dialer.Dial("tcp", service); !errors.Is(err, unix.ECONNREFUSED) {
						t.Errorf("a builder to %s: %v, %v", service, connection, err)
					}
				})
			})
		}
	})
	l.run("off", func(t *testing.T) {
		l.config.Builders = Builders{}
		l.renew()
		if l.current() {
			t.Error("rules that are no longer wanted count as current")
		}
		l.ensure()
		l.asGroup(builderGID, func() {
			for _, service := range append(services, inside4, inside6) {
				l.host.mustReach("control: a builder without the rules", service)
			}
		})
	})
}

// TestAllocatedBuilders: the ids are a range.
func TestAllocatedBuilders(t *testing.T) {
	l := newLab(t)
	// Where the two orders of bytes differ.
	const first, last = 0x34000000, 0x347fffff
	l.restrict(Builders{GID: builderGID, FirstUID: first, LastUID: last})
	service := l.host.serve("127.0.0.1")
	for uid, refused := range map[int]bool{first - 1: false, first: true, first + 0x10000: true, last: true, last + 1: false, 0x00000034: false} {
		l.asUser(uid, func() {
			if _, err := l.host.reach(service, attempt); errors.Is(err, unix.ECONNREFUSED) != refused || (err == nil) == refused {
				t.Errorf("user %d: %v", uid, err)
			}
		})
	}
	l.asGroup(builderGID, func() {
		if _, err := l.host.reach(service, attempt); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the group: %v", err)
		}
	})
}
