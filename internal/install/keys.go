package install

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"devhost/internal/seed"
	"devhost/internal/sshaccess"
)

const (
	// hostKeyFile is where NixOS' sshd expects its key.
	hostKeyFile = "etc/ssh/ssh_host_ed25519_key"
	// authorizedFolder has a file of public keys for each login;
	// modules/devbox tells sshd so. It is root's, so that it does not matter
	// whether the system makes its users at installation or at boot.
	authorizedFolder = "var/lib/devbox/authorized_keys.d"
	passwdFile       = "etc/passwd"
)

// installKeys makes the host key, whose public half is reported, and puts the
// keys of the seed disk where they belong.
func (i *Installer) installKeys(context.Context) (outcome, error) {
	hostKey := filepath.Join(i.Root, hostKeyFile)
	if err := os.MkdirAll(filepath.Dir(hostKey), 0o755); err != nil {
		return outcome{}, err
	}
	public, err := sshaccess.EnsureKey(hostKey, "root@"+i.settings.HostName)
	if err != nil {
		return outcome{}, err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	if err := i.reporter.Report(seed.Event{Kind: seed.HostKeyEvent, HostKey: line}); err != nil {
		return outcome{}, noReport(err)
	}
	root, err := os.OpenRoot(i.Root)
	if err != nil {
		return outcome{}, err
	}
	defer root.Close()
	if err := root.MkdirAll(authorizedFolder, 0o755); err != nil {
		return outcome{}, err
	}
	var lines strings.Builder
	for _, key := range i.contents.AuthorizedKeys {
		lines.WriteString(key + "\n")
	}
	// sshd reads it as the user who logs in.
	if err := write(root, filepath.Join(authorizedFolder, i.settings.Login), []byte(lines.String()), 0o644, 0, 0); err != nil {
		return outcome{}, err
	}
	return outcome{}, i.installUserKey(root)
}

// installUserKey puts the private key of the login into its home folder.
func (i *Installer) installUserKey(root *os.Root) error {
	key := i.contents.UserKey
	if len(key) == 0 {
		return nil
	}
	name, err := keyName(key)
	if err != nil {
		return fmt.Errorf("the private key on the seed disk is none that ssh reads (%w); give another one by --ssh-key", err)
	}
	owner, err := findAccount(root, i.settings.Login)
	if err != nil {
		return err
	}
	if err := root.MkdirAll(filepath.Dir(owner.home), 0o755); err != nil {
		return err
	}
	for _, folder := range []string{owner.home, filepath.Join(owner.home, ".ssh")} {
		if err := root.MkdirAll(folder, 0o700); err != nil {
			return err
		}
		if err := root.Lchown(folder, owner.uid, owner.gid); err != nil {
			return err
		}
	}
	return write(root, filepath.Join(owner.home, ".ssh", name), key, 0o600, owner.uid, owner.gid)
}

// keyName is the file name by which ssh(1) finds a private key by itself.
func keyName(key []byte) (string, error) {
	var kind string
	signer, err := ssh.ParsePrivateKey(key)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		kind = signer.PublicKey().Type()
	case errors.As(err, &locked) && locked.PublicKey != nil:
		kind = locked.PublicKey.Type()
	case errors.As(err, &locked):
		// Only old formats do not tell.
		kind = ssh.KeyAlgoRSA
	default:
		return "", err
	}
	switch kind {
	case ssh.KeyAlgoRSA:
		return "id_rsa", nil
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return "id_ecdsa", nil
	}
	return "id_ed25519", nil
}

// account is a line of /etc/passwd.
type account struct {
	uid, gid int
	// home is relative to the root folder.
	home string
}

// findAccount finds a user of the new system.
func findAccount(root *os.Root, login string) (account, error) {
	file, err := root.Open(passwdFile)
	if err != nil {
		return account{}, err
	}
	defer file.Close()
	const longest = 1 << 20
	lines := bufio.NewScanner(io.LimitReader(file, longest))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 7 || fields[0] != login {
			continue
		}
		uid, uidErr := strconv.Atoi(fields[2])
		gid, gidErr := strconv.Atoi(fields[3])
		home := strings.TrimPrefix(filepath.Clean(fields[5]), "/")
		if err := errors.Join(uidErr, gidErr); err != nil || home == "" {
			return account{}, fmt.Errorf("the new system's /etc/passwd says of %s: %q", login, lines.Text())
		}
		return account{uid: uid, gid: gid, home: home}, nil
	}
	if err := lines.Err(); err != nil {
		return account{}, err
	}
	return account{}, fmt.Errorf("the new system has no user %s yet, whose private key --ssh-key gives: it makes its users when it boots (systemd.sysusers, services.userborn); leave out --ssh-key and copy the key when it runs", login)
}

// write puts a file in place of one that is there.
func write(root *os.Root, path string, data []byte, mode os.FileMode, uid, gid int) error {
	temporary := path + ".new"
	if err := root.RemoveAll(temporary); err != nil {
		return err
	}
	file, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Chown(uid, gid), file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return errors.Join(err, root.Remove(temporary))
	}
	return root.Rename(temporary, path)
}
