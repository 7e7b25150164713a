package deploy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/terminal"
)

// Unreachable says that a dev host cannot be reached, or lets nobody in.
type Unreachable struct {
	// Host is the dev host as the environment names it; Address and Login are
	// what ssh makes of it, "" where that is not known.
	Host, Address, Login string
	// Reason is what ssh says.
	Reason string
	// After is how long it was tried.
	After time.Duration
	// Refused says that it was reached and took none of the keys.
	Refused bool
	// Keys are those that were tried, or would have been.
	Keys []string
	// KeysMissing says that no file is there of those that would have been tried.
	KeysMissing bool
	// Next is what to do.
	Next string
}

func (u *Unreachable) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "cannot log in to the dev host %s", u.Host)
	if u.Login != "" {
		fmt.Fprintf(&text, " as %s", u.Login)
	}
	if u.Address != "" {
		fmt.Fprintf(&text, " (%s)", u.Address)
	}
	fmt.Fprintf(&text, ": %s, after %.1f s", u.Reason, u.After.Seconds())
	switch {
	case u.Refused && len(u.Keys) > 0:
		fmt.Fprintf(&text, "\nkeys that were tried: %s", strings.Join(u.Keys, ", "))
	case u.Refused:
		text.WriteString("\nno key was tried: ssh found none, and no agent has one")
	case len(u.Keys) > 0:
		fmt.Fprintf(&text, "\nno key was tried; ssh would have tried: %s", strings.Join(u.Keys, ", "))
	case u.KeysMissing:
		text.WriteString("\nno key was tried; none of the key files that ssh would try is there")
	}
	if u.Next != "" {
		fmt.Fprintf(&text, "\n%s", u.Next)
	}
	return text.String()
}

// explainTimeout bounds each command that only serves a message.
const explainTimeout = 20 * time.Second

// explain says why a connection failed.
func (s *session) explain(ctx context.Context, failed *execx.Error, after time.Duration) error {
	if failed.NotFound {
		return errors.New("there is no ssh on PATH; install OpenSSH's client")
	}
	u := &Unreachable{Host: s.destination, After: after, Reason: sshReason(failed.Tail)}
	var files []string
	if settings, err := s.settings(ctx); err == nil {
		u.Login = settings["user"][0]
		u.Address = settings["hostname"][0] + " port " + settings["port"][0]
		files = existing(settings["identityfile"])
	}
	reason := strings.ToLower(u.Reason)
	switch {
	case strings.Contains(reason, "permission denied"), strings.Contains(reason, "too many authentication failures"):
		u.Refused = true
		u.Keys = s.offered(ctx)
		u.Next = "ask an admin of the dev host to put one of your public keys into your account there; if the key has a passphrase, load it first: ssh-add"
	case strings.Contains(reason, "host key verification failed"), strings.Contains(reason, "host key is known"):
		u.Next = fmt.Sprintf("log in once by hand and compare its key with what the admin says: %s", s.byHand)
	case strings.Contains(reason, "could not resolve"), strings.Contains(reason, "name or service not known"):
		u.Keys, u.KeysMissing = files, len(files) == 0
		u.Next = "is the host of the provisioner spelled right in environment.cfg, and is this machine online?"
	default:
		u.Keys, u.KeysMissing = files, len(files) == 0
		u.Next = fmt.Sprintf("does it run, and does a firewall or a missing VPN keep you from it? Try: %s true", s.byHand)
	}
	return u
}

// existing are those of ssh's key files that are there.
func existing(files []string) []string {
	home, _ := os.UserHomeDir()
	var found []string
	for _, file := range files {
		path := file
		if rest, below := strings.CutPrefix(file, "~/"); below {
			path = filepath.Join(home, rest)
		}
		if _, err := os.Stat(path); err == nil {
			found = append(found, file)
		}
	}
	return found
}

// sshReason is the line of ssh that says why.
func sshReason(tail []string) string {
	for _, line := range slices.Backward(tail) {
		if line = strings.TrimSpace(terminal.Line(line)); line != "" {
			return strings.TrimRight(strings.TrimPrefix(line, "ssh: "), ".")
		}
	}
	return "ssh does not say why"
}

// settings are what ssh makes of its config for the host (ssh -G).
func (s *session) settings(ctx context.Context) (map[string][]string, error) {
	output, err := s.runner.Output(ctx, execx.Command{Name: "ssh", Args: []string{"-F", s.config, "-G", "--", s.destination}, Timeout: explainTimeout})
	if err != nil {
		return nil, err
	}
	settings := map[string][]string{}
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		settings[key] = append(settings[key], value)
	}
	for _, key := range []string{"user", "hostname", "port"} {
		if len(settings[key]) == 0 {
			return nil, fmt.Errorf("ssh -G says no %s", key)
		}
	}
	return settings, lines.Err()
}

// offeredKey is what ssh -v says of a key that it offers (OpenSSH, sshconnect2.c).
var offeredKey = regexp.MustCompile(`Offering public key: (.*?) (\S+) (SHA256:\S+)`)

// offered are the keys that ssh offers to the host.
func (s *session) offered(ctx context.Context) []string {
	var keys []string
	said := &execx.LineWriter{Line: func(line string) {
		if match := offeredKey.FindStringSubmatch(line); match != nil {
			keys = append(keys, terminal.Line(fmt.Sprintf("%s (%s %s)", match[1], match[2], match[3])))
		}
	}}
	_ = s.runner.Run(ctx, execx.Command{
		Name: "ssh", Args: []string{"-v", "-F", s.config, "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", fmt.Sprintf("ConnectTimeout=%d", int(ConnectTimeout.Seconds())), "--", s.destination, "true"},
		Stderr: said, Timeout: explainTimeout,
	})
	return keys
}
