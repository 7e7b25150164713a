// Package sshlinktest is a real sshd for tests, on a port of its own, whose
// connections can be cut.
package sshlinktest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"devhost/internal/sshlink"
)

// Server is an sshd at which the user of the test can log in.
type Server struct {
	// Host is how ssh finds it.
	Host sshlink.Host

	t      testing.TB
	config string
	port   int

	mutex       sync.Mutex
	listener    *net.TCPListener
	connections map[*net.TCPConn]bool
	running     sync.WaitGroup
}

// Start starts a server, and ends it with the test. Where there is no sshd, the
// test is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no sshd")
	}
	folder := t.TempDir()
	s := &Server{t: t, connections: map[*net.TCPConn]bool{}, config: filepath.Join(folder, "sshd_config")}
	hostKey := writeKey(t, filepath.Join(folder, "host_key"))
	login := writeKey(t, filepath.Join(folder, "login"))
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if os.Geteuid() == 0 {
		// It is missing where sshd never ran.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// SHLVL keeps bash from reading the .bashrc of whom runs the tests.
	write("sshd_config", fmt.Sprintf("HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxSessions 10\nAllowTcpForwarding yes\nAllowStreamLocalForwarding yes\nSetEnv SHLVL=5\n",
		filepath.Join(folder, "host_key"), write("authorized_keys", login)))
	s.listen()
	t.Cleanup(s.close)
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.Host = sshlink.Host{Name: "guest", Config: write("ssh_config", fmt.Sprintf(
		"Host guest\n  HostName 127.0.0.1\n  Port %d\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  IdentityAgent none\n  HostKeyAlias guest\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
		s.port, self.Username, filepath.Join(folder, "login"), write("known_hosts", "guest "+hostKey)))}
	return s
}

// writeKey makes a key pair and gives its public line.
func writeKey(t testing.TB, path string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

func (s *Server) listen() {
	s.t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.port})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.listener, s.port = listener, listener.Addr().(*net.TCPAddr).Port
	s.running.Go(func() {
		for {
			connection, err := listener.AcceptTCP()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(connection) })
		}
	})
}

func (s *Server) serve(connection *net.TCPConn) {
	defer connection.Close()
	s.mutex.Lock()
	s.connections[connection] = true
	s.mutex.Unlock()
	defer func() {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		delete(s.connections, connection)
	}()
	file, err := connection.File()
	if err != nil {
		s.t.Errorf("sshd cannot serve: %v", err)
		return
	}
	defer file.Close()
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd"
	}
	command := exec.Command(program, "-i", "-f", s.config) //nolint:forbidigo,noctx // it is given a socket
	command.Stdin, command.Stdout = file, file
	var exit *exec.ExitError
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		s.t.Errorf("sshd cannot run: %v", err)
	}
}

// Cut ends all connections.
func (s *Server) Cut() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for connection := range s.connections {
		_ = connection.CloseRead()
		_ = connection.CloseWrite()
	}
}

// Stop ends all connections and takes no new ones until Go is called.
func (s *Server) Stop() {
	s.mutex.Lock()
	_ = s.listener.Close()
	s.mutex.Unlock()
	s.Cut()
}

// Go takes connections again, at the same port.
func (s *Server) Go() {
	s.t.Helper()
	s.listen()
}

func (s *Server) close() {
	s.Stop()
	s.running.Wait()
}
