package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"devhost/internal/engine/supervisor"
)

// place is a network namespace: that of the host, of a container, or of
// somebody outside. What is done there has all rights, as root inside has them
// over the container's network.
type place struct {
	t    *testing.T
	name string
	// path is the namespace's file, "" for the host's.
	path string
	// addresses are where it is reached.
	addresses []netip.Addr
	// port is where it answers, over TCP and UDP, once serve was called.
	port string
}

// do runs a function in the place.
func (p *place) do(action func() error) error {
	if p.path == "" {
		return action()
	}
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine: it is of the other network.
		runtime.LockOSThread()
		namespace, err := os.Open(p.path)
		if err == nil {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
			_ = namespace.Close()
		}
		if err == nil {
			err = action()
		}
		done <- err
	}()
	return <-done
}

// serve answers at all addresses of the place: it tells who asked.
func (p *place) serve() { p.t.Helper(); p.serveAt("::") }

// serveAt answers at one address, which is the answers' source then.
func (p *place) serveAt(address string) {
	p.t.Helper()
	var stream net.Listener
	var packets *net.UDPConn
	err := p.do(func() error {
		// The port is to be free for both.
		for range 20 {
			var err error
			if stream, err = net.Listen("tcp", net.JoinHostPort(address, "0")); err != nil {
				return err
			}
			packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(stream.Addr().(*net.TCPAddr).AddrPort()))
			if err == nil {
				return nil
			}
			_ = stream.Close()
		}
		return errors.New("no port is free for TCP and UDP")
	})
	if err != nil {
		p.t.Fatalf("%s cannot serve: %v", p.name, err)
	}
	p.port = strconv.Itoa(stream.Addr().(*net.TCPAddr).Port)
	p.t.Cleanup(func() { _ = stream.Close() })
	go func() {
		for {
			connection, err := stream.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, connection.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
			_ = connection.Close()
		}
	}()
	p.answer(packets)
}

// answer tells who asks over UDP whom it sees, until the test ends.
func (p *place) answer(socket *net.UDPConn) {
	p.t.Cleanup(func() { _ = socket.Close() })
	go func() {
		message := make([]byte, 64)
		for {
			_, from, err := socket.ReadFromUDPAddrPort(message)
			if err != nil {
				return
			}
			_, _ = socket.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}()
}

// answerAt answers over UDP at a port.
func (p *place) answerAt(port int) {
	p.t.Helper()
	var socket *net.UDPConn
	err := p.do(func() (err error) { socket, err = net.ListenUDP("udp", &net.UDPAddr{Port: port}); return err })
	if err != nil {
		p.t.Fatalf("%s cannot answer: %v", p.name, err)
	}
	p.answer(socket)
}

// How long to wait for an answer that must come, and for one that must not: of
// the latter, each has a control that waits the longer time.
const (
	patience = time.Minute
	glance   = 400 * time.Millisecond
)

// ask sends something over "tcp", "udp" or "ping" and returns whom the other
// side saw ("" with ping).
func (p *place) ask(protocol string, target netip.Addr, port string, limit time.Duration) (seen string, err error) {
	err = p.do(func() error {
		if protocol == "ping" {
			return ping(target, limit)
		}
		connection, err := net.DialTimeout(protocol, net.JoinHostPort(target.String(), port), limit)
		if err != nil {
			return err
		}
		defer connection.Close()
		deadline := time.Now().Add(limit)
		answer := make([]byte, 64)
		for {
			// Who is asked over TCP speaks first. A packet can get lost before the
			// other side is known.
			if protocol == "udp" {
				if _, err := connection.Write([]byte("?")); err != nil {
					return err
				}
			}
			_ = connection.SetReadDeadline(time.Now().Add(min(time.Until(deadline), time.Second)))
			n, err := connection.Read(answer)
			if seen = string(answer[:n]); err == nil {
				return nil
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
				return err
			}
		}
	})
	return seen, err
}

// ping asks for an echo.
func ping(target netip.Addr, limit time.Duration) error {
	network, number := "ip4:icmp", 1
	var request icmp.Type = ipv4.ICMPTypeEcho
	var reply icmp.Type = ipv4.ICMPTypeEchoReply
	if target.Is6() {
		network, number, request, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	socket, err := icmp.ListenPacket(network, "")
	if err != nil {
		return err
	}
	defer socket.Close()
	id := int(time.Now().UnixNano() & 0xffff)
	message, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("devhost")}}).Marshal(nil)
	if err != nil {
		return err
	}
	_ = socket.SetDeadline(time.Now().Add(limit))
	if _, err := socket.WriteTo(message, &net.IPAddr{IP: target.AsSlice()}); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	for {
		n, _, err := socket.ReadFrom(answer)
		if err != nil {
			return err
		}
		parsed, err := icmp.ParseMessage(number, answer[:n])
		if err != nil {
			return err
		}
		if echo, ok := parsed.Body.(*icmp.Echo); ok && parsed.Type == reply && echo.ID == id {
			return nil
		}
	}
}

// mustReach checks a way that is open, and returns whom the other side saw.
func (p *place) mustReach(protocol string, what string, target netip.Addr, port string) string {
	p.t.Helper()
	seen, err := p.ask(protocol, target, port, patience)
	if err != nil {
		p.t.Errorf("%s does not reach %s (%s %s port %s): %v", p.name, what, protocol, target, port, err)
	}
	return seen
}

// mustNotReach checks a way that is closed.
func (p *place) mustNotReach(protocol string, what string, target netip.Addr, port string) {
	p.t.Helper()
	if _, err := p.ask(protocol, target, port, glance); err == nil {
		p.t.Errorf("%s reaches %s (%s %s port %s)", p.name, what, protocol, target, port)
	}
}

// here is the host itself.
func (h *host) here() *place { return &place{t: h.t, name: "the host"} }

// place is the network of a running container.
func (h *host) place(name string) *place {
	h.t.Helper()
	record := h.record(name)
	p := &place{t: h.t, name: "container " + name, path: h.namespace(name), addresses: []netip.Addr{netip.MustParseAddr(record.Address.IPv4)}}
	if record.Address.IPv6 != "" {
		p.addresses = append(p.addresses, netip.MustParseAddr(record.Address.IPv6))
	}
	return p
}

// namespace is the file of a running container's network.
func (h *host) namespace(name string) string {
	h.t.Helper()
	running, err := supervisor.ReadRecord(h.layout, name)
	if err != nil || running == nil || running.Leader.PID == 0 {
		h.t.Fatalf("container %s does not run: %+v, %v", name, running, err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", running.Leader.PID)
}

// neighbourhood is a network behind the host: a namespace with a cable to the
// host, which is its router. Everything in it is named after the instance, so
// that tests that run at the same time do not meet.
type neighbourhood struct {
	*place
	link string
	// host4 and host6 are the host's addresses there.
	host4, host6 netip.Addr
	metric       string
}

func (h *host) neighbourhood() *neighbourhood {
	t, instance := h.t, h.layout.Instance()
	t.Helper()
	number, err := strconv.ParseUint(instance[:4], 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	name := "e2e-" + instance
	n := &neighbourhood{
		place: &place{t: t, name: "somebody outside", path: "/run/netns/" + name}, link: "en" + instance,
		// Of the range for benchmarks, and of that for documentation.
		host4: netip.AddrFrom4([4]byte{198, 19, byte(number >> 8), byte(number)&0xfc | 1}),
		host6: netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", number)), metric: strconv.Itoa(1000 + int(number)),
	}
	n.addresses = []netip.Addr{n.host4.Next(), n.host6.Next()}
	tool(t, "ip", "netns", "add", name)
	t.Cleanup(func() { tool(t, "ip", "netns", "delete", name) })
	tool(t, "ip", "link", "add", n.link, "type", "veth", "peer", "name", "eth0", "netns", name)
	t.Cleanup(func() { tool(t, "ip", "link", "delete", n.link) })
	tool(t, "ip", "link", "set", n.link, "up")
	for _, command := range [][]string{
		{"link", "set", "lo", "up"}, {"link", "set", "eth0", "up"},
		{"address", "add", n.addresses[0].String() + "/30", "dev", "eth0"},
		{"address", "add", n.addresses[1].String() + "/64", "dev", "eth0", "nodad"},
		{"route", "add", "default", "via", n.host4.String()}, {"-6", "route", "add", "default", "via", n.host6.String()},
	} {
		tool(t, "ip", append([]string{"-n", name}, command...)...)
	}
	tool(t, "ip", "address", "add", n.host4.String()+"/30", "dev", n.link)
	tool(t, "ip", "address", "add", n.host6.String()+"/64", "dev", n.link, "nodad")
	n.serve()
	// They know each other's MAC addresses from now on.
	h.here().mustReach("udp", "the outside", n.addresses[1], n.port)
	return n
}

// alsoAt gives the outside another address, and serves there.
func (n *neighbourhood) alsoAt(address netip.Addr) *place {
	n.t.Helper()
	bits, gateway := "/32", n.addresses[0]
	if address.Is6() {
		bits, gateway = "/128", n.addresses[1]
	}
	tool(n.t, "ip", "-n", "e2e-"+n.link[2:], "address", "add", address.String()+bits, "dev", "lo")
	tool(n.t, "ip", "route", "add", address.String()+bits, "via", gateway.String(), "dev", n.link, "metric", n.metric)
	there := &place{t: n.t, name: "the outside at " + address.String(), path: n.path, addresses: []netip.Addr{address}}
	there.serveAt(address.String())
	return there
}
