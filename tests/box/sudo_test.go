package box_test

import (
	"strings"
	"testing"

	"devhost/tests/box"
)

// TestRealSudo: what the packaged sudo rules let people do, over ssh.
func TestRealSudo(t *testing.T) {
	if testing.Short() {
		t.Skip("in the long set: make e2e")
	}
	h := box.Start(t)
	h.Must("alice", "sudo devhost ensure hers --channel /srv/channels/offline")

	t.Run("rules", func(t *testing.T) {
		h := h.With(t)
		if got := h.Must("alice", "sudo -l"); strings.Count(got, "NOPASSWD") != 1 || !strings.Contains(got, "NOSETENV") || !strings.Contains(got, "/devhost") {
			t.Errorf("alice may:\n%s", got)
		}
		for login, lines := range map[string][]string{
			// Not in the group: nothing.
			"mallory": {"sudo -n devhost list", "sudo -n fc-devhost list", "sudo -n id"},
			// In the group: devhost as root, and nothing else, as nobody else, with
			// nothing of one's own environment.
			"alice": {
				"sudo -n id", "sudo -n sh -c id", "sudo -n -u bob devhost list", "sudo -n -g shadow devhost list", "sudo -n systemctl status", "sudoedit -n /etc/sudoers.d/devhost",
				"sudo -n PATH=/tmp:$PATH devhost list", "sudo -n NIX_CONFIG=sandbox=false devhost list", "sudo -n DEVHOST_STATE_DIR=/tmp/x devhost list", "sudo -n LD_PRELOAD=/tmp/x.so devhost list",
				"sudo -n -E devhost list", "sudo -n --preserve-env=PATH devhost list",
				// A program of one's own by that name is not that program.
				"mkdir -p bin && cp /usr/bin/id bin/devhost && sudo -n ./bin/devhost",
			},
		} {
			for _, line := range lines {
				if result := h.Run(login, line); result.Status == 0 || strings.Contains(result.Stdout, "uid=0") || strings.Contains(result.Stdout, "hers") {
					t.Errorf("%s: %q ended with %d:\n%s%s", login, line, result.Status, result.Stdout, result.Stderr)
				}
			}
		}
	})

	t.Run("environment", func(t *testing.T) {
		h := h.With(t)
		// What is set before sudo does not arrive, whatever it says.
		h.Must("alice", `mkdir -p evil && printf '#!/bin/sh\nid -u > /tmp/evil-ran\nexit 93\n' > evil/nix && chmod +x evil/nix && for p in nix-store nix-instantiate systemd-nspawn nft ip; do cp evil/nix evil/$p; done`)
		h.Must("alice", `PATH=$HOME/evil:$PATH NIX_CONFIG='post-build-hook = '$HOME/evil/nix HOME=$HOME/evil TMPDIR=$HOME sudo devhost ensure evil --channel /srv/channels/offline`)
		if result := h.Run("root", "cat /tmp/evil-ran"); result.Status == 0 {
			t.Errorf("a program of alice's ran as uid %s", result.Stdout)
		}
		h.Must("alice", "sudo devhost destroy evil")
	})

	t.Run("files", func(t *testing.T) {
		h := h.With(t)
		h.Must("root", "mkdir -p /root/module && echo '{ }' > /root/module/provision.nix && cp -R /srv/channels/offline /root/channel && chmod 0700 /root")
		h.Must("bob", "mkdir -p mine && echo '{ }' > mine/provision.nix && chmod 0700 . mine")
		for _, line := range []string{
			"sudo devhost ensure hers --provision /root/module", "sudo devhost ensure hers --provision /root/module/provision.nix", "sudo devhost ensure hers --provision /home/bob/mine",
			"sudo devhost ensure new --channel /root/channel", "sudo devhost ensure hers --authorized-key /etc/shadow", "sudo devhost host check /etc/shadow",
			"sudo devhost ssh-config hers --output /root/out", "sudo devhost ssh-config hers --output /etc/out", "sudo devhost --state-dir /tmp/mine list",
			"ln -sfn /root/module link; sudo devhost ensure hers --provision $HOME/link",
		} {
			result := h.Run("alice", line)
			if result.Status == 0 {
				t.Errorf("%q worked:\n%s", line, result.Stdout)
			}
			if strings.Contains(result.Stderr, "root:") {
				t.Errorf("%q shows the file:\n%s", line, result.Stderr)
			}
		}
		// Control: what alice may read, she can hand in.
		h.Must("alice", "mkdir -p mine && echo '{ }' > mine/provision.nix && chmod 0700 mine && sudo devhost ensure hers --provision mine")
	})

	t.Run("members", func(t *testing.T) {
		h := h.With(t)
		h.Must("bob", "sudo devhost exec hers -- true")
		h.Must("bob", "sudo devhost stop hers")
		h.Must("bob", "sudo devhost start hers")
		h.Must("bob", "sudo devhost ensure hers --alias www")
		h.Fails("bob", "sudo devhost destroy hers", 7, "container hers belongs to alice")
		h.Fails("bob", "sudo devhost rename hers his", 7, "container hers belongs to alice")
		for _, command := range []string{"ingress", "supervise hers", "boot", "expire", "prune", "host install", "host uninstall"} {
			h.Fails("bob", "sudo devhost "+command, 7, "for admins of this host")
		}
		if got := h.Must("bob", "sudo devhost status hers"); !strings.Contains(got, "running") || !strings.Contains(got, "alice") {
			t.Errorf("afterwards:\n%s", got)
		}
		h.Must("bob", "sudo devhost destroy hers --force")
	})

	t.Run("written down", func(t *testing.T) {
		h := h.With(t)
		for place, text := range map[string]string{"the log": h.Must("root", "cat /var/lib/devhost/audit.log"), "the journal": h.Must("root", "journalctl --output=cat -t devhost-audit")} {
			for _, want := range []string{
				`"who":{"login":"alice","uid":`, `"via":"sudo"},"operation":"ensure","containers":["hers"],"options":["--channel=/srv/channels/offline"],"exitCode":0`,
				`"operation":"destroy","containers":["hers"],"exitCode":7,"error":"container hers belongs to alice`,
				`"operation":"destroy","containers":["hers"],"options":["--force=true"],"exitCode":0`, `"operation":"boot","exitCode":7`,
			} {
				if !strings.Contains(text, want) {
					t.Errorf("%s does not hold %s:\n%s", place, want, text)
				}
			}
		}
		if result := h.Run("alice", "cat /var/lib/devhost/audit.log"); result.Status == 0 {
			t.Error("everybody reads the log")
		}
	})
}
