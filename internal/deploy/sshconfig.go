package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"devhost/internal/environment"
	"devhost/internal/execx"
)

// configValue quotes a value for ssh_config(5), where % starts a token.
func configValue(value string) string {
	value = strings.ReplaceAll(value, "%", "%%")
	if strings.ContainsAny(value, " \t#'") {
		return `"` + value + `"`
	}
	return value
}

// files are what the checkout keeps for ssh.
type files struct{ *environment.Environment }

func (f files) key(container string) string { return filepath.Join(f.Private(), container+".key") }
func (f files) knownHosts() string          { return filepath.Join(f.Private(), "known_hosts") }
func (f files) state() string               { return filepath.Join(f.Private(), "state.json") }
func (f files) lock() string                { return filepath.Join(f.Private(), "lock") }

// prepare makes the folder for keys, which git ignores by itself.
func (f files) prepare() error {
	if err := os.MkdirAll(f.Private(), 0o700); err != nil {
		return fmt.Errorf("cannot make the folder for keys: %w", err)
	}
	above := filepath.Dir(f.Private())
	if err := os.Chmod(above, 0o700); err != nil {
		return err
	}
	return writePrivate(filepath.Join(above, ".gitignore"), "*\n")
}

// renderConfig is the ssh_config(5) of an environment: a block for each of its
// containers, with the pinned host key, and after them what the project's
// ssh_config, the person and the machine say, for the dev host and the rest.
func renderConfig(e *environment.Environment, access map[string]Access) string {
	f := files{e}
	var text strings.Builder
	fmt.Fprintf(&text, "# Written by devhost-deploy for the environment %s of this checkout; each deploy\n# writes it anew. ssh -F %s %s\n", e.Name, filepath.Base(e.SSHConfig()), e.Hosts[0].Key)
	for _, host := range e.Hosts {
		if host.Name == "" {
			continue
		}
		known := access[host.Name]
		fmt.Fprintf(&text, "\nHost %s\n  HostName %s\n  HostKeyAlias %s\n", strings.Join(e.Words(host), " "), host.Name, host.Name)
		if known.Port != 0 && known.Port != 22 {
			fmt.Fprintf(&text, "  Port %d\n", known.Port)
		}
		fmt.Fprintf(&text, "  %s\n  User developer\n", wayIn(e, host))
		switch {
		case !known.Batou:
			fmt.Fprintf(&text, "  IdentityFile %s\n  IdentitiesOnly yes\n", configValue(f.key(host.Name)))
		default:
			// Where only batou's command is, its published key logs in, or that of
			// the person.
			fmt.Fprintf(&text, "  IdentityFile %s\n", configValue(e.BatouKey()))
		}
		fmt.Fprintf(&text, "  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  CheckHostIP no\n", configValue(f.knownHosts()))
	}
	text.WriteString("\nHost *\n")
	for _, include := range []string{filepath.Join(e.Root, "ssh_config"), "~/.ssh/config", "/etc/ssh/ssh_config"} {
		fmt.Fprintf(&text, "  Include %s\n", includeValue(include))
	}
	return text.String()
}

// wayIn leads through the dev host. ssh makes of ProxyJump a command line with the
// path of this file in it, unquoted; where that cannot work, the command line is ours.
func wayIn(e *environment.Environment, host *environment.Host) string {
	quoted := execx.Quote([]string{e.SSHConfig()})
	if quoted == e.SSHConfig() && !strings.Contains(quoted, "%") {
		return "ProxyJump " + host.Provisioner.Host
	}
	return "ProxyCommand ssh -F " + strings.ReplaceAll(quoted, "%", "%%") + " -W '[%h]:%p' -- " + host.Provisioner.Host
}

// includeValue quotes a path for Include, which takes patterns of glob(7).
func includeValue(path string) string {
	path = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
	if strings.ContainsAny(path, " \t#'") {
		return `"` + path + `"`
	}
	return path
}

// renderKnownHosts is the known_hosts of an environment (sshd(8)).
func renderKnownHosts(e *environment.Environment, access map[string]Access) string {
	var text strings.Builder
	for _, host := range e.Hosts {
		if key := access[host.Name].HostKey; key != "" {
			fmt.Fprintf(&text, "%s %s\n", host.Name, key)
		}
	}
	return text.String()
}

// writePrivate writes a file as a whole that nobody else can read, unless it says
// that already.
func writePrivate(path, text string) error {
	const mode = 0o600
	old, err := os.ReadFile(path)
	if info, statErr := os.Stat(path); err == nil && statErr == nil && string(old) == text && info.Mode().Perm() == mode {
		return nil
	}
	if err := renameio.WriteFile(path, []byte(text), mode, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
