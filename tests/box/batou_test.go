package box_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devhost/tests/box"
)

// batou is a workstation with a batou project: it knows the dev host's address
// and one container, and everything goes over ssh.
type batou struct {
	*box.Host
	name   string
	config string
}

const channelURL = "file:///srv/nixexprs.tar.xz"

// batouChannel puts a channel of Flying Circus' shape into the box, made of one
// that is there.
func batouChannel(t *testing.T, h *box.Host, channel string) {
	t.Helper()
	h.Copy(filepath.Join(box.Sources(), "internal/channel/testdata/fc-channel"), "/srv/fc-channel")
	h.Must("root", "/srv/fc-channel/assemble "+channel+" /srv/release && tar -C /srv -cJf /srv/nixexprs.tar.xz release && chmod 0644 /srv/nixexprs.tar.xz")
}

// newBatou writes the ssh_config that batou writes, but for its key.
func newBatou(t *testing.T, h *box.Host, name string) *batou {
	t.Helper()
	common, err := os.ReadFile(h.SSHConfig())
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	config := filepath.Join(folder, "ssh_config_dev")
	text := "Host " + name + "\n  HostName " + name + "\n  ProxyJump alice@box\n  User developer\n  IdentityFile " + h.Key("alice") +
		"\n  StrictHostKeyChecking no\n  UserKnownHostsFile " + filepath.Join(folder, "known_hosts") + "\n\n" + string(common)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &batou{Host: h, name: name, config: config}
}

// outside runs a command on the workstation.
func (b *batou) outside(argv ...string) (output string, status int) {
	b.T.Helper()
	command := b.OutsideCommand(b.T.Context(), argv...)
	both, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.T.Fatalf("cannot run %v: %v", argv, err)
	}
	return string(both), command.ProcessState.ExitCode()
}

// inside runs a command in the container, as batou's RUN does.
func (b *batou) inside(command string) string {
	b.T.Helper()
	output, status := b.outside("ssh", "-F", b.config, "-o", "LogLevel=ERROR", b.name, command)
	if status != 0 {
		b.T.Fatalf("%s in container %s ended with %d:\n%s", command, b.name, status, output)
	}
	return strings.TrimSpace(output)
}

// copy is batou's COPY.
func (b *batou) copy(source, target string) {
	b.T.Helper()
	output, status := b.outside("rsync", "-avz", "--no-l", "--safe-links", "--rsync-path=sudo -u s-dev rsync", "-e", "ssh -F "+b.config, source, b.name+":"+target)
	if status != 0 {
		b.T.Fatalf("rsync to %s ended with %d:\n%s", target, status, output)
	}
}

// deploy is what batou does in the container, in its order.
func (b *batou) deploy() {
	b.T.Helper()
	folder := b.T.TempDir()
	write := func(name, text string, mode os.FileMode) {
		b.T.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755); err != nil {
			b.T.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), mode); err != nil {
			b.T.Fatal(err)
		}
	}
	write("provision.nix", `{ flyingcircus.roles.redis.enable = true; environment.etc."provisioned".text = "one"; }`, 0o644)
	write("seed/seed.txt", "seed\n", 0o644)
	write("seed/deployment/appenv", "#!/bin/sh\nexec \"$@\"\n", 0o755)
	b.copy(filepath.Join(folder, "provision.nix"), "/etc/local/nixos/provision-container.nix")
	b.copy(filepath.Join(folder, "seed")+"/", "/srv/s-dev/")
	b.inside("echo seeded > seeded")
	b.inside("sudo -i fc-manage -c")
	for _, step := range [][2]string{
		{"python3 -c 'print(6 * 7)'", "42"},
		{`sudo -ni -u s-dev python3 -c "import os; print(os.getcwd())"`, "/srv/s-dev"},
		{`sudo -ni -u s-dev /srv/s-dev/deployment/./appenv python3 -c "import getpass; print(getpass.getuser())"`, "s-dev"},
		{"cat /etc/provisioned seeded", "oneseeded"},
		{"systemctl is-active redis.service", "active"},
	} {
		if got := b.inside(step[0]); got != step[1] {
			b.T.Errorf("%s says %q, not %q", step[0], got, step[1])
		}
	}
}

// TestBatou plays existing batou projects from another network: the commands of
// both dialects, in their order.
func TestBatou(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	batouChannel(t, h, "/srv/channels/offline")

	t.Run("containers", func(t *testing.T) {
		h := h.With(t)
		const name = "0c3f9a1b2d7"
		if got := h.Must("alice", "nixos-container list"); got != "" {
			t.Errorf("without containers the list is %q", got)
		}
		h.Must("alice", "sudo fc-build-dev-container destroy "+name)
		h.Must("alice", "sudo fc-build-dev-container ensure "+name+" "+channelURL+" 'app api' </dev/null")
		b := newBatou(t, h, name)
		// The very next command is a login, without another try.
		b.deploy()
		if got := h.Must("mallory", "nixos-container list"); got != name+"\n" {
			t.Errorf("the list is %q", got)
		}
		checkCollected(t, b)
		h.Must("alice", "sudo fc-build-dev-container ensure "+name+" "+channelURL+" ''")
		h.Must("bob", "sudo devhost stop "+name)
		h.Must("alice", "sudo fc-build-dev-container ensure "+name+" "+channelURL+" 'app'")
		if got := b.inside("cat /etc/provisioned seeded"); got != "oneseeded" {
			t.Errorf("started again it has %q", got)
		}
	})

	t.Run("machines", func(t *testing.T) {
		h := h.With(t)
		const name = "7f3a09bc"
		if got := h.Must("alice", "sudo fc-devhost list"); !strings.Contains(got, "0c3f9a1b2d7\n") {
			t.Errorf("the list is %q", got)
		}
		h.Must("alice", "sudo fc-devhost destroy "+name)
		h.Must("alice", "sudo fc-devhost ensure --memory 1024 --cpu 1 --aliases \"'app api'\" --image-url https://example.org/image --channel-url "+channelURL+" --no-update-channel "+name+" </dev/null")
		b := newBatou(t, h, name)
		b.deploy()
		var published map[string]any
		if err := json.Unmarshal([]byte(h.Must("alice", "cat /etc/devhost/vm-configs/"+name+".json")), &published); err != nil {
			t.Fatal(err)
		}
		if address := strings.TrimSpace(h.Must("alice", "sudo devhost ip "+name)); published["srv-ip"] != address || b.inside("hostname -i | tr ' ' '\\n' | grep -xF "+address) != address {
			t.Errorf("published is %v; the address is %s", published, address)
		}
		h.Fails("mallory", "sudo -n fc-devhost destroy "+name, 1)
		// batou's --provision-rebuild by a colleague loses nothing.
		if got := h.Must("bob", "sudo fc-devhost destroy "+name); !strings.Contains(got, "made by alice and is archived") {
			t.Errorf("destroying a colleague's container says %q", got)
		}
		if got := h.Must("bob", "sudo devhost undelete --list"); !strings.Contains(got, name) {
			t.Errorf("the archives are %q", got)
		}
		h.Must("alice", "sudo fc-devhost destroy "+name)
		if got := h.Must("alice", "nixos-container list"); strings.Contains(got, name) {
			t.Errorf("the list is %q", got)
		}
	})

	t.Run("after a restart of the host", func(t *testing.T) {
		h := h.With(t)
		h.RestartBox()
		b := newBatou(t, h, "0c3f9a1b2d7")
		eventually(t, func() string {
			output, status := b.outside("ssh", "-F", b.config, "-o", "LogLevel=ERROR", b.name, "cat /etc/provisioned")
			if status != 0 || output != "one" {
				return "the container does not come back: " + output
			}
			return ""
		})
		// Somebody who works with it, and not the host, decides when it builds.
		b.inside("echo '{ environment.etc.more.text = \"more\"; }' | sudo -u s-dev tee /etc/local/nixos/more.nix; sudo -i fc-manage -c")
		if got := b.inside("cat /etc/more"); got != "more" {
			t.Errorf("a build after the restart gave %q", got)
		}
		h.Must("alice", "sudo fc-build-dev-container destroy 0c3f9a1b2d7")
	})
}

// checkCollected collects garbage on the host: what fc-manage built stays and
// starts, and what nobody has goes.
func checkCollected(t *testing.T, b *batou) {
	t.Helper()
	deployed := b.inside("readlink /run/current-system")
	garbage := strings.TrimSpace(b.Must("root", "cd /tmp && date > garbage && nix-store --add garbage"))
	inGuest := b.inside("cd /tmp && date > garbage && nix-store --add garbage")
	b.Must("root", "nix-collect-garbage")
	b.Must("root", "test -e "+deployed+"/init && test ! -e "+garbage+" && test ! -e "+inGuest)
	b.Must("alice", "sudo devhost restart "+b.name)
	if got := b.inside("readlink /run/booted-system; cat /etc/provisioned"); got != deployed+"\none" {
		t.Errorf("after a collection it starts %q", got)
	}
	// Nothing of the channel or the guest module is lost either.
	b.inside("echo '{ environment.etc.later.text = \"later\"; }' | sudo -u s-dev tee /etc/local/nixos/later.nix; sudo -i fc-manage -c; test -e /etc/later")
	b.inside("sudo -u s-dev rm /etc/local/nixos/later.nix; sudo -i fc-manage -c; test ! -e /etc/later")
	b.Must("root", "nix-collect-garbage")
	if got := b.inside("readlink /run/current-system"); got != deployed {
		t.Errorf("the same configuration gave another system: %s", got)
	}
}
