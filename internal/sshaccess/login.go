package sshaccess

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTimeout bounds one login.
const loginTimeout = 10 * time.Second

// Login logs in to the container at an address (host and port) by its own key,
// checks its host key, and leaves again.
func (f Files) Login(ctx context.Context, address, user string) error {
	identity, err := readSigner(f.Identity())
	if err != nil {
		return err
	}
	host, err := readSigner(filepath.Join(f.Guest, hostKeyFile))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	defer stop()
	client, channels, requests, err := ssh.NewClientConn(connection, address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(identity)},
		HostKeyCallback: ssh.FixedHostKey(host.PublicKey()), HostKeyAlgorithms: []string{host.PublicKey().Type()},
	})
	if err != nil {
		return fmt.Errorf("%s cannot log in at %s: %w", user, address, err)
	}
	session := ssh.NewClient(client, channels, requests)
	return session.Close()
}

func readSigner(path string) (ssh.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(data)
}
