package devbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/progress"
)

// SSHArguments are the arguments of ssh(1) up to and with the destination. They
// use the raw address and nobody's ssh_config: an alias or a proxy of the same
// name must not come between. Host keys are those that were pinned at the
// installation; without any, the first one that the VM shows is kept.
func (m *Manager) SSHArguments(name, user string, endpoint hypervisor.Endpoint) []string {
	arguments := []string{"-F", "none"}
	for _, option := range m.sshOptions(name, user, endpoint.Port) {
		arguments = append(arguments, "-o", option.name+"="+option.value)
	}
	return append(arguments, endpoint.Address)
}

type sshOption struct{ name, value string }

// sshOptions are those of ssh_config(5).
func (m *Manager) sshOptions(name, user string, port int) []sshOption {
	checking := "accept-new"
	if info, err := os.Stat(m.KnownHosts(name)); err == nil && info.Size() > 0 {
		checking = "yes"
	}
	options := []sshOption{
		{"User", user}, {"Port", strconv.Itoa(port)},
		{"HostKeyAlias", name},
		{"UserKnownHostsFile", quotePath(m.KnownHosts(name))}, {"GlobalKnownHostsFile", "/dev/null"},
		{"StrictHostKeyChecking", checking}, {"UpdateHostKeys", "no"},
	}
	for _, identity := range m.identities(name) {
		options = append(options, sshOption{"IdentityFile", quotePath(identity)})
	}
	return options
}

// identities are the private keys to try: the VM's own, and those of the person
// that ssh would try by itself.
func (m *Manager) identities(name string) []string {
	candidates := []string{m.Identity(name)}
	if home, err := os.UserHomeDir(); err == nil {
		for _, kind := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			candidates = append(candidates, filepath.Join(home, ".ssh", kind))
		}
	}
	var found []string
	for _, candidate := range candidates {
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() {
			found = append(found, candidate)
		}
	}
	return found
}

// quotePath writes a path as a value of ssh_config(5), where % starts a token
// and blanks separate files.
func quotePath(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t#") {
		return `"` + path + `"`
	}
	return path
}

// SSHConfig is a block of ssh_config(5) for a VM.
func (m *Manager) SSHConfig(name, user string, endpoint hypervisor.Endpoint) string {
	var text strings.Builder
	fmt.Fprintf(&text, "Host %s\n  HostName %s\n", name, endpoint.Address)
	for _, option := range m.sshOptions(name, user, endpoint.Port) {
		fmt.Fprintf(&text, "  %s %s\n", option.name, option.value)
	}
	return text.String()
}

// Login is the user that ssh logs in as: the one asked for, or that of the
// record.
func (m *Manager) Login(record *Record, asked string) (string, error) {
	switch {
	case asked != "":
		if !sshUser.MatchString(asked) {
			return "", &BadLogin{Login: asked}
		}
		return asked, nil
	case record.Login != "":
		return record.Login, nil
	}
	return "", &NoLogin{Name: record.Name}
}

// sshUser are the users that ssh and its configuration take without quotes.
var sshUser = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$`)

// BadLogin says that something is no name of a user.
type BadLogin struct{ Login string }

func (b *BadLogin) Error() string {
	return fmt.Sprintf("%q is no name of a user; give one such as alice", b.Login)
}

// NoLogin says that it is not known who can log in.
type NoLogin struct{ Name string }

func (n *NoLogin) Error() string {
	return fmt.Sprintf("VM %s was made by vm create, which knows no user; name one with --user=USER", n.Name)
}

// NotReached says that a VM's sshd was waited for in vain.
type NotReached struct {
	Name string
	// Waited for this, that long.
	Waited string
	Limit  time.Duration
	// LastLine of the console, "" for none.
	LastLine string
}

func (n *NotReached) Error() string {
	text := fmt.Sprintf("VM %s did not answer within %s, still %s", n.Name, n.Limit.Round(time.Second), n.Waited)
	if n.LastLine != "" {
		text += "\nThe last line of its console: " + n.LastLine
	}
	return text + fmt.Sprintf("\nSee all of it with: devbox-cli logs %s", n.Name)
}

// HostKeyChanged says that a VM shows another host key than the pinned one.
type HostKeyChanged struct{ Name, File string }

func (h *HostKeyChanged) Error() string {
	return fmt.Sprintf("what answers for VM %s shows another host key than the pinned one; if you changed the VM's host keys, remove its line from %s and try again", h.Name, h.File)
}

const (
	// sshPatience is how long one attempt may take.
	sshPatience = 15 * time.Second
	// sshPoll is the time between two attempts.
	sshPoll = time.Second
)

// WaitSSH waits until a user can log in to a VM, and returns where. The error
// is *NotReached, *NotRunning, *FailedGuest or *HostKeyChanged.
func (m *Manager) WaitSSH(ctx context.Context, name, user string, limit time.Duration) (hypervisor.Endpoint, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	waiting := "waiting for its sshd"
	for {
		endpoint, now, err := m.tryLogin(limited, name, user)
		if err == nil && now == "" {
			return endpoint, nil
		}
		if ctx.Err() != nil {
			return endpoint, ctx.Err()
		}
		if err == nil {
			if now != waiting {
				waiting = now
				m.Reporter.Phase(progress.Phase(waiting))
			}
			m.Reporter.Detail(m.lastLine(name))
		} else if limited.Err() == nil {
			return endpoint, err
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return endpoint, ctx.Err()
			}
			return endpoint, &NotReached{Name: name, Waited: waiting, Limit: limit, LastLine: m.lastLine(name)}
		case <-time.After(sshPoll):
		}
	}
}

// tryLogin tries once. waiting says what is still missing, "" for nothing.
func (m *Manager) tryLogin(ctx context.Context, name, user string) (endpoint hypervisor.Endpoint, waiting string, err error) {
	endpoint, err = m.Endpoint(ctx, name)
	var nowhere *hypervisor.NoAddress
	if errors.As(err, &nowhere) {
		return endpoint, "waiting for an address", nil
	}
	if err != nil {
		return endpoint, "", err
	}
	place := net.JoinHostPort(endpoint.Address, strconv.Itoa(endpoint.Port))
	if err := greeted(ctx, place); err != nil {
		return endpoint, "waiting for sshd at " + place, nil
	}
	if err := os.MkdirAll(filepath.Dir(m.KnownHosts(name)), 0o700); err != nil {
		return endpoint, "", err
	}
	err = m.Runner.Run(ctx, execx.Command{
		Name: "ssh", Args: append([]string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}, append(m.SSHArguments(name, user, endpoint), "true")...),
		Timeout: sshPatience,
	})
	if err == nil {
		return endpoint, "", nil
	}
	var failure *execx.Error
	if !errors.As(err, &failure) || failure.NotFound {
		return endpoint, "", err
	}
	said := strings.Join(failure.Tail, "\n")
	switch {
	case strings.Contains(said, "REMOTE HOST IDENTIFICATION HAS CHANGED"), strings.Contains(said, "Host key verification failed"):
		return endpoint, "", &HostKeyChanged{Name: name, File: m.KnownHosts(name)}
	case strings.Contains(said, "Permission denied"):
		return endpoint, fmt.Sprintf("waiting for sshd to let %s in (it refuses the keys so far)", user), nil
	}
	return endpoint, fmt.Sprintf("waiting for a login of %s", user), nil
}

// greeted says whether a sshd greets at an address. A connection alone proves
// nothing: behind a forwarded port, the hypervisor accepts it.
func greeted(ctx context.Context, place string) error {
	const patience = 5 * time.Second
	dialer := net.Dialer{Timeout: patience}
	connection, err := dialer.DialContext(ctx, "tcp", place)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(connection, 512).ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), "SSH-") {
		return fmt.Errorf("what answers at %s is no sshd", place)
	}
	return nil
}
