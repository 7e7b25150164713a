package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// plain runs ssh, scp or rsync as somebody who has never heard of devhost.
func plain(t *testing.T, name string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	command := exec.Command(name, args...)
	var out, err bytes.Buffer
	command.Stdout, command.Stderr = &out, &err
	// An agent or a configuration of the person who runs the tests must not
	// help.
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	if failure := command.Run(); failure != nil && command.ProcessState == nil {
		t.Fatalf("cannot run %s: %v", name, failure)
	}
	return out.String(), err.String(), command.ProcessState.ExitCode()
}

func checkSSH(t *testing.T, h *host) {
	folder := filepath.Join(t.TempDir(), "keys")
	said := h.must("ssh-config", "trial", "--output", folder)
	config := filepath.Join(folder, "config")
	if said != "ssh -F "+config+" trial\n" {
		t.Errorf("ssh-config --output says %q", said)
	}
	for _, name := range []string{"config", "id_ed25519", "known_hosts"} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", name, info, err)
		}
	}
	if text := readFile(t, config); !strings.Contains(text, "StrictHostKeyChecking yes") {
		t.Errorf("host keys are not checked:\n%s", text)
	}
	if own := h.must("ssh-config", "trial"); !strings.Contains(own, "Host trial\n") {
		t.Errorf("ssh-config says\n%s", own)
	}

	t.Run("ssh", func(t *testing.T) {
		out, err, status := plain(t, "ssh", "-F", config, "trial", "id -un; sudo -n id -un; hostname; exit 42")
		if out != "developer\nroot\ntrial\n" || status != 42 {
			t.Errorf("ssh ended with %d: %q %q", status, out, err)
		}
		if _, err, status := plain(t, "ssh", "-F", config, "-l", "s-dev", "trial", "test $(id -un) = s-dev"); status != 0 {
			t.Errorf("ssh as s-dev ended with %d: %s", status, err)
		}
		if _, _, status := plain(t, "ssh", "-F", config, "-o", "BatchMode=yes", "-l", "nobody", "trial", "true"); status != 255 {
			t.Errorf("ssh as nobody ended with %d", status)
		}
	})
	t.Run("scp and rsync", func(t *testing.T) {
		there, back := filepath.Join(t.TempDir(), "there"), filepath.Join(t.TempDir(), "back")
		content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		if err := os.WriteFile(there, content, 0o640); err != nil {
			t.Fatal(err)
		}
		for _, step := range [][]string{
			{"scp", "-q", "-F", config, there, "trial:copied"},
			{"scp", "-q", "-F", config, "trial:copied", back},
			{"rsync", "-a", "-e", "ssh -F " + config, there, "trial:synced"},
			{"rsync", "-a", "-e", "ssh -F " + config, "trial:synced", back + "2"},
		} {
			if _, err, status := plain(t, step[0], step[1:]...); status != 0 {
				t.Fatalf("%v ended with %d: %s", step, status, err)
			}
		}
		for _, path := range []string{back, back + "2"} {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s came back with %d bytes, not %d (%v)", path, len(got), len(content), err)
			}
		}
		h.inside("trial", "rm /home/developer/copied /home/developer/synced")
	})
	t.Run("devhost ssh", func(t *testing.T) {
		for _, args := range [][]string{{"ssh", "trial", "exit 7"}, {"ssh", "trial", "--", "sh", "-c", "'exit 7'"}} {
			if result := h.run(args...); result.status != 7 {
				t.Errorf("%v ended with %d: %s", args, result.status, result.stderr)
			}
		}
		if output := h.must("ssh", "--user", "root", "trial", "id", "-un"); output != "root\n" {
			t.Errorf("ssh --user root is %q", output)
		}
		command := h.command("ssh", "trial", "cat")
		command.Stdin = strings.NewReader("through")
		if result := h.finish(command); result.stdout != "through" || result.status != 0 {
			t.Errorf("standard input came back as %q (%d)", result.stdout, result.status)
		}
		h.fails(4, []string{"there is no container absent"}, "ssh", "absent")
		h.fails(2, nil, "ssh", "../trial")
	})
	t.Run("a member's own key", func(t *testing.T) {
		private, public := newKey(t)
		others := func(user string) int {
			// The config has the container's key; here, this one is alone.
			args := []string{"-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=" + filepath.Join(folder, "known_hosts"),
				"-o", "HostKeyAlias=trial", "-i", private, "-l", user, h.ip("trial"), "true"}
			_, _, status := plain(t, "ssh", args...)
			return status
		}
		if status := others("developer"); status != 255 {
			t.Fatalf("a key that nobody gave ended with %d", status)
		}
		if output := h.must("ensure", "trial", "--authorized-key", public); !strings.HasPrefix(output, "trial: unchanged") {
			t.Errorf("ensure says %q", output)
		}
		if status := others("developer"); status != 0 {
			t.Errorf("a member's key ended with %d", status)
		}
		if status := others("root"); status != 255 {
			t.Errorf("a member's key as root ended with %d", status)
		}
		h.must("ensure", "trial", "--authorized-key", "")
		if status := others("developer"); status != 255 {
			t.Errorf("a key that was taken away ended with %d", status)
		}
	})
}

// newKey makes a key pair and returns the paths of its halves.
func newKey(t *testing.T) (private, public string) {
	t.Helper()
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(privateKey, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = filepath.Join(t.TempDir(), "id")
	public = private + ".pub"
	for path, data := range map[string][]byte{private: pem.EncodeToMemory(block), public: ssh.MarshalAuthorizedKey(key)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

// checkChangedHostKey: a host with another key than the pinned one is refused.
func checkChangedHostKey(t *testing.T, h *host) {
	folder := filepath.Join(t.TempDir(), "keys")
	h.must("ssh-config", "trial", "--output", folder)
	config, known := filepath.Join(folder, "config"), filepath.Join(folder, "known_hosts")
	try := func() (string, int) {
		_, err, status := plain(t, "ssh", "-F", config, "trial", "true")
		return err, status
	}
	// The control: it is the key that makes the difference.
	if err, status := try(); status != 0 {
		t.Fatalf("with the right key, ssh ended with %d: %s", status, err)
	}
	_, public := newKey(t)
	if err := os.WriteFile(known, []byte("trial "+readFile(t, public)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err, status := try(); status != 255 || !strings.Contains(err, "HOST IDENTIFICATION HAS CHANGED") {
		t.Errorf("with another key pinned, ssh ended with %d: %s", status, err)
	}
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err, status := try(); status != 255 || !strings.Contains(err, "Host key verification failed") {
		t.Errorf("with no key pinned, ssh ended with %d: %s", status, err)
	}
}
