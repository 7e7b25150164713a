package box

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/execx"
)

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	// Status is the exit status, 255 where ssh itself failed, -1 where there is
	// none.
	Status int
}

// Key is the private key of a developer or of root.
func (b *Box) Key(login string) string { return filepath.Join(b.Folder, "keys", login) }

func (b *Box) knownHosts() string { return filepath.Join(b.Folder, "keys", "known_hosts") }

// SSHConfig is the ssh_config of the users' machine. The box is the host box.
func (b *Box) SSHConfig() string { return filepath.Join(b.Folder, "keys", "ssh_config") }

func (b *Box) sshConfig() string {
	var config strings.Builder
	for _, login := range append([]string{"root"}, Developers...) {
		fmt.Fprintf(&config, "Match originalhost box user %s\n  IdentityFile %s\n", login, b.Key(login))
	}
	fmt.Fprintf(&config, `Host box
  HostName %s
  HostKeyAlias box
Host *
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
  IdentitiesOnly yes
  BatchMode yes
  ConnectTimeout 60
  LogLevel ERROR
  SetEnv LC_ALL=C.UTF-8
`, Address4, b.knownHosts())
	return config.String()
}

// Outside is the argument vector by which a program runs on the users' machine.
func (b *Box) Outside(args ...string) []string {
	return append([]string{"nsenter", "--net=" + namespacePath(outsideNamespace(b.id)), "--"}, args...)
}

// OutsideCommand is a program on the users' machine.
func (b *Box) OutsideCommand(ctx context.Context, args ...string) *exec.Cmd {
	argv := b.Outside(args...)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.WaitDelay = 10 * time.Second
	return command
}

// SSHCommand is ssh, from the users' machine, with a command line for the
// login's shell.
func (b *Box) SSHCommand(ctx context.Context, login, line string) *exec.Cmd {
	return b.OutsideCommand(ctx, "ssh", "-F", b.SSHConfig(), login+"@box", line)
}

// run runs a command line in the box by ssh; every failure is in the result.
func (b *Box) run(ctx context.Context, login, line string, stdin io.Reader) Result {
	command := b.SSHCommand(ctx, login, line)
	command.Stdin = stdin
	return finish(command)
}

func finish(command *exec.Cmd) Result {
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	result := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		result.Status = exit.ExitCode()
	case err != nil:
		result.Status = -1
		result.Stderr += err.Error()
	}
	return result
}

// Quote makes a command line of arguments.
func Quote(args ...string) string { return execx.Quote(args) }

// HTTPClient is a client on the users' machine that trusts a certificate
// authority (PEM) and finds every name at an address of the box.
func (b *Box) HTTPClient(authority []byte, boxAddress string) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("that is no certificate")
	}
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(address)
				if err != nil {
					return nil, err
				}
				return b.Dial(ctx, network, net.JoinHostPort(boxAddress, port))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
