package sshaccess

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// loginTimeout bounds one login.
	loginTimeout = 10 * time.Second
	// answerTimeout bounds one question for a host key.
	answerTimeout = 5 * time.Second
)

// OtherServer says that what answers in the place of a container's sshd has not
// its host key.
type OtherServer struct {
	// Address is where it answers, as HOST:PORT.
	Address string
}

func (o *OtherServer) Error() string {
	_, port, _ := net.SplitHostPort(o.Address)
	return fmt.Sprintf("the ssh server at %s is not the container's (it has another host key); which program it is says: ss -ltnp 'sport = :%s'; a restart of the container takes another port", o.Address, port)
}

// errKnown ends a connection after the host key was seen.
var errKnown = errors.New("it has the container's host key")

// Answers asks the ssh server at an address (host and port) to prove that it has
// the container's host key. Nobody logs in. The error is *OtherServer when it has
// another one.
func (f Files) Answers(ctx context.Context, address string) error {
	host, err := readSigner(filepath.Join(f.Guest, hostKeyFile))
	if err != nil {
		return err
	}
	connection, end, err := dial(ctx, address, answerTimeout)
	if err != nil {
		return err
	}
	defer end()
	// By then the server has signed with the key.
	check := func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if bytes.Equal(key.Marshal(), host.PublicKey().Marshal()) {
			return errKnown
		}
		return &OtherServer{Address: address}
	}
	_, _, _, err = ssh.NewClientConn(connection, address, &ssh.ClientConfig{
		HostKeyCallback: check, HostKeyAlgorithms: []string{host.PublicKey().Type()},
	})
	var without *ssh.AlgorithmNegotiationError
	switch {
	case errors.Is(err, errKnown):
		return nil
	case errors.As(err, &without):
		return &OtherServer{Address: address}
	}
	return err
}

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
	connection, end, err := dial(ctx, address, loginTimeout)
	if err != nil {
		return err
	}
	defer end()
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

// dial connects to an address. The connection is closed when the context or the
// time ends, and by end.
func dial(ctx context.Context, address string, longest time.Duration) (connection net.Conn, end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	connection, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	return connection, func() {
		stop()
		_ = connection.Close()
		cancel()
	}, nil
}

func readSigner(path string) (ssh.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(data)
}
