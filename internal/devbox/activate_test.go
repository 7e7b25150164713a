package devbox

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/execx"
)

// The programs that activate.sh calls. systemd-run runs a command at once but
// for timers, which it only notes.
var played = map[string]string{
	"systemctl": `echo "systemctl $*" >> $CALLS; case $* in *is-active*) exit 1;; esac`,
	"nix-env":   `echo "nix-env $*" >> $CALLS`,
	"systemd-run": `echo "systemd-run $*" >> $CALLS
case $* in *--on-active*) exit ${TIMER:-0};; esac
for argument; do case $argument in */switch) sh $argument >> /run/devbox-update/log 2>&1;; esac; done`,
}

// TestActivate runs activate.sh with a /run of its own.
func TestActivate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a /run of its own")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare(1): ", err)
	}
	tests := []struct {
		name, exit, timer string
		status            string
		back              bool
	}{
		{"well", "0", "0", "0", false},
		{"units failed", "4", "0", "4", false},
		{"failed", "2", "0", "2", true},
		{"nobody could go back later", "0", "1", "1", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			calls := filepath.Join(folder, "calls")
			for name, text := range played {
				write(t, filepath.Join(folder, "bin", name), "#!/bin/sh\n"+text+"\n")
				if err := os.Chmod(filepath.Join(folder, "bin", name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, code := range map[string]string{"old": "0", "new": test.exit} {
				path := filepath.Join(folder, name, "bin/switch-to-configuration")
				write(t, path, "#!/bin/sh\necho \""+name+" $*\" | tee -a "+calls+"\nexit "+code+"\n")
				if err := os.Chmod(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			const inside = `set -eu
mount -t tmpfs tmpfs /run
ln -s "$1/old" /run/current-system
PATH=$1/bin:$PATH sh -s -- "$1/new" 90 < "$1/activate.sh"
cat /run/devbox-update/status > "$1/status"
`
			write(t, filepath.Join(folder, "activate.sh"), activate)
			var output bytes.Buffer
			err := execx.New().Run(t.Context(), execx.Command{
				Name: "unshare", Args: []string{"--mount", "sh", "-c", inside, "sh", folder},
				Env: append(os.Environ(), "CALLS="+calls, "TIMER="+test.timer), Stdout: &output, Stderr: &output,
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, output.String())
			}
			if status, err := os.ReadFile(filepath.Join(folder, "status")); err != nil || strings.TrimSpace(string(status)) != test.status {
				t.Errorf("status %s, %v", status, err)
			}
			if !strings.Contains(output.String(), "new switch") {
				t.Errorf("what the switch says is not shown: %s", output.String())
			}
			data, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(data), folder, "")
			wanted := []string{"nix-env --profile /nix/var/nix/profiles/system --set /new\n", "new switch\n"}
			if test.exit != "2" {
				wanted = append(wanted, "--unit=devbox-rollback --on-active=90")
			}
			for _, one := range wanted {
				if !strings.Contains(text, one) {
					t.Errorf("no %q in\n%s", one, text)
				}
			}
			if back := strings.Contains(text, "--set /old\nold switch\n"); back != test.back {
				t.Errorf("went back: %v\n%s", back, text)
			}
		})
	}
}
