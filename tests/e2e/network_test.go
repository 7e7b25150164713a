package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"devhost/internal/registry"
)

var protocols = []string{"tcp", "udp", "ping"}

// family names the family of an address.
func family(address netip.Addr) string {
	if address.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// TestNetworkPolicy: who reaches whom, with real containers, over TCP, UDP and
// ping, for both families. Package network tests the rules one by one.
func TestNetworkPolicy(t *testing.T) {
	needsFullRun(t)
	h, other := newHost(t), newHost(t)
	h.configure(`{"version": 1, "allowedGroups": ["nogroup"]}`)
	channel := offline(t)
	h.must("ensure", "one", "--channel", channel, "--environment", "shop")
	h.must("ensure", "two", "--channel", channel, "--environment", "shop")
	h.must("ensure", "three", "--channel", channel, "--environment", "blog")
	h.must("ensure", "four", "--channel", channel)
	h.must("ensure", "five", "--channel", channel)
	person := h.throughSudo()
	person.must("ensure", "theirs", "--channel", channel, "--environment", "shop")
	if owner := h.record("theirs").Owner; owner != "nobody" {
		t.Fatalf("the owner of the other person's container is %q", owner)
	}
	other.must("ensure", "one", "--channel", channel, "--environment", "shop")

	outside, here := h.neighbourhood(), h.here()
	places := map[string]*place{"elsewhere": other.place("one")}
	for _, name := range []string{"one", "two", "three", "four", "five", "theirs"} {
		places[name] = h.place(name)
	}
	for _, place := range places {
		place.serve()
	}
	t.Run("containers", func(t *testing.T) {
		for _, test := range []struct {
			name, from, to string
			reaches        bool
		}{
			{"itself", "one", "one", true},
			{"same owner and environment", "one", "two", true},
			{"and back", "two", "one", true},
			{"same owner, another environment", "one", "three", false},
			{"and back", "three", "one", false},
			{"same owner, no environment", "one", "four", false},
			{"from none to one", "four", "one", false},
			{"none and none", "four", "five", false},
			{"another person's, same environment", "theirs", "one", false},
			{"to another person's", "one", "theirs", false},
			{"to one of another state folder, same owner, environment and name", "one", "elsewhere", false},
			{"from there", "elsewhere", "one", false},
		} {
			from, to := *places[test.from], places[test.to]
			from.t = t
			for _, address := range to.addresses {
				for _, protocol := range protocols {
					if !test.reaches {
						from.mustNotReach(protocol, test.name, address, to.port)
						continue
					}
					seen := from.mustReach(protocol, test.name, address, to.port)
					if own, err := netip.ParseAddr(seen); protocol != "ping" && (err != nil || !slices.Contains(from.addresses, own)) {
						t.Errorf("%s: it is seen as %q over %s, not by its own address", test.name, seen, protocol)
					}
				}
			}
		}
	})
	t.Run("from the host", func(t *testing.T) {
		for _, to := range places {
			for _, address := range to.addresses {
				for _, protocol := range protocols {
					(&place{t: t, name: "the host"}).mustReach(protocol, to.name, address, to.port)
				}
			}
		}
		// Anybody on the host is the host.
		to := places["theirs"]
		if output, err := asStranger(exec.Command("bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%s", to.addresses[0], to.port))).CombinedOutput(); err != nil {
			t.Errorf("a user of the host does not reach a container: %v\n%s", err, output)
		}
	})
	t.Run("from outside", func(t *testing.T) {
		from := *outside.place
		from.t = t
		// The control: the outside has a way to the host and back, and the host
		// forwards.
		for _, address := range []netip.Addr{outside.host4, outside.host6} {
			from.mustReach("ping", "the host", address, "")
		}
		for _, to := range []*place{places["one"], places["theirs"], places["elsewhere"]} {
			for _, address := range to.addresses {
				for _, protocol := range protocols {
					from.mustNotReach(protocol, to.name, address, to.port)
				}
				from.mustNotReach("tcp", "sshd of "+to.name, address, "22")
			}
		}
	})
	t.Run("to the outside", func(t *testing.T) {
		for _, from := range []*place{places["one"], places["theirs"], places["elsewhere"]} {
			from := *from
			from.t = t
			for i, address := range outside.addresses {
				host := []netip.Addr{outside.host4, outside.host6}[i]
				for _, protocol := range protocols {
					if seen := from.mustReach(protocol, "the outside", address, outside.port); protocol != "ping" && seen != host.String() {
						t.Errorf("outside, %s is seen as %s over %s, not as its host %s", from.name, seen, protocol, host)
					}
				}
			}
		}
	})
	t.Run("services of the host", func(t *testing.T) {
		here := *here
		here.t = t
		here.serve()
		for _, name := range []string{"one", "theirs"} {
			guest := *places[name]
			guest.t = t
			for _, address := range append(gateways(t, h, name), outside.host4, outside.host6) {
				for _, protocol := range []string{"tcp", "udp"} {
					here.mustReach(protocol, "itself", address, here.port)
					guest.mustNotReach(protocol, "a service of the host", address, here.port)
				}
			}
			if own := hostAddress(t); own != "" {
				guest.mustNotReach("tcp", "a service of the host", netip.MustParseAddr(own), here.port)
			}
		}
		control := *outside.place
		control.t = t
		control.mustReach("tcp", "the host's service, which listens everywhere", outside.host4, here.port)
		control.mustReach("udp", "the host's service, which listens everywhere", outside.host6, here.port)
	})
	t.Run("metadata services", func(t *testing.T) {
		here, guest := *here, *places["one"]
		here.t, guest.t = t, t
		for _, text := range []string{"169.254.169.254", "fd00:ec2::254"} {
			address := netip.MustParseAddr(text)
			service := outside.alsoAt(address)
			for _, protocol := range protocols {
				here.mustReach(protocol, "a metadata service (control)", address, service.port)
				guest.mustNotReach(protocol, "a metadata service", address, service.port)
			}
		}
	})
	t.Run("as somebody else", func(t *testing.T) { checkSpoofing(t, h, outside) })
}

// gateways are the host's addresses on the bridge of a container.
func gateways(t *testing.T, h *host, name string) []netip.Addr {
	t.Helper()
	var found []netip.Addr
	for _, version := range []string{"-4", "-6"} {
		words := strings.Fields(h.must("exec", name, "--", "ip", version, "route", "show", "default"))
		if len(words) < 3 || words[1] != "via" {
			t.Fatalf("the default route of %s is %v", name, words)
		}
		found = append(found, netip.MustParseAddr(words[2]))
	}
	return found
}

// checkSpoofing sends from a container with addresses that are not its own.
func checkSpoofing(t *testing.T, h *host, outside *neighbourhood) {
	guest, victim := h.place("one"), h.place("two")
	guest.t = t
	in := func(args ...string) {
		t.Helper()
		tool(t, "nsenter", append([]string{"--net=" + guest.path, "ip"}, args...)...)
	}
	// One packet is enough, no answer is waited for: it could not come back.
	arrives := func(source netip.Addr, target netip.Addr, mustWork bool) bool {
		t.Helper()
		var socket *net.UDPConn
		if err := outside.do(func() (err error) { socket, err = net.ListenUDP("udp", &net.UDPAddr{}); return err }); err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		port := socket.LocalAddr().(*net.UDPAddr).Port
		limit := glance
		if mustWork {
			limit = patience
		}
		err := guest.do(func() error {
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}
			connection, err := dialer.Dial("udp", net.JoinHostPort(target.String(), fmt.Sprint(port)))
			if err != nil {
				return err
			}
			defer connection.Close()
			_, err = connection.Write([]byte("x"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = socket.SetReadDeadline(time.Now().Add(limit))
		_, _, err = socket.ReadFromUDP(make([]byte, 8))
		return err == nil
	}
	foreign := []netip.Addr{victim.addresses[0], victim.addresses[1], netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8:dead::77")}
	targets := map[string]netip.Addr{"IPv4": outside.addresses[0], "IPv6": outside.addresses[1]}
	for _, own := range guest.addresses {
		if !arrives(own, targets[family(own)], true) {
			t.Errorf("control: nothing arrives from its own address %s", own)
		}
	}
	for _, address := range foreign {
		bits := fmt.Sprintf("/%d", address.BitLen())
		add := []string{"address", "add", address.String() + bits, "dev", "host0"}
		if address.Is6() {
			add = append(add, "nodad")
		}
		in(add...)
		if arrives(address, targets[family(address)], false) {
			t.Errorf("a packet from %s, which is not its own, arrives", address)
		}
		in("address", "delete", address.String()+bits, "dev", "host0")
	}
	mac := h.record("one").Address.MAC
	in("link", "set", "host0", "address", "02:00:00:00:00:99")
	for _, own := range guest.addresses {
		if arrives(own, targets[family(own)], false) {
			t.Errorf("a frame with another MAC address arrives from %s", own)
		}
	}
	in("link", "set", "host0", "address", h.record("two").Address.MAC)
	for _, own := range guest.addresses {
		if arrives(own, targets[family(own)], false) {
			t.Errorf("a frame with another container's MAC address arrives from %s", own)
		}
	}
	in("link", "set", "host0", "address", mac)
	for _, own := range guest.addresses {
		if !arrives(own, targets[family(own)], true) {
			t.Errorf("control: nothing arrives from its own address %s any more", own)
		}
	}
	h.here().mustReach("ping", "the victim, afterwards", victim.addresses[1], "")
}

// sshBanner tells whether sshd greets at an address, seen from a place.
func (p *place) sshBanner(address netip.Addr, port int, mustWork bool) bool {
	limit := glance
	if mustWork {
		limit = patience
	}
	seen, err := p.ask("tcp", address, fmt.Sprint(port), limit)
	return err == nil && strings.HasPrefix(seen, "SSH-")
}

// freePorts are ports of the host that nobody has.
func freePorts(t *testing.T, count int) []int {
	t.Helper()
	var ports []int
	for port := 21000 + os.Getpid()%5000; len(ports) < count; port++ {
		stream, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		packets, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err == nil {
			_ = packets.Close()
			ports = append(ports, port)
		}
		_ = stream.Close()
	}
	return ports
}

// TestForwardPorts: ports of the host that lead to containers.
func TestForwardPorts(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	channel := offline(t)
	ports := freePorts(t, 4)
	ssh, dns, second := ports[0], ports[1], ports[2]
	option := func(host, guest int, rest string) string {
		return fmt.Sprintf("--forward-port=%d:%d%s", host, guest, rest)
	}
	h.must("ensure", "one", "--channel", channel, option(ssh, 22, ""), option(dns, 5353, "/udp"))
	outside, here := h.neighbourhood(), h.here()
	at := []netip.Addr{outside.host4, outside.host6}
	open := func(what string, port int) {
		t.Helper()
		for _, address := range at {
			if !outside.sshBanner(address, port, true) {
				t.Errorf("%s: sshd does not greet outside at %s port %d", what, address, port)
			}
			if !here.sshBanner(address, port, true) {
				t.Errorf("%s: sshd does not greet on the host at %s port %d", what, address, port)
			}
		}
	}
	closed := func(what string, port int) {
		t.Helper()
		for _, address := range at {
			if outside.sshBanner(address, port, false) {
				t.Errorf("%s: sshd greets outside at %s port %d", what, address, port)
			}
		}
	}
	open("as it was made", ssh)
	closed("another port", second)
	for _, loopback := range []string{"127.0.0.1", "::1"} {
		if here.sshBanner(netip.MustParseAddr(loopback), ssh, false) {
			t.Errorf("%s leads to the container", loopback)
		}
	}
	h.place("one").answerAt(5353)
	for i, address := range at {
		if seen := outside.mustReach("udp", "the forwarded port", address, fmt.Sprint(dns)); seen != outside.addresses[i].String() {
			t.Errorf("the container sees %s, not who asks (%s)", seen, outside.addresses[i])
		}
	}

	t.Run("what is shown", func(t *testing.T) {
		want := []registry.ForwardPort{{Protocol: "tcp", HostPort: uint16(ssh), GuestPort: 22}, {Protocol: "udp", HostPort: uint16(dns), GuestPort: 5353}}
		var status struct{ ForwardPorts []registry.ForwardPort }
		var list []struct{ ForwardPorts []registry.ForwardPort }
		var published struct{ ForwardPorts []registry.ForwardPort }
		h := h.with(t)
		h.decode(&status, "status", "one", "--json")
		h.decode(&list, "list", "--json")
		if err := json.Unmarshal([]byte(readFile(t, filepath.Join(h.layout.Published(), "one.json"))), &published); err != nil {
			t.Error(err)
		}
		if !slices.Equal(status.ForwardPorts, want) || len(list) != 1 || !slices.Equal(list[0].ForwardPorts, want) || !slices.Equal(published.ForwardPorts, want) {
			t.Errorf("status %v, list %v, published %v", status, list, published)
		}
		if text := h.must("status", "one"); !strings.Contains(text, fmt.Sprintf("%d:22/tcp %d:5353/udp", ssh, dns)) {
			t.Errorf("status says:\n%s", text)
		}
	})
	t.Run("ports that cannot be had", func(t *testing.T) {
		h := h.with(t)
		taken, err := net.Listen("tcp", fmt.Sprintf(":%d", ports[3]))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		for _, test := range []struct {
			name, option string
			status       int
			text         string
		}{
			{"another container's", option(ssh, 80, ""), 6, "it leads to container one"},
			{"a program's", option(ports[3], 80, ""), 6, "a program of the host listens there"},
			{"of the host's sshd", option(22, 22, ""), 2, "the settings of this host allow 1024-32767"},
			{"of a web server", option(443, 443, ""), 2, "the settings of this host allow 1024-32767"},
			{"nonsense", "--forward-port=80", 2, "write it as 8080:80"},
			{"an address", "--forward-port=127.0.0.1:8080:80", 2, "write it as 8080:80"},
			{"zero", option(0, 80, ""), 2, "no port from 1 to 65535"},
		} {
			t.Run(test.name, func(t *testing.T) {
				h.with(t).fails(test.status, []string{test.text}, "ensure", "two", "--channel", channel, test.option)
				h.with(t).fails(test.status, []string{test.text}, "ensure", "two", "--channel", channel, test.option)
			})
		}
		h.fails(2, []string{"is forwarded twice"}, "ensure", "two", "--channel", channel, option(second, 80, ""), option(second, 81, ""))
		h.checkListed("one")
	})
	t.Run("while it runs", func(t *testing.T) {
		h := h.with(t)
		began := h.status("one").StartedAt
		h.must("ensure", "one", option(second, 22, ""))
		open("another port", second)
		closed("the port of before", ssh)
		h.must("ensure", "two", "--channel", channel, option(ssh, 22, ""))
		open("a port that became free", ssh)
		h.must("ensure", "two", "--forward-port=")
		closed("a port that was taken back", ssh)
		if !h.status("one").StartedAt.Equal(began) {
			t.Error("the container was restarted")
		}
		if fields := h.record("two").ForwardPorts; len(fields) != 0 {
			t.Errorf("the record has %v", fields)
		}
		h.must("destroy", "two")
	})
	t.Run("stop and start", func(t *testing.T) {
		h := h.with(t)
		h.must("stop", "one")
		closed("a stopped container", second)
		h.must("start", "one")
		open("started again", second)
		h.must("restart", "one")
		open("restarted", second)
		if got := h.must("ensure", "one"); !strings.Contains(got, "unchanged") {
			t.Errorf("ensure without ports says %q", got)
		}
		open("after an ensure without ports", second)
	})
	t.Run("somebody removes bridge and rules", func(t *testing.T) { checkRestore(t, h.with(t), func() { open("restored", second) }) })
	h.must("destroy", "one")
	closed("destroyed", second)
}

// checkRestore removes what is not devhost's alone to remove, as a reload of
// the host's firewall does, or a restart of the host.
func checkRestore(t *testing.T, h *host, works func()) {
	instance, address := h.layout.Instance(), h.record("one").Address.IPv4
	const complaint = "bridge or packet filter of the containers is missing"
	for _, repair := range []struct {
		name string
		args []string
	}{
		{"by an ensure of another container", []string{"ensure", "two", "--channel", offline(t)}},
		{"by an ensure with nothing to do", []string{"ensure", "one"}},
		{"at boot", []string{"boot"}},
	} {
		t.Run(repair.name, func(t *testing.T) {
			h := h.with(t)
			tool(t, "nft", "delete", "table", "inet", "devhost-"+instance)
			tool(t, "nft", "delete", "table", "bridge", "devhost-"+instance)
			tool(t, "ip", "link", "delete", "dh-"+instance)
			if findings := h.run("doctor").stdout; !strings.Contains(findings, complaint) {
				t.Errorf("doctor does not say that they are gone:\n%s", findings)
			}
			if h.here().sshBanner(netip.MustParseAddr(address), 22, false) {
				t.Error("control: the container is reached without a bridge")
			}
			h.must(repair.args...)
			works()
			if !h.here().sshBanner(netip.MustParseAddr(address), 22, true) {
				t.Error("the container is not reached at its own address")
			}
			if findings := h.run("doctor").stdout; strings.Contains(findings, complaint) {
				t.Errorf("doctor still says that they are gone:\n%s", findings)
			}
		})
	}
	h.must("destroy", "two")
}

// TestNetworkSettings: the pools of the host's settings, a routed IPv6 network,
// and no address translation.
func TestNetworkSettings(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	outside := h.neighbourhood()
	// The containers' network is a part of the one that was assigned to the
	// host, and which is routed to it as a whole.
	number := h.layout.Instance()[:4]
	assigned := fmt.Sprintf("2001:db8:%s:8000::/49", number)
	tool(t, "ip", "-6", "route", "add", "unreachable", assigned, "metric", outside.metric)
	t.Cleanup(func() { tool(t, "ip", "-6", "route", "delete", "unreachable", assigned, "metric", outside.metric) })
	pool4, pool6 := netip.MustParsePrefix("10.213."+fmt.Sprint(outside.host4.As4()[3])+".0/24"), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%s:8007::/64", number))
	settings := func(network string) { h.configure(`{"version": 1, "network": {` + network + `}}`) }
	settings(fmt.Sprintf(`"ipv4Pool": "%s", "ipv6Pool": "%s", "ipv6Routed": true, "nat": false, "forwardPorts": ["22", "25000-25999"]`, pool4, pool6))
	port := 25000 + os.Getpid()%1000
	h.must("ensure", "box", "--channel", offline(t), fmt.Sprintf("--forward-port=%d:22", port))
	box, here := h.place("box"), h.here()
	if !pool4.Contains(box.addresses[0]) || !pool6.Contains(box.addresses[1]) {
		t.Errorf("the container has the addresses %v", box.addresses)
	}
	box.serve()
	for i, own := range box.addresses {
		if seen := box.mustReach("tcp", "the outside", outside.addresses[i], outside.port); seen != own.String() {
			t.Errorf("outside, the container is seen as %s, not by its own address %s", seen, own)
		}
		outside.mustNotReach("tcp", "a port that is not open", own, box.port)
		if !here.sshBanner(own, 22, true) {
			t.Errorf("the host does not reach %s", own)
		}
	}
	if !outside.sshBanner(box.addresses[1], 22, true) {
		t.Error("the open port is not open at the container's own, routed address")
	}
	if outside.sshBanner(box.addresses[0], 22, false) {
		t.Error("the open port is open at the container's private address")
	}
	for _, address := range []netip.Addr{outside.host4, outside.host6} {
		if !outside.sshBanner(address, port, true) {
			t.Errorf("the open port is not open at the host's address %s", address)
		}
	}
	h.fails(2, []string{"the settings of this host allow 22, 25000-25999"}, "ensure", "box", "--forward-port=8080:80")
	// 22 is allowed here, and the host's sshd, if there is one, has it.
	sshd, err := net.Listen("tcp", ":22")
	if err == nil {
		defer sshd.Close()
	}
	h.fails(6, []string{"a program of the host listens there"}, "ensure", "box", "--forward-port=22:22")
	h.must("ensure", "box", "--forward-port=")
	if outside.sshBanner(box.addresses[1], 22, false) {
		t.Error("a closed port is open at the container's own address")
	}

	// The network stays while there is a container, and doctor says so.
	settings(`"ipv4Pool": "10.214.0.0/24"`)
	h.must("ensure", "other", "--channel", offline(t))
	if address := netip.MustParseAddr(h.ip("other")); !pool4.Contains(address) {
		t.Errorf("another container has the address %s", address)
	}
	said := h.run("doctor").stdout
	for _, text := range []string{"network.ipv4Pool of the settings is 10.214.0.0/24, but the containers have " + pool4.String(), "network.nat", "network.ipv6Routed"} {
		if !strings.Contains(said, text) {
			t.Errorf("doctor does not say %q:\n%s", text, said)
		}
	}
	h.must("destroy", "box", "other")
	h.must("ensure", "box", "--channel", offline(t))
	if address := h.ip("box"); !strings.HasPrefix(address, "10.214.0.") {
		t.Errorf("a new network has the address %s", address)
	}
	if said := h.run("doctor").stdout; strings.Contains(said, "network.") {
		t.Errorf("doctor says:\n%s", said)
	}
	h.must("destroy", "box")

	// A pool that the host has already.
	settings(fmt.Sprintf(`"ipv6Pool": "%s", "ipv6Routed": true`, pool6))
	tool(t, "ip", "-6", "route", "add", "unreachable", pool6.String(), "metric", outside.metric)
	t.Cleanup(func() {
		tool(t, "ip", "-6", "route", "delete", "unreachable", pool6.String(), "metric", outside.metric)
	})
	h.fails(1, []string{"no network can be chosen", pool6.String() + " overlaps"}, "ensure", "box", "--channel", offline(t))
}
