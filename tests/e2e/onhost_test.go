package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"devhost/internal/registry"
)

// get is what a web server says, "" while it does not answer.
func get(url string) string {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return strings.TrimSpace(string(text))
}

// TestDeclaredOnHost: a declared container in the host's network serves on the
// host's ports, is found by ssh, and has no right over the network.
func TestDeclaredOnHost(t *testing.T) {
	needsFullRun(t)
	h := newDeclaringHost(t)
	instance := h.layout.Instance()
	name, other := "net"+instance, "priv"+instance
	port := freePorts(t, 1)[0]
	web := provision(t, fmt.Sprintf(`{ pkgs, ... }: {
  environment.etc."www/index.html".text = "from the container";
  systemd.services.web = {
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ];
    after = [ "network-online.target" ];
    serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --bind 127.0.0.1 --directory /etc/www %d";
    serviceConfig.DynamicUser = true;
  };
}
`, port))
	declared := map[string]any{"name": name, "channel": offline(t), "provision": web, "network": "host", "environment": "shop", "expiry": true}
	private := map[string]any{"name": other, "channel": offline(t), "provision": filepath.Join(example(t, "minimal"), "provision.nix"), "environment": "shop"}
	interfaces := func() string {
		t.Helper()
		text, err := exec.Command("ip", "-brief", "address", "show", "lo").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := interfaces()
	h.declare(declared, private)
	h.wantApplied(name+": created", other+": created")
	serves := func(t *testing.T) {
		t.Helper()
		// A service is up before it listens.
		waitFor(t, fmt.Sprintf("the host's port %d says what the container serves", port), func() bool {
			return get(fmt.Sprintf("http://127.0.0.1:%d/", port)) == "from the container"
		})
	}

	t.Run("reached", func(t *testing.T) {
		h := h.with(t)
		serves(t)
		status := h.status(name)
		if !strings.HasPrefix(status.IPv4, "127.") || h.record(name).Address.SSHPort == 0 {
			t.Errorf("it is %+v", status)
		}
		if said := h.must("status", name); !strings.Contains(said, "the host's; ssh on port") {
			t.Errorf("status says:\n%s", said)
		}
		if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
			t.Errorf("by ssh it is %q", found)
		}
		config := filepath.Join(h.layout.SSH(name), "config")
		if output, err := exec.Command("ssh", "-F", config, name, "whoami").CombinedOutput(); err != nil || strings.TrimSpace(string(output)) != "developer" {
			t.Errorf("plain ssh: %v\n%s", err, output)
		}
		if addresses, err := net.LookupHost(name); err != nil || addresses[0] != status.IPv4 {
			t.Errorf("its name leads to %v, not to %s: %v", addresses, status.IPv4, err)
		}
		if found := h.inside(name, "cat /etc/hosts; systemctl is-active systemd-networkd; systemctl --failed --plain --no-legend"); !strings.Contains(found, status.IPv4+" ") || !strings.Contains(found, h.status(other).IPv4) || !strings.HasSuffix(found, "\ninactive") {
			t.Errorf("inside: %q", found)
		}
		// Where its peer is, that address is its own.
		if found := h.inside(other, "cat /etc/hosts"); strings.Contains(found, name) {
			t.Errorf("the private one knows it:\n%s", found)
		}
		h.fails(1, []string{"has the network of this host"}, "ip", "-6", name)
	})
	t.Run("no right over the network", func(t *testing.T) {
		h := h.with(t)
		for _, script := range []string{
			"ip link set lo down", "ip address add 127.3.2.1/32 dev lo", "ip address del 127.0.0.1/8 dev lo", "ip route add blackhole 192.0.2.0/24",
			"ip link add devhostx type dummy", "nft add table inet devhostx", "echo 1 >/proc/sys/net/ipv4/conf/lo/forwarding",
			"mkdir -p /root/proc && mount -t proc proc /root/proc; echo 1 >/root/proc/sys/net/ipv4/conf/lo/forwarding", "echo 1500 >/sys/class/net/lo/mtu",
			// A namespace of its own has its own rights, and leads to none here.
			"unshare --user --map-root-user ip link set lo down",
			"nsenter --net=/proc/1/ns/net ip link set lo down",
			"python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
			"python3 -c 'import socket; socket.socket().bind((\"127.0.0.1\", 1023))'",
		} {
			// That it is there, and that it is this that fails.
			result := h.run("exec", name, "--", "sh", "-c", script)
			t.Logf("%s: %s", script, result.stderr)
			if result.status == 0 || result.status == 126 || result.status == 127 || strings.Contains(result.stderr, "not found") {
				t.Errorf("%s ended with %d:\n%s%s", script, result.status, result.stdout, result.stderr)
			}
		}
		if after := interfaces(); after != before {
			t.Errorf("the host's interface was\n%sand is\n%s", before, after)
		}
	})
	t.Run("again", func(t *testing.T) {
		h := h.with(t)
		address := h.record(name).Address
		h.inside(name, "touch /root/kept")
		started := h.status(name).StartedAt
		h.run("exec", name, "--", "systemctl", "reboot")
		waitFor(t, "it has rebooted", func() bool {
			status := h.status(name)
			return status.Status == "running" && status.StartedAt.After(started)
		})
		h.must("start", name)
		h.must("stop", name)
		if said := get(fmt.Sprintf("http://127.0.0.1:%d/", port)); said != "" {
			t.Errorf("when it is stopped, the host's port says %q", said)
		}
		h.must("start", name)
		h.must("restart", name)
		if now := h.record(name).Address; now != address {
			t.Errorf("its address was %+v and is %+v", address, now)
		}
		h.inside(name, "test -e /root/kept")
		waitFor(t, "it serves again", func() bool { return get(fmt.Sprintf("http://127.0.0.1:%d/", port)) != "" })
		if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
			t.Errorf("by ssh it is %q", found)
		}
		h.wantApplied(name+": unchanged", other+": unchanged")
	})
	t.Run("people", func(t *testing.T) {
		h := h.with(t)
		// What they make of it has a network of its own.
		copied := "copy" + instance
		h.must("clone", name, copied)
		defer h.must("destroy", copied)
		if record := h.record(copied); record.Address.OnHost() || record.Declared != nil {
			t.Errorf("the clone is %+v", record)
		}
		if found := h.inside(copied, "ls /sys/class/net"); !strings.Contains(found, "host0") {
			t.Errorf("the clone has %q", found)
		}
		h.fails(7, []string{"declared by the configuration"}, "ensure", name, "--nesting")
	})
	t.Run("changed", func(t *testing.T) {
		h := h.with(t)
		address := h.record(name).Address
		declared["network"] = "private"
		h.declare(declared, private)
		if result := h.run("host", "apply"); result.status != 0 || !strings.Contains(result.stderr, "devhost restart "+name) {
			t.Errorf("host apply ended with %d:\n%s", result.status, result.stderr)
		}
		if h.record(name).Address != address {
			t.Errorf("it runs in the host's network, and its address is %+v", h.record(name).Address)
		}
		serves(t)
		h.must("restart", name)
		if now := h.record(name).Address; now.OnHost() || now == (registry.Address{}) {
			t.Errorf("its address is %+v", now)
		}
		if found := h.inside(name, "ls /sys/class/net; ls /run/devhost"); !strings.Contains(found, "host0") || strings.Contains(found, "sshd.conf") {
			t.Errorf("inside: %q", found)
		}
		if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
			t.Errorf("by ssh it is %q", found)
		}
		declared["network"] = "host"
		h.declare(declared, private)
		h.must("stop", name)
		h.apply()
		h.must("start", name)
		waitFor(t, "it serves again", func() bool { return get(fmt.Sprintf("http://127.0.0.1:%d/", port)) != "" })
		if now := h.record(name).Address; now != address {
			t.Errorf("its address was %+v and is %+v", address, now)
		}
	})
	t.Run("in use", func(t *testing.T) {
		h := h.with(t)
		h.sweep(6*day, name+": will be stopped on ")
		due := func() string { return h.at(8*day, "expire", "--dry-run").stdout }
		person := h.command("ssh", name, "sleep", "86396")
		if err := person.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the session counts", func() bool { return strings.Contains(due(), "in use (1 ssh session)") })
		_ = person.Process.Signal(syscall.SIGTERM)
		_ = person.Wait()
		waitFor(t, "it has ended", func() bool { return !strings.Contains(due(), "in use") })
		// It cannot keep itself in use.
		address := h.record(name).Address
		h.inside(name, fmt.Sprintf(`systemd-run --quiet --unit=clinger python3 -c 'import socket, time; own = socket.create_connection(("%s", %d)); time.sleep(100)'
until ss -Htn state established dport = %[2]d | grep -q .; do sleep 0.1; done`, address.IPv4, address.SSHPort))
		if said := due(); !strings.Contains(said, name) || strings.Contains(said, "in use") {
			t.Errorf("expire says:\n%s", said)
		}
		h.inside(name, "systemctl stop clinger")
	})
	t.Run("its port is taken", func(t *testing.T) {
		h := h.with(t)
		before := h.record(name).Address
		h.must("stop", name)
		thief, err := net.Listen("tcp", before.OnHostSSH().String())
		if err != nil {
			t.Fatal(err)
		}
		defer thief.Close()
		h.must("start", name)
		if now := h.record(name).Address; now.IPv4 != before.IPv4 || now.SSHPort == before.SSHPort {
			t.Errorf("its address was %+v and is %+v", before, now)
		}
		if found := strings.TrimSpace(h.must("ssh", name, "hostname")); found != name {
			t.Errorf("by ssh it is %q", found)
		}
	})
	t.Run("brought back", func(t *testing.T) {
		h := h.with(t)
		h.declare(private)
		h.wantApplied(name+": removed, and archived", other+": unchanged")
		h.must("undelete", name)
		defer h.must("destroy", name)
		if record := h.record(name); record.Address.OnHost() || record.Declared != nil {
			t.Errorf("it came back as %+v", record)
		}
		if found := h.inside(name, "ls /sys/class/net"); !strings.Contains(found, "host0") {
			t.Errorf("it came back with %q", found)
		}
	})
	t.Run("what it cannot have", func(t *testing.T) {
		h := h.with(t)
		h.declare(map[string]any{"name": name, "channel": offline(t), "network": "host", "aliases": []string{"www"}}, private)
		h.fails(2, []string{"containers[0].aliases: with the host's network", `take the network "private"`}, "host", "apply")
		h.declare(private)
	})
}
