package box_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/tests/box"
)

// nixosHost is a box that is NixOS, and a dev host by services.devhost. Figures
// are what happened in it, for scripts/e2e-nixos.
type nixosHost struct {
	*box.Host
	figures []string
	// taken are the ids of the machine's build users, whose processes the
	// machine's Nix daemon kills in the box too. NixOS would give the first to
	// its sshd.
	taken string
}

// build makes a system of bed/host.nix, and the box' profile lead to it.
func (h *nixosHost) build(services, extra string) {
	h.T.Helper()
	configuration := fmt.Sprintf("import /srv/nixos/bed/host.nix { devhost = /srv/devhost; services = %s; extra = %s; taken = [ %s ]; }", services, extra, h.taken)
	h.Must("root", fmt.Sprintf("nix-build --quiet /srv/nixos/nixos -A system -o /root/system --argstr system $(uname -m)-linux --arg configuration %s 2>&1 && nix-env -p %s --set \"$(readlink -f /root/system)\"",
		box.Quote(configuration), box.SystemProfile))
}

// change is what nixos-rebuild switch does.
func (h *nixosHost) change(services, extra string) {
	h.T.Helper()
	h.build(services, extra)
	h.T.Log(h.Must("root", box.SystemProfile+"/bin/switch-to-configuration switch 2>&1"))
	h.figures = append(h.figures, "box: switched to its new system (the host)")
	h.healthy()
}

func (h *nixosHost) reboot(containers ...string) {
	h.T.Helper()
	h.RestartBox()
	h.figures = append(h.figures, "box: started (the host)")
	for _, name := range containers {
		h.figures = append(h.figures, name+": started (in the box)")
	}
	h.healthy()
}

// healthy says whether no unit of the host has failed.
func (h *nixosHost) healthy() {
	h.T.Helper()
	if units := strings.Fields(h.Must("root", "systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")); len(units) != 0 {
		h.T.Errorf("units that failed: %d %v", len(units), units)
	}
}

// leaders are the containers' first processes, as machined has them.
func (h *nixosHost) leaders(names ...string) map[string]string {
	h.T.Helper()
	leaders := map[string]string{}
	for _, name := range names {
		leaders[name] = strings.TrimSpace(h.Must("root", "machinectl show --property Leader --value "+name))
	}
	return leaders
}

// inside runs a script of the shell as root of a container.
func (h *nixosHost) inside(name, script string) string {
	h.T.Helper()
	return strings.TrimSpace(h.Must("alice", "sudo -n devhost exec "+name+" -- sh -c "+box.Quote(script)))
}

// wantNames looks names up as somebody who has nothing to do with devhost.
func (h *nixosHost) wantNames(names ...string) {
	h.T.Helper()
	for _, name := range names {
		address := strings.TrimSpace(h.Must("alice", "sudo -n devhost ip "+name))
		if got := h.Must("mallory", "getent ahostsv4 "+name); !strings.HasPrefix(got, address+" ") {
			h.T.Errorf("on the host, %s is %q, not %s", name, got, address)
		}
	}
	if got := h.Must("mallory", "getent hosts box"); !strings.Contains(got, "box") {
		h.T.Errorf("the host's own name is %q", got)
	}
}

// jump logs in to a container as a developer does from her own machine, by way
// of the host's sshd, which looks the name up.
func (h *nixosHost) jump(name, line string) (string, error) {
	command := h.OutsideCommand(h.T.Context(), "ssh", "-F", h.SSHConfig(), "-i", h.Key("alice"),
		// -J, and what sshd of the host has to say about it.
		"-o", "ProxyCommand=ssh -F "+h.SSHConfig()+" -o LogLevel=INFO -W %h:%p alice@box",
		"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+filepath.Join(h.T.TempDir(), "known"), "developer@"+name, line)
	output, err := command.CombinedOutput()
	return string(output), err
}

// greets says whether an sshd answers at a port of the host, from outside.
func (h *nixosHost) greets(port string) error {
	ctx, cancel := context.WithTimeout(h.T.Context(), time.Minute)
	defer cancel()
	connection, err := h.Dial(ctx, "tcp", net.JoinHostPort(box.Address4, port))
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(time.Minute))
	greeting, err := bufio.NewReader(connection).ReadString('\n')
	if err == nil && !strings.HasPrefix(greeting, "SSH-") {
		err = fmt.Errorf("it says %q", greeting)
	}
	return err
}

// outsidePort and closedPort are ports of web servers, on the users' machine
// and on the host, where no firewall lets anybody to it.
const (
	outsidePort = "8098"
	closedPort  = "8099"
)

// checkNetwork checks who reaches whom through the host's firewall. The
// containers have examples/demo, its page by the alias www, and two has the
// forwarded port.
func (h *nixosHost) checkNetwork(forwarded string) {
	h.T.Helper()
	for _, address := range []string{box.Address4, box.Address6} {
		for _, name := range []string{"one", "two"} {
			wantPage(h.Host, client(h.Host, address), "https://www."+name+"."+box.Domain+"/", pageOf(name))
		}
	}
	if err := h.greets(forwarded); err != nil {
		h.T.Errorf("the forwarded port does not lead to sshd: %v", err)
	}
	page := "curl --silent --show-error --fail --retry 20 --retry-delay 1 --retry-connrefused --output /dev/null http://"
	h.inside("one", page+box.OutsideAddress4+":"+outsidePort)
	h.Must("root", page+"127.0.0.1:"+closedPort)
	if err := h.greets(closedPort); err == nil || strings.Contains(err.Error(), "it says") {
		h.T.Errorf("the host's firewall is open: %v", err)
	}
	if result := h.Run("alice", "sudo -n devhost exec one -- "+page+box.Address4+":"+closedPort+" --retry 0 --max-time 5"); result.Status == 0 {
		h.T.Error("a container reaches a service of the host")
	}
}

// serve starts the web servers of checkNetwork.
func (h *nixosHost) serve() {
	h.T.Helper()
	ctx, end := context.WithCancel(context.Background())
	outside := h.OutsideCommand(ctx, "python3", "-m", "http.server", "--directory", h.T.TempDir(), outsidePort)
	if err := outside.Start(); err != nil {
		h.T.Fatal(err)
	}
	h.T.Cleanup(func() {
		end()
		_ = outside.Wait()
	})
	h.serveOnHost()
}

func (h *nixosHost) serveOnHost() {
	h.T.Helper()
	h.Must("root", "systemd-run --quiet --unit=web-server --property=DynamicUser=yes /usr/bin/python3 -m http.server --directory /var/empty "+closedPort)
}

// TestNixOSHost makes a NixOS host of the box, and a dev host of that by
// services.devhost. The channel is one of NixOS' own modules, see
// scripts/e2e-nixos.
func TestNixOSHost(t *testing.T) {
	channel := os.Getenv("DEVHOST_TEST_CHANNEL")
	if channel == "" {
		t.Skip("needs a channel of NixOS' own modules: make e2e-nixos")
	}
	h := &nixosHost{Host: box.StartBare(t)}
	if path := os.Getenv("DEVHOST_TEST_FIGURES"); path != "" {
		t.Cleanup(func() {
			if err := os.WriteFile(path, []byte(strings.Join(h.figures, "\n")+"\n"), 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	h.Copy(channel, "/srv/nixos")
	for _, part := range []string{"modules", "lib", "packaging"} {
		h.Copy(filepath.Join(box.Sources(), part), "/srv/devhost/"+part)
	}
	h.Must("root", "cp /root/devhost /srv/devhost/devhost && install -d -o alice -g alice /srv/shared")

	h.taken = strings.ReplaceAll(h.Must("root", "grep ^taken- /etc/passwd | cut -d: -f3"), "\n", " ")

	h.build("null", "{ }")
	h.reboot()
	if release := h.Must("root", "cat /etc/os-release"); !strings.Contains(release, "ID=nixos") {
		t.Fatalf("the box is not NixOS: %s", release)
	}
	h.serve()

	// The declared container shares a folder with alice.
	services := func(marker, more string) string {
		return `{ enable = true; publicAddress = "` + box.Domain + `"; ` + more + ` containers.tools = {
  config.environment.etc.marker.text = "` + marker + `";
  bindMounts."/srv/shared" = { hostPath = "/srv/shared"; isReadOnly = false; owner = "developer"; };
}; }`
	}
	h.change(services("one", ""), "{ }")
	h.figures = append(h.figures, "tools: created (in the box)")
	if timers := h.Must("root", "systemctl list-timers --no-legend devhost-expire.timer"); !strings.Contains(timers, "devhost-expire.service") {
		t.Errorf("the timers are %q", timers)
	}
	h.inside("tools", "sudo -u developer sh -c 'echo inside >/srv/shared/file'")
	if got := h.Must("alice", "stat -c %U /srv/shared/file; echo outside >/srv/shared/file"); got != "alice\n" {
		t.Errorf("on the host, what developer wrote belongs to %q", got)
	}
	if got := h.inside("tools", "stat -c %U /srv/shared/file; cat /srv/shared/file /etc/marker"); got != "developer\noutside\none" {
		t.Errorf("in the declared container: %q", got)
	}

	const forwarded = "8022"
	all := []string{"one", "two", "tools"}
	t.Run("names, while nobody can write /etc", func(t *testing.T) { checkNames(&nixosHost{Host: h.With(t)}, forwarded) })
	h.figures = append(h.figures, "one: created (in the box)", "two: created (in the box)", "two: started (in the box)")
	for _, name := range all {
		if got := h.inside(name, "systemctl is-system-running --wait || true; systemctl list-units --failed --plain --no-legend"); got != "running" {
			t.Errorf("%s is %q", name, got)
		}
	}
	var statuses []struct{ System string }
	for _, name := range []string{"one", "two"} {
		var status struct{ System string }
		if err := json.Unmarshal([]byte(h.Must("alice", "sudo -n devhost status --json "+name)), &status); err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, status)
	}
	if statuses[0].System == "" || statuses[0] != statuses[1] {
		t.Errorf("one and two have the systems %v", statuses)
	}
	if got := h.Must("alice", "sudo -n devhost ssh one -- sudo -n id -un"); got != "root\n" {
		t.Errorf("ssh into the container says %q", got)
	}
	h.checkNetwork(forwarded)

	t.Run("a switch of a container, and back", func(t *testing.T) {
		h := &nixosHost{Host: h.With(t)}
		h.Must("alice", `cp -r /srv/examples/demo changed && chmod -R u+w changed && mv changed/provision.nix changed/demo.nix && cat >changed/provision.nix <<'EOF'
{ imports = [ ./demo.nix ]; environment.etc.marker.text = "changed"; }
EOF`)
		before := h.leaders("one")
		h.Must("alice", "sudo -n devhost ensure one --provision changed 2>&1")
		if got := h.inside("one", "cat /etc/marker; echo; systemctl is-system-running --wait || true"); got != "changed\nrunning" {
			t.Errorf("switched, it has %q", got)
		}
		h.Must("alice", "sudo -n devhost rollback one 2>&1")
		if got := h.inside("one", "test -e /etc/marker || echo gone; systemctl is-system-running --wait || true"); got != "gone\nrunning" {
			t.Errorf("rolled back, it has %q", got)
		}
		if diff := cmp.Diff(before, h.leaders("one")); diff != "" {
			t.Errorf("it was started anew (-before +after):\n%s", diff)
		}
	})
	h.figures = append(h.figures, "one: switched to its new system (in the box)", "one: switched to its new system (and back, in the box)")
	t.Run("a container that builds its own system", func(t *testing.T) {
		h := h.With(t)
		batouChannel(t, h, "/srv/nixos")
		const name = "0c3f9a1b2d7"
		h.Must("alice", "sudo fc-build-dev-container ensure "+name+" "+channelURL+" 'app api' </dev/null")
		newBatou(t, h, name).deploy()
		if got := h.Must("mallory", "nixos-container list"); !strings.Contains(got, name+"\n") {
			t.Errorf("the list is %q", got)
		}
		h.Must("alice", "sudo fc-build-dev-container destroy "+name)
	})
	h.figures = append(h.figures, "batou: created (in the box)", "batou: switched to its new system (by fc-manage, in the box)")

	// The declared container changes, and the host's packet filter is another one.
	before := h.leaders(all...)
	const nftables = "{ networking.nftables.enable = true; networking.firewall.filterForward = true; }"
	h.change(services("two", `defaults.memory = "1G"; expiry.stopAfter = "20d";`), nftables)
	h.figures = append(h.figures, "tools: switched to its new system (in the box)")
	if diff := cmp.Diff(before, h.leaders(all...)); diff != "" {
		t.Errorf("a switch of the host has started containers anew (-before +after):\n%s", diff)
	}
	if got := h.inside("tools", "cat /etc/marker; echo; systemctl is-system-running --wait || true"); got != "two\nrunning" {
		t.Errorf("the declared container has %q", got)
	}
	if rules := h.Must("root", "nft list table inet nixos-fw"); !strings.Contains(rules, "hook forward priority filter; policy drop") {
		t.Errorf("the host does not filter what it forwards:\n%s", rules)
	}
	h.wantNames(all...)
	h.checkNetwork(forwarded)
	h.Must("alice", "sudo -n devhost ensure one --alias www --alias shop 2>&1")
	wantPage(h.Host, client(h.Host, box.Address4), "https://shop.one."+box.Domain+"/", pageOf("one"))

	h.reboot(all...)
	for _, name := range all {
		if got := h.inside(name, "systemctl is-system-running --wait || true"); got != "running" {
			t.Errorf("after a reboot of the host, %s is %q", name, got)
		}
	}
	if got := h.inside("tools", "stat -c %U /srv/shared/file; cat /etc/marker"); got != "developer\ntwo" {
		t.Errorf("after a reboot of the host, the declared container has %q", got)
	}
	h.wantNames(all...)
	h.serveOnHost()
	h.checkNetwork(forwarded)

	h.Must("alice", "sudo -n devhost destroy one 2>&1 && sudo -n devhost destroy two 2>&1")
	h.change(`{ enable = true; publicAddress = "`+box.Domain+`"; }`, nftables)
	if containers := status(h.Host); len(containers) != 0 {
		t.Errorf("there are still the containers %v", containers)
	}
	if left := machines(h.Host); len(left) != 0 {
		t.Errorf("there are still the machines %v", left)
	}
	for what, line := range map[string]string{
		"packet filter": "nft list tables | grep devhost",
		"interfaces":    "ip -o link | grep -E ' (dh|vd)-'",
		"mounts":        "grep -E '/var/lib/devhost/containers|/run/devhost-host' /proc/self/mountinfo",
		"names":         "grep devhost /etc/hosts",
		"published":     "find /etc/devhost/ -type f",
		"units":         "systemctl list-units --all --plain --no-legend 'devhost@*'",
		"processes":     "ps -e -o args | grep -E '[s]ystemd-nspawn|[d]evhost supervise'",
		"profiles":      "find /nix/var/nix/profiles/devhost /nix/var/nix/gcroots/devhost -mindepth 1 2>/dev/null",
	} {
		if left := h.Run("root", line).Stdout; left != "" {
			t.Errorf("%s: left is\n%s", what, left)
		}
	}
}

// checkNames makes the containers one and two, of one system, while /etc is
// read-only, and looks at how their names are found.
func checkNames(h *nixosHost, forwarded string) {
	t := h.T
	h.Must("root", "mount --bind /etc /etc && mount -o remount,bind,ro /etc")
	defer h.Must("root", "umount /etc")
	h.Fails("root", "touch /etc/file", 1, "Read-only file system")
	const ensure = " --channel /srv/nixos --provision /srv/examples/demo --alias www "
	h.Must("alice", "sudo -n devhost ensure one"+ensure+"2>&1")
	h.Must("alice", "sudo -n devhost ensure two"+ensure+"--forward-port "+forwarded+":22 2>&1")
	h.Must("alice", "sudo -n devhost stop two 2>&1")
	h.wantNames("one", "two", "tools")
	if got, err := h.jump("one", "hostname"); err != nil || got != "one\n" {
		t.Errorf("by way of the host, one says %q: %v", got, err)
	}
	// What sshd says where it finds no name and cannot ask anybody, and where
	// nobody answers.
	const unknown = "name resolution"
	if got, err := h.jump("nobody", "hostname"); err == nil || !strings.Contains(got, unknown) {
		t.Errorf("by way of the host, a name of nothing says %q: %v", got, err)
	}
	if got, err := h.jump("two", "hostname"); err == nil || strings.Contains(got, unknown) || !strings.Contains(got, "connect failed") {
		t.Errorf("by way of the host, a stopped container says %q: %v", got, err)
	}
	h.Must("alice", "sudo -n devhost start two 2>&1")
	if got, err := h.jump("two", "hostname"); err != nil || got != "two\n" {
		t.Errorf("by way of the host, two says %q: %v", got, err)
	}
	for _, file := range []string{"/etc/devhost/two.json", "/etc/devhost/vm-configs/two.json"} {
		h.Must("mallory", "cat "+file)
	}
}
