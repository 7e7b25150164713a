// Package sshaccess makes what ssh needs on both sides of a container: a key
// pair and a host key each, the guest's authorized keys, and a ssh_config with
// pinned host keys that plain ssh, scp and rsync can use.
package sshaccess

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
)

// Names of the files below the two folders.
const (
	identityFile   = "id_ed25519"
	knownHostsFile = "known_hosts"
	configFile     = "config"
	hostKeyFile    = "ssh/ssh_host_ed25519_key"
	keysFolder     = "authorized_keys"
)

// HumanUser is the login of a person in every container.
const HumanUser = "developer"

// Files are the two folders of one container: Host is the host's side (private
// key, known_hosts, config), Guest is the folder that the guest sees at
// /run/devhost.
type Files struct{ Host, Guest string }

// Identity is the path of the private key that logs in to the container.
func (f Files) Identity() string { return filepath.Join(f.Host, identityFile) }

// KnownHosts is the path of the file with the pinned host key.
func (f Files) KnownHosts() string { return filepath.Join(f.Host, knownHostsFile) }

// Config is the path of the ssh_config file.
func (f Files) Config() string { return filepath.Join(f.Host, configFile) }

// Ensure makes the key pair and the host key where they are missing, and
// writes known_hosts and config for the address and the port, 0 for ssh's own.
// Existing keys are kept.
func (f Files) Ensure(name, address string, port uint16) error {
	if err := os.MkdirAll(f.Host, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(f.Guest, "ssh"), 0o755); err != nil {
		return err
	}
	if _, err := EnsureKey(f.Identity(), "devhost "+name); err != nil {
		return err
	}
	hostKey, err := EnsureKey(filepath.Join(f.Guest, hostKeyFile), name)
	if err != nil {
		return err
	}
	// The alias is what ssh looks up, so the line holds with any address.
	line := name + " " + string(ssh.MarshalAuthorizedKey(hostKey))
	if err := writeIfChanged(f.KnownHosts(), []byte(line), 0o600); err != nil {
		return err
	}
	config := RenderConfig(name, address, port, HumanUser, f.Identity(), f.KnownHosts())
	return writeIfChanged(f.Config(), []byte(config), 0o600)
}

// RenderConfig is a ssh_config(5) block for one container. Host keys are
// checked against knownHosts under the container's name. Port 0 is ssh's own.
func RenderConfig(name, address string, port uint16, user, identity, knownHosts string) string {
	if port != 0 {
		address += fmt.Sprintf("\n  Port %d", port)
	}
	return fmt.Sprintf(`Host %s
  HostName %s
  User %s
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  GlobalKnownHostsFile /dev/null
  HostKeyAlias %s
  StrictHostKeyChecking yes
  UpdateHostKeys no
`, name, address, user, configValue(identity), configValue(knownHosts), name)
}

// configValue quotes a value for ssh_config(5), where % starts a token.
func configValue(value string) string {
	value = strings.ReplaceAll(value, "%", "%%")
	if strings.ContainsAny(value, " \t#") {
		return `"` + value + `"`
	}
	return value
}

// EnsureKey returns the public half of the key at path and makes the key pair
// if there is none, or one that was half written.
func EnsureKey(path, comment string) (ssh.PublicKey, error) {
	if data, err := os.ReadFile(path); err == nil {
		if signer, err := ssh.ParsePrivateKey(data); err == nil {
			return signer.PublicKey(), nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write key %s: %w", path, err)
	}
	public64 := append(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)), []byte(" "+comment+"\n")...)
	return key, writeIfChanged(path+".pub", public64, 0o644)
}

// Authorize writes who may log in: root and every one of users by the
// container's own key, the human user also by the members' keys (lines in the
// format of sshd(8)). sshd reads the files at every login, so no restart is
// needed.
func (f Files) Authorize(users, members []string) error {
	own, err := os.ReadFile(f.Identity() + ".pub")
	if err != nil {
		return err
	}
	folder := filepath.Join(f.Guest, keysFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, user := range append([]string{"root", HumanUser}, users...) {
		content := append([]byte(nil), own...)
		if user == HumanUser {
			for _, line := range members {
				content = append(content, []byte(line+"\n")...)
			}
		}
		if err := writeIfChanged(filepath.Join(folder, user), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// BadKey says that a text is no public key.
type BadKey struct{ Text string }

func (b *BadKey) Error() string {
	shown := b.Text
	const most = 40
	if len(shown) > most {
		shown = shown[:most] + "..."
	}
	return fmt.Sprintf("%q is no ssh public key; give a line such as \"ssh-ed25519 AAAA... you@laptop\", or the path of a .pub file", shown)
}

// ParseKey checks one public key line and returns it without options, which
// would not mean on the container what they mean elsewhere.
func ParseKey(text string) (string, error) {
	if strings.Contains(text, "PRIVATE KEY") {
		return "", &BadKey{Text: "(a private key)"}
	}
	key, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return "", &BadKey{Text: strings.TrimSpace(text)}
	}
	return strings.TrimSpace(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment), nil
}

// KeysOf reads the keys of an authorized_keys text. Lines with options (forced
// commands and the like) are left out: they limit what a key may do, and that
// limit would be lost.
func KeysOf(text []byte) []string {
	var keys []string
	for line := range strings.Lines(string(text)) {
		if key, err := ParseKey(line); err == nil {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}

// writeIfChanged leaves an equal file alone; else it writes a new one and
// renames it, and readable files stay readable inside the guest.
func writeIfChanged(path string, data []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := renameio.WriteFile(path, data, mode, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
