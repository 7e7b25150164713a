package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// running is the test, or the part of it, that runs now.
type running struct{ *testing.T }

// namespace is a private network namespace of a test.
type namespace struct {
	t      *running
	handle netns.NsHandle
}

// newNamespace makes a network namespace with its loopback interface up; it
// vanishes with the test. Everything in it is done through do.
func newNamespace(t *running) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	ns := &namespace{t: t}
	inOtherNamespace(t, func() {
		var err error
		if ns.handle, err = netns.New(); err != nil {
			t.Skipf("needs the right to make network namespaces: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := ns.handle.Close(); err != nil {
			t.Error(err)
		}
	})
	ns.up("lo")
	return ns
}

// inOtherNamespace runs f, which may change the namespace, in a thread that
// nobody else uses meanwhile, and brings the thread back.
func inOtherNamespace(t *running, f func()) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		// A thread that does not come back stays locked, and ends.
		if err := errors.Join(netns.Set(before), before.Close()); err != nil {
			t.Errorf("cannot leave the network namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// do runs f in the namespace.
func (ns *namespace) do(f func()) {
	ns.t.Helper()
	inOtherNamespace(ns.t, func() {
		if err := netns.Set(ns.handle); err != nil {
			ns.t.Fatal(err)
		}
		f()
	})
}

// try runs f in the namespace.
func (ns *namespace) try(f func() error) (err error) {
	ns.t.Helper()
	ns.do(func() { err = f() })
	return err
}

func (ns *namespace) link(name string) netlink.Link {
	ns.t.Helper()
	var link netlink.Link
	ns.do(func() {
		var err error
		if link, err = netlink.LinkByName(name); err != nil {
			ns.t.Fatalf("interface %s: %v", name, err)
		}
	})
	return link
}

func (ns *namespace) up(name string) {
	ns.t.Helper()
	link := ns.link(name)
	ns.do(func() { ns.must(netlink.LinkSetUp(link)) })
}

func (ns *namespace) must(err error) {
	ns.t.Helper()
	if err != nil {
		ns.t.Fatal(err)
	}
}

// address adds an address that can be used at once.
func (ns *namespace) address(interfaceName, prefix string) {
	ns.t.Helper()
	parsed := netip.MustParsePrefix(prefix)
	link := ns.link(interfaceName)
	address := &netlink.Addr{IPNet: ipNet(parsed)}
	if parsed.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	ns.do(func() { ns.must(netlink.AddrReplace(link, address)) })
}

func (ns *namespace) defaultRoute(interfaceName, gateway string) {
	ns.t.Helper()
	link := ns.link(interfaceName)
	address := netip.MustParseAddr(gateway)
	destination := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if address.Is6() {
		destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	ns.do(func() {
		ns.must(netlink.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(destination), Gw: address.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		}))
	})
}

// cable connects two namespaces.
func cable(a *namespace, nameInA string, b *namespace, nameInB string) {
	a.t.Helper()
	a.do(func() {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = nameInA
		a.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: nameInB, PeerNamespace: netlink.NsFd(b.handle)}))
	})
}

const attempt = 30 * time.Second // for what must work

// tcp and udp connect from the namespace; "" is any source address.
func (ns *namespace) dial(protocol, source, target string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	if source != "" {
		local := netip.AddrPortFrom(netip.MustParseAddr(source), 0)
		dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		if protocol == "udp" {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
		}
	}
	var connection net.Conn
	var err error
	ns.do(func() { connection, err = dialer.Dial(protocol, target) })
	return connection, err
}

// serve answers each TCP connection in the namespace with the address that it
// comes from.
func (ns *namespace) serve(address string) string {
	ns.t.Helper()
	var listener net.Listener
	ns.do(func() {
		var err error
		if listener, err = net.Listen("tcp", net.JoinHostPort(address, "0")); err != nil {
			ns.t.Fatal(err)
		}
	})
	ns.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			remote, _, _ := net.SplitHostPort(connection.RemoteAddr().String())
			fmt.Fprint(connection, remote)
			connection.Close()
		}
	}()
	return listener.Addr().String()
}

// reach connects and gives the source address that the server saw.
func (ns *namespace) reach(target string, timeout time.Duration) (string, error) {
	connection, err := ns.dial("tcp", "", target, timeout)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(timeout))
	seen := make([]byte, 64)
	n, err := connection.Read(seen)
	return string(seen[:n]), err
}

func (ns *namespace) mustReach(what, target string) string {
	ns.t.Helper()
	seen, err := ns.reach(target, attempt)
	if err != nil {
		ns.t.Errorf("%s: %v", what, err)
	}
	return seen
}

func (ns *namespace) mustNotReach(what, target string) {
	ns.t.Helper()
	const short = 100 * time.Millisecond
	if _, err := ns.reach(target, short); err == nil {
		ns.t.Errorf("%s: it connects to %s", what, target)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(attempt); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", attempt, what)
		}
	}
}

// lab is a host with an uplink to the outside, and its network. Its methods
// work in the host's namespace.
type lab struct {
	*running
	outside *namespace
	host    *namespace
	config  Host
	network *Network
	used    []Addresses
}

const (
	hostOutside4, outside4 = "192.0.2.2", "192.0.2.1"
	hostOutside6, outside6 = "2001:db8::2", "2001:db8::1"
	uplink                 = "uplink"
)

// newLab makes all but the network.
func newLab(t *testing.T) *lab {
	t.Helper()
	now := &running{t}
	l := &lab{running: now, outside: newNamespace(now), host: newNamespace(now)}
	cable(l.host, uplink, l.outside, "eth0")
	for _, end := range []struct {
		ns                       *namespace
		name, address4, address6 string
	}{{l.host, uplink, hostOutside4, hostOutside6}, {l.outside, "eth0", outside4, outside6}} {
		end.ns.up(end.name)
		end.ns.address(end.name, end.address4+"/24")
		end.ns.address(end.name, end.address6+"/64")
	}
	l.host.defaultRoute(uplink, outside4)
	l.host.defaultRoute(uplink, outside6)
	l.choose("1a2b3c4d")
	return l
}

// choose makes the lab's network that of another instance.
func (l *lab) choose(instance string) {
	l.Helper()
	l.do(func() error {
		var err error
		l.config, err = ChooseHost(instance, Wishes{})
		return err
	})
	l.renew()
}

// renew makes the network from the configuration.
func (l *lab) renew() {
	l.Helper()
	l.do(func() error {
		var err error
		l.network, err = New(l.config, filepath.Join(l.TempDir(), "lock"))
		return err
	})
}

// run is a part of the test.
func (l *lab) run(name string, f func(t *testing.T)) {
	l.Helper()
	whole := l.T
	defer func() { l.T = whole }()
	whole.Run(name, func(t *testing.T) {
		l.T = t
		f(t)
	})
}

// do must succeed on the host.
func (l *lab) do(f func() error) {
	l.Helper()
	if err := l.host.try(f); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) ensure() {
	l.Helper()
	l.do(func() error { return l.network.Ensure(l.Context()) })
}

func (l *lab) remove() {
	l.Helper()
	l.do(func() error { return l.network.Remove(l.Context()) })
}

func (l *lab) detach(addresses Addresses) {
	l.Helper()
	l.do(func() error { return l.network.Detach(l.Context(), addresses) })
}

func (l *lab) setPeers(groups map[string][]Addresses) {
	l.Helper()
	l.do(func() error {
		return l.network.SetPolicy(l.Context(), func() (Policy, error) { return Policy{Groups: groups}, nil })
	})
}

func (l *lab) allocate(name string) Addresses {
	l.Helper()
	addresses, err := Allocate(l.config, l.used, name)
	if err != nil {
		l.Fatal(err)
	}
	return addresses
}

// guest is a container as far as the network goes.
type guest struct {
	*namespace
	Addresses
}

// container makes a namespace with a cable as systemd-nspawn does, configures
// it as GuestNetworkFile says, and attaches it.
func (l *lab) container(name string) *guest {
	l.Helper()
	addresses := l.allocate(name)
	l.used = append(l.used, addresses)
	inside := &guest{namespace: newNamespace(l.running), Addresses: addresses}
	cable(l.host, addresses.HostInterface, inside.namespace, guestInterface)
	link := inside.link(guestInterface)
	inside.do(func() { inside.must(netlink.LinkSetHardwareAddr(link, addresses.hardware())) })
	ctx, cancel := context.WithTimeout(l.Context(), attempt)
	defer cancel()
	l.do(func() error { return l.network.Attach(ctx, addresses) })
	inside.up(guestInterface)
	inside.address(guestInterface, addresses.IPv4.String()+"/32")
	inside.defaultRoute(guestInterface, l.config.Gateway4().String())
	if addresses.IPv6.IsValid() {
		inside.address(guestInterface, addresses.IPv6.String()+"/128")
		inside.defaultRoute(guestInterface, l.config.Gateway6().String())
	}
	return inside
}

// route adds a route by the uplink, in a table; it must be called within do.
func (ns *namespace) route(prefix string, table int) {
	ns.t.Helper()
	link, err := netlink.LinkByName(uplink)
	ns.must(err)
	ns.must(netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(prefix)), Table: table}))
}
