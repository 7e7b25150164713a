package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"devhost/internal/registry"
)

// atOnce runs commands at the same time, and returns how they ended, by their
// number.
func (h *host) atOnce(commands [][]string) []result {
	h.t.Helper()
	results := make([]result, len(commands))
	var group sync.WaitGroup
	for i, args := range commands {
		group.Go(func() { results[i] = h.run(args...) })
	}
	group.Wait()
	return results
}

// mustAtOnce expects all of them to succeed.
func (h *host) mustAtOnce(commands [][]string) {
	h.t.Helper()
	for i, result := range h.atOnce(commands) {
		if result.status != 0 {
			h.t.Errorf("devhost %s ended with %d:\n%s%s", strings.Join(commands[i], " "), result.status, result.stdout, result.stderr)
		}
	}
}

// checkTogether looks at everything that the containers share: nothing of one
// of them may be lost, or left. running are those that run.
func (h *host) checkTogether(all, running []string) {
	h.t.Helper()
	var listed []listed
	h.decode(&listed, "list", "--json")
	var names []string
	for _, one := range listed {
		names = append(names, one.Name)
		want := "stopped"
		if slices.Contains(running, one.Name) {
			want = "running"
		}
		if one.Status != want {
			h.t.Errorf("container %s is %s (%s), not %s", one.Name, one.Status, one.Detail, want)
		}
	}
	slices.Sort(all)
	if !slices.Equal(names, all) {
		h.t.Errorf("listed are %v, not %v", names, all)
	}
	hosts, _ := os.ReadFile("/etc/hosts")
	taken := map[string]string{}
	ports := map[string]string{}
	bridge, err := netlink.LinkByName("dh-" + h.layout.Instance())
	if err != nil {
		h.t.Fatal(err)
	}
	var neighbours []netlink.Neigh
	waitFor(h.t, "the kernel lists its neighbours in one go", func() bool {
		neighbours, err = netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_ALL)
		return !errors.Is(err, netlink.ErrDumpInterrupted)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	rules := tool(h.t, "nft", "list", "table", "bridge", "devhost-"+h.layout.Instance())
	for _, name := range all {
		record := h.record(name)
		address := record.Address
		for _, value := range []string{address.IPv4, address.IPv6, address.MAC, address.HostInterface} {
			if other := taken[value]; value != "" && other != "" {
				h.t.Errorf("%s and %s both have %s", other, name, value)
			}
			taken[value] = name
		}
		for _, port := range record.ForwardPorts {
			if other := ports[port.Host()]; other != "" {
				h.t.Errorf("%s and %s both have port %s", other, name, port.Host())
			}
			ports[port.Host()] = name
		}
		for _, value := range []string{address.IPv4, address.IPv6} {
			if line := value + " " + name; strings.Count(string(hosts), line+" ")+strings.Count(string(hosts), line+"\n") != 1 {
				h.t.Errorf("/etc/hosts does not hold %q once:\n%s", line, hosts)
			}
		}
		for file, text := range map[string]string{name + ".json": address.IPv6, "vm-configs/" + name + ".json": address.IPv4} {
			content, err := os.ReadFile(filepath.Join(h.layout.Published(), file))
			if err != nil || !strings.Contains(string(content), `"`+text+`"`) {
				h.t.Errorf("what is published in %s is %q, %v", file, content, err)
			}
		}
		if !slices.Contains(running, name) {
			continue
		}
		for _, value := range []string{address.IPv4, address.IPv6} {
			ip := netip.MustParseAddr(value)
			if !slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
				return n.IP.String() == ip.String() && n.HardwareAddr.String() == address.MAC && n.State == netlink.NUD_PERMANENT
			}) {
				h.t.Errorf("the host does not know that %s of %s has %s", value, name, address.MAC)
			}
			if !strings.Contains(rules, fmt.Sprintf("%q . %s . %s", address.HostInterface, address.MAC, value)) {
				h.t.Errorf("the packet filter does not know %s of %s:\n%s", value, name, rules)
			}
			if !h.here().sshBanner(ip, 22, true) {
				h.t.Errorf("sshd of %s does not greet at %s", name, value)
			}
		}
		h.checkConsistent(name)
		if got := h.inside(name, "hostname"); got != name {
			h.t.Errorf("%s is called %q inside", name, got)
		}
		if got := h.inside(name, "ip -4 -o address show host0"); !strings.Contains(got, address.IPv4+"/32") {
			h.t.Errorf("%s has another address inside: %s", name, got)
		}
	}
	published, _ := filepath.Glob(filepath.Join(h.layout.Published(), "*.json"))
	if len(published) != len(all) {
		h.t.Errorf("published are %v", published)
	}
	var links []netlink.Link
	waitFor(h.t, "the kernel lists its interfaces in one go", func() bool {
		links, err = netlink.LinkList()
		return !errors.Is(err, netlink.ErrDumpInterrupted)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, link := range links {
		if link.Attrs().MasterIndex == bridge.Attrs().Index && taken[link.Attrs().Name] == "" {
			h.t.Errorf("interface %s is left on the bridge", link.Attrs().Name)
		}
	}
	for _, neighbour := range neighbours {
		if owner := taken[neighbour.IP.String()]; neighbour.State == netlink.NUD_PERMANENT && !slices.Contains(running, owner) {
			h.t.Errorf("the host still has the neighbour %s (%q)", neighbour.IP, owner)
		}
	}
	h.checkTemporaryEmpty()
}

// TestParallel: many people work at once. No address, route or file is lost,
// and nothing is left.
func TestParallel(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	const count = 20
	ports := freePorts(t, count)
	names := make([]string, count)
	ensure := make([][]string, count)
	for i := range count {
		names[i] = fmt.Sprintf("c%02d", i)
		ensure[i] = []string{
			"ensure", names[i], "--channel", offline(t), "--alias", "www", "--timeout", "5m", "--lock-timeout", "3m",
			fmt.Sprintf("--forward-port=%d:22", ports[i]), "--environment", []string{"even", "odd"}[i%2],
		}
	}
	h.mustAtOnce(ensure)
	h.checkTogether(slices.Clone(names), names)
	systems := map[string]bool{}
	for i, name := range names {
		systems[h.record(name).System] = true
		if !h.here().sshBanner(h.neighbourAddress(), ports[i], true) {
			t.Errorf("the forwarded port of %s does not lead to it", name)
		}
		// Peers know each other, and nobody else.
		known := h.inside(name, "cat /etc/hosts") + "\n"
		for j, other := range names {
			address := h.record(other).Address
			for _, line := range []string{address.IPv4 + " " + other + "\n", address.IPv6 + " " + other + "\n"} {
				if strings.Contains(known, line) != (i%2 == j%2) {
					t.Errorf("that %s knows %q is %t", name, line, i%2 != j%2)
				}
			}
		}
		h.must("ssh", name, "true")
	}
	if len(systems) != 1 {
		t.Errorf("they have the systems %v, not one", systems)
	}

	t.Run("unchanged", func(t *testing.T) {
		h := h.with(t)
		h.mustAtOnce(ensure)
		h.checkTogether(slices.Clone(names), names)
	})
	t.Run("a bit of everything", func(t *testing.T) {
		h := h.with(t)
		var commands [][]string
		for i, name := range names[:15] {
			commands = append(commands, [][]string{
				{"stop", name}, {"destroy", name}, {"restart", name}, {"ensure", name, "--alias", "other", "--memory", "1G"}, {"ensure", "new" + name, "--channel", offline(t), "--timeout", "5m"},
			}[i%5])
		}
		h.mustAtOnce(commands)
		var all, running []string
		for i, name := range names {
			gone, stopped := i < 15 && i%5 == 1, i < 15 && i%5 == 0
			if !gone {
				all = append(all, name)
			}
			if !gone && !stopped {
				running = append(running, name)
			}
			if i < 15 && i%5 == 4 {
				all, running = append(all, "new"+name), append(running, "new"+name)
			}
		}
		h.checkTogether(all, running)
	})
	t.Run("one port for all", func(t *testing.T) {
		h := h.with(t)
		want := freePorts(t, count+5)[count+4]
		var commands [][]string
		for _, name := range names[15:] {
			commands = append(commands, []string{"ensure", name, fmt.Sprintf("--forward-port=%d:22", want)})
		}
		winners := 0
		for i, result := range h.atOnce(commands) {
			switch {
			case result.status == 0:
				winners++
			case result.status != 6 || !strings.Contains(result.stderr, "it leads to container c"):
				t.Errorf("%v ended with %d: %s", commands[i], result.status, result.stderr)
			}
		}
		holders := 0
		for _, name := range names[15:] {
			if slices.ContainsFunc(h.record(name).ForwardPorts, func(port registry.ForwardPort) bool { return int(port.HostPort) == want }) {
				holders++
			}
		}
		if winners != 1 || holders != 1 {
			t.Errorf("%d have got the port, %d have it", winners, holders)
		}
	})
	var destroy [][]string
	folders, err := os.ReadDir(h.layout.Containers())
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		destroy = append(destroy, []string{"destroy", folder.Name(), "--lock-timeout", "3m"})
	}
	h.mustAtOnce(destroy)
	h.checkGone()
	// The host looks at the end whether anything is left.
}

// neighbourAddress is an address of the host that is not one of loopback.
func (h *host) neighbourAddress() netip.Addr {
	h.t.Helper()
	own := hostAddress(h.t)
	if own == "" {
		h.t.Skip("this host has no address but those of loopback")
	}
	return netip.MustParseAddr(own)
}

// TestParallelOneName: commands about one container wait for each other.
func TestParallelOneName(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	commands := make([][]string, 6)
	for i := range commands {
		commands[i] = []string{"ensure", "box", "--channel", offline(t), "--alias", fmt.Sprintf("a%d", i), "--timeout", "5m", "--lock-timeout", "3m"}
	}
	created := 0
	for i, result := range h.atOnce(commands) {
		if result.status != 0 {
			t.Errorf("%v ended with %d:\n%s", commands[i], result.status, result.stderr)
		}
		if strings.Contains(result.stdout, "created") {
			created++
		}
	}
	if created != 1 {
		t.Errorf("it was created %d times", created)
	}
	if aliases := h.record("box").Aliases; len(aliases) != 1 {
		t.Errorf("it has the aliases %v, not those of the last one", aliases)
	}
	h.checkTogether([]string{"box"}, []string{"box"})
	// Who comes too late finds it gone; nobody leaves half of it.
	mixed := [][]string{{"destroy", "box"}, {"ensure", "box", "--channel", offline(t), "--timeout", "5m"}, {"destroy", "box"}, {"stop", "box"}}
	for i, result := range h.atOnce(mixed) {
		if result.status != 0 && result.status != 4 {
			t.Errorf("%v ended with %d:\n%s", mixed[i], result.status, result.stderr)
		}
	}
	h.run("destroy", "box", "--missing-ok")
	h.checkGone()
}
