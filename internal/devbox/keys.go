package devbox

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"

	"devhost/internal/sshaccess"
)

// BadKeyFile says what is wrong with a file that shall hold a key. It never
// quotes the file.
type BadKeyFile struct {
	// Option is how it was given: --ssh-key or --parent-pubkey.
	Option, Path, Reason, Remedy string
}

func (b *BadKeyFile) Error() string {
	return fmt.Sprintf("the key file of %s, %s, cannot be used: %s; %s", b.Option, b.Path, b.Reason, b.Remedy)
}

// longestKey bounds what is read of a key file, in bytes.
const longestKey = 64 << 10

func readKeyFile(option, path string) ([]byte, os.FileInfo, error) {
	refuse := func(reason, remedy string) ([]byte, os.FileInfo, error) {
		return nil, nil, &BadKeyFile{Option: option, Path: path, Reason: reason, Remedy: remedy}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return refuse("there is no such file", "give the path of one that exists, or leave "+option+" out")
	case err != nil:
		return refuse(err.Error(), "make it readable for you")
	case !info.Mode().IsRegular():
		return refuse("it is no regular file", "give the path of a key file")
	case info.Size() > longestKey:
		return refuse("it is too large for a key", "give the path of a key file")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return refuse(err.Error(), "make it readable for you")
	}
	return data, info, nil
}

// readPrivateKey reads the private key of --ssh-key. The error is *BadKeyFile.
func readPrivateKey(path string) ([]byte, error) {
	const option = "--ssh-key"
	data, info, err := readKeyFile(option, path)
	if err != nil {
		return nil, err
	}
	const others = 0o077
	if mode := info.Mode().Perm(); mode&others != 0 {
		return nil, &BadKeyFile{Option: option, Path: path, Reason: fmt.Sprintf("others can read it (mode %04o)", mode), Remedy: "make it yours alone: chmod 600 " + path}
	}
	// A key with a passphrase is fine: who uses it in the VM is asked for it.
	var locked *ssh.PassphraseMissingError
	if _, err := ssh.ParseRawPrivateKey(data); err != nil && !errors.As(err, &locked) {
		remedy := "give a private key such as ssh-keygen makes"
		if _, err := sshaccess.ParseKey(string(data)); err == nil {
			remedy = "it is a public key: give the private one, or use --parent-pubkey"
		}
		return nil, &BadKeyFile{Option: option, Path: path, Reason: "it is no private key", Remedy: remedy}
	}
	return data, nil
}

// readPublicKey reads the public key of --parent-pubkey. The error is
// *BadKeyFile.
func readPublicKey(path string) (string, error) {
	const option = "--parent-pubkey"
	data, _, err := readKeyFile(option, path)
	if err != nil {
		return "", err
	}
	key, err := sshaccess.ParseKey(strings.TrimSpace(string(data)))
	if err != nil {
		remedy := "give a file with one line such as \"ssh-ed25519 AAAA... you@laptop\""
		if strings.Contains(string(data), "PRIVATE KEY") {
			remedy = "it is a private key: give the public one, usually " + path + ".pub"
		}
		return "", &BadKeyFile{Option: option, Path: path, Reason: "it is no public key", Remedy: remedy}
	}
	return key, nil
}

// ownKey returns the public half of the key pair that devbox-cli logs in with,
// and makes the pair where there is none.
func (l Layout) ownKey(name string) (string, error) {
	path := l.Identity(name)
	if data, err := os.ReadFile(path); err == nil {
		if signer, err := ssh.ParsePrivateKey(data); err == nil {
			return publicLine(signer.PublicKey(), name), nil
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "devbox "+name)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := renameio.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", fmt.Errorf("cannot write the key %s: %w", path, err)
	}
	line := publicLine(key, name)
	return line, renameio.WriteFile(path+".pub", []byte(line+"\n"), 0o644)
}

func publicLine(key ssh.PublicKey, name string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " devbox " + name
}

// pin writes the host keys that the installer made to known_hosts. What the
// guest reported and is no key is left out.
func (l Layout) pin(name string, keys []string) error {
	var text strings.Builder
	const most = 8
	for _, key := range keys[:min(len(keys), most)] {
		parsed, err := sshaccess.ParseKey(key)
		if err != nil {
			continue
		}
		fields := strings.Fields(parsed)
		fmt.Fprintf(&text, "%s %s %s\n", name, fields[0], fields[1])
	}
	if err := os.MkdirAll(filepath.Dir(l.KnownHosts(name)), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(l.KnownHosts(name), []byte(text.String()), 0o600)
}
