package box_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"devhost/tests/box"
)

// output collects what a program says while it runs.
type output struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.Write(data)
}

func (o *output) String() string {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.text.String()
}

// background is a devhost-deploy that runs until it is interrupted.
type background struct {
	*checkout
	what   string
	said   *output
	pid    int
	ended  chan error
	status func() int
}

// start runs devhost-deploy as on a terminal of its own.
func (c *checkout) start(arguments ...string) *background {
	c.T.Helper()
	command := c.command(context.WithoutCancel(c.T.Context()), arguments...)
	b := &background{checkout: c, what: strings.Join(arguments, " "), said: &output{}, ended: make(chan error, 1)}
	command.Stdout, command.Stderr = b.said, b.said
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		c.T.Fatal(err)
	}
	b.pid, b.status = command.Process.Pid, func() int { return command.ProcessState.ExitCode() }
	go func() { b.ended <- command.Wait() }()
	c.T.Cleanup(func() {
		// It has ended unless the test failed.
		_ = syscall.Kill(b.pid, syscall.SIGKILL)
	})
	return b
}

// wait waits until the program has said something.
func (b *background) wait(text string) {
	b.T.Helper()
	eventually(b.T, func() string {
		select {
		case err := <-b.ended:
			b.T.Fatalf("%s ended: %v\n%s", b.what, err, b.said)
		default:
		}
		if !strings.Contains(b.said.String(), text) {
			return fmt.Sprintf("%s never says %q but:\n%s", b.what, text, b.said)
		}
		return ""
	})
}

// interrupt is Ctrl-C. No ssh of the program may be left.
func (b *background) interrupt() {
	b.T.Helper()
	if err := syscall.Kill(b.pid, syscall.SIGINT); err != nil {
		b.T.Fatal(err)
	}
	<-b.ended
	if b.status() != 130 {
		b.T.Errorf("%s ended with %d:\n%s", b.what, b.status(), b.said)
	}
	if left := b.ssh(); left != "" {
		b.T.Errorf("%s has left processes:\n%s", b.what, left)
	}
	if said := b.said.String(); strings.Contains(said, "interrupted") {
		b.T.Errorf("%s says at its usual end:\n%s", b.what, said)
	}
}

// ssh are the processes of ssh and rsync that use the checkout's ssh_config.
func (c *checkout) ssh() string {
	found, _ := exec.Command("pgrep", "-af", "ssh.*"+c.folder+"/ssh_config_").Output()
	return string(found)
}

// onlySSH is the pid of the ssh to the container: its oldest.
func (c *checkout) onlySSH() string {
	c.T.Helper()
	found, err := exec.Command("pgrep", "-o", "-f", "ssh -F "+c.folder+"/ssh_config_.*ControlMaster=yes").Output()
	if err != nil {
		c.T.Fatalf("there is no ssh: %v", err)
	}
	return strings.TrimSpace(string(found))
}

const syncProvision = `{ pkgs, ... }: {
  systemd.services.shout = {
    wantedBy = [ "multi-user.target" ];
    # Who can log in finds it.
    before = [ "sshd.service" ];
    serviceConfig.Type = "notify";
    serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 ${./provision/shout.py}";
  };
}
`

// shout answers each line in capitals, at localhost only.
const shout = `import os, socket, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", 5432), Handler)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.connect(os.environ["NOTIFY_SOCKET"])
    systemd.send(b"READY=1")
server.serve_forever()
`

// TestSync syncs and forwards from a developer's machine.
func TestSync(t *testing.T) {
	needsFullRun(t)
	h := box.Start(t)
	c := newCheckout(t, h, buildDeploy(t), "alice", map[string]string{
		"dev/environment.cfg": `[environment]
service_user = s-dev
[provisioner:default]
method = fc-nixos-dev-container
host = @HOST@
channel = /srv/channels/offline
[host:sync]
[sync]
folders =
    app:/srv/s-dev/app
    settings.py:/srv/s-dev/local.py
exclude =
    secret
`,
		"dev/provision.nix":      syncProvision,
		"dev/provision/shout.py": shout,
	})
	c.write("app/.gitignore", "*.log\nnode_modules/\n")
	c.write("app/main.py", "one")
	c.write("app/lib/it's odd", "odd")
	c.write("app/secret", "secret")
	c.write("app/debug.log", "log")
	c.write("settings.py", "settings")
	c.bad(4, "deploy", "sync", "dev")
	c.good("deploy", "dev")
	if err := os.Chmod(filepath.Join(c.folder, "app/main.py"), 0o700); err != nil {
		t.Fatal(err)
	}
	tree := func(c *checkout) string {
		c.T.Helper()
		return c.inside("dev", "sync", "cd /srv/s-dev && sudo -u s-dev find app local.py -type f -printf '%p %u %m\\n' | LC_ALL=C sort")
	}
	in := func(c *checkout, path string) string {
		result := c.finish(c.OutsideCommand(c.T.Context(), "ssh", "-F", filepath.Join(c.folder, "ssh_config_dev"), "sync", "sudo -u s-dev cat "+box.Quote("/srv/s-dev/app/"+path)))
		return result.Stdout
	}
	comes := func(c *checkout, path, text string) {
		c.T.Helper()
		eventually(c.T, func() string {
			if got := in(c, path); got != text {
				return fmt.Sprintf("%s in the container is %q, not %q", path, got, text)
			}
			return ""
		})
	}

	t.Run("once", func(t *testing.T) {
		c := c.with(t)
		c.good("sync", "dev")
		want := "app/.gitignore s-dev 600\napp/lib/it's odd s-dev 600\napp/main.py s-dev 700\nlocal.py s-dev 600"
		c.expect(want, tree(c), "the tree")
		c.inside("dev", "sync", "sudo -u s-dev sh -c 'cd /srv/s-dev/app && mkdir node_modules extra && touch node_modules/x extra/x run.log secret'")
		if got := c.deploy("sync", "dev", "--dry-run").Stderr; !strings.Contains(got, "would remove extra/x") || strings.Contains(got, "run.log") {
			t.Errorf("a dry run says %s", got)
		}
		c.good("sync", "dev")
		c.expect(strings.Replace(want, "app/main.py s-dev 700", "app/main.py s-dev 700\napp/node_modules/x s-dev 644\napp/run.log s-dev 644\napp/secret s-dev 644", 1), tree(c), "the tree with what is protected")
		if left := c.ssh(); left != "" {
			t.Errorf("it has left processes:\n%s", left)
		}
	})

	t.Run("mistakes", func(t *testing.T) {
		c := c.with(t)
		before := tree(c)
		c.bad(2, "there is no "+c.folder+"/ap; nothing was changed in the container", "sync", "dev", "ap:/srv/s-dev/app")
		c.bad(2, "it is the user's home", "sync", "dev", "app:/srv/s-dev")
		c.bad(2, "the root folder of a container is not synced to", "sync", "dev", "app:/")
		c.bad(1, "Permission denied", "sync", "dev", "app:/etc/app")
		c.bad(2, "--dry-run shows one sync", "sync", "dev", "--watch", "--dry-run")
		empty := t.TempDir()
		c.bad(1, "that looks like a mistake, and nothing was removed", "sync", "dev", empty+":/srv/s-dev/app")
		c.expect(before, tree(c), "the tree")
	})

	t.Run("watch", func(t *testing.T) {
		c := c.with(t)
		watch := c.start("sync", "dev", "--watch")
		watch.wait("watching; Ctrl-C ends it")
		c.write("app/main.py", "two")
		comes(c, "main.py", "two")
		watch.wait("sent main.py (3B) in ")
		c.write("app/new.py", "three")
		if err := os.Rename(filepath.Join(c.folder, "app/new.py"), filepath.Join(c.folder, "app/main.py")); err != nil {
			t.Fatal(err)
		}
		comes(c, "main.py", "three")
		if err := os.Rename(filepath.Join(c.folder, "app/lib"), filepath.Join(c.folder, "app/moved")); err != nil {
			t.Fatal(err)
		}
		c.write("app/moved/deep/er/x", "x")
		comes(c, "moved/deep/er/x", "x")
		comes(c, "moved/it's odd", "odd")
		comes(c, "lib/it's odd", "")

		// The container is stopped for a while.
		h.Must("alice", "sudo devhost stop sync")
		watch.wait("the connection to sync is lost")
		c.write("app/main.py", "while it was stopped")
		h.Must("alice", "sudo devhost start sync")
		watch.wait("the connection to sync is back after ")
		comes(c, "main.py", "while it was stopped")

		// The connection breaks.
		if err := exec.Command("kill", "-KILL", c.onlySSH()).Run(); err != nil {
			t.Fatal(err)
		}
		c.write("app/main.py", "after a break")
		comes(c, "main.py", "after a break")

		// It is rebuilt: everything is sent again.
		c.good("deploy", "dev", "--rebuild")
		comes(c, "main.py", "after a break")
		comes(c, "moved/deep/er/x", "x")
		c.write("app/main.py", "after a rebuild")
		comes(c, "main.py", "after a rebuild")
		watch.interrupt()
	})

	t.Run("killed", func(t *testing.T) {
		c := c.with(t)
		watch := c.start("sync", "dev", "--watch")
		watch.wait("watching; Ctrl-C ends it")
		if err := syscall.Kill(watch.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-watch.ended
		eventually(t, func() string { return c.ssh() })
	})

	t.Run("forward", func(t *testing.T) {
		c := c.with(t)
		ask := func(word string) string {
			return strings.TrimSpace(c.finish(c.OutsideCommand(t.Context(), "python3", "-c", `import socket, sys
s = socket.create_connection(("localhost", 15432), 60)
s.sendall((sys.argv[1] + "\n").encode())
print(s.makefile().readline())`, word)).Stdout)
		}
		forward := c.start("forward", "dev", "15432:5432", "sync:9")
		forward.wait("localhost:15432 leads to port 5432 of sync")
		c.expect("HELLO", ask("hello"), "the answer")
		c.bad(2, "port 15432 of this machine is in use; take another one: 15432:5432", "forward", "dev", "15432:5432")
		c.bad(2, `"http" is no port from 1 to 65535`, "forward", "dev", "http")
		c.bad(2, `has no host "db"; there are: sync`, "forward", "dev", "db:80")
		h.Must("alice", "sudo devhost restart sync")
		forward.wait("the connection to sync is lost")
		c.expect("AGAIN", ask("again"), "the answer after a restart")
		forward.wait("the connection to sync is back after ")
		forward.interrupt()
	})

	c.good("destroy", "dev")
}
