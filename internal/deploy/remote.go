package deploy

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"devhost/internal/environment"
	"devhost/internal/execx"
	"devhost/internal/terminal"
)

// Access is what ssh needs to log in to a container.
type Access struct {
	User       string `json:"user"`
	PrivateKey string `json:"privateKey"`
	HostKey    string `json:"hostKey"`
	Port       uint16 `json:"port"`
	// Batou says that batou's published key is what logs in.
	Batou bool `json:"-"`
}

// Unit is a unit of a container that is not as it should be.
type Unit struct {
	Name        string   `json:"name"`
	State       string   `json:"state"`
	Description string   `json:"description"`
	Log         []string `json:"log"`
}

// ensured is what "devhost ensure --json --access" prints.
type ensured struct {
	Created       bool       `json:"created"`
	Switched      bool       `json:"switched"`
	Started       bool       `json:"started"`
	Units         []Unit     `json:"units"`
	Warnings      []string   `json:"warnings"`
	Domains       []string   `json:"domains"`
	ExpiresStop   *time.Time `json:"expiresStop"`
	ExpiresDelete *time.Time `json:"expiresDelete"`
	Access        Access     `json:"access"`
}

// RemoteError is what devhost on the dev host said when it failed.
type RemoteError struct {
	// Host is the dev host, Status the exit status there.
	Host   string
	Status int
	Text   string
}

func (r *RemoteError) Error() string { return fmt.Sprintf("on %s: %s", r.Host, r.Text) }

// NoDevhost says that a host runs no containers.
type NoDevhost struct{ Host string }

func (n *NoDevhost) Error() string {
	return fmt.Sprintf("%s is no dev host: it has neither devhost nor fc-build-dev-container on PATH; is the host of the provisioner right in environment.cfg? An admin of that machine installs devhost with: devhost host install", n.Host)
}

// Statuses of ensureScript that are none of devhost's.
const (
	statusHost   = 93
	statusInside = 94
	statusBatou  = 95
	statusNone   = 96
)

// saysMade is the line by which ensureScript tells that it made a container.
const saysMade = "devhost-deploy:made"

// ensureScript is what the dev host runs for a container, in one go. Its
// arguments are name, "host" or "inside" for where the system is built, 1 to
// rebuild, 1 to remove another person's container too, channel and aliases for
// batou's command, and what devhost ensure is given.
const ensureScript = `name=$1 builds=$2 rebuild=$3 force=$4 channel=$5 aliases=$6; shift 6
if command -v devhost >/dev/null 2>&1; then :; elif command -v fc-build-dev-container >/dev/null 2>&1; then exit 95; else exit 96; fi
if [ "$rebuild" = 1 ]; then
  if [ "$force" = 1 ]; then force=--force; else force=--missing-ok; fi
  sudo -n devhost destroy --missing-ok "$force" "$name" </dev/null >&2 || exit
fi
inside=no; if grep -qs "\"dialect\"" "/etc/devhost/$name.json"; then inside=yes; fi
if [ "$builds" = host ] && [ $inside = yes ]; then exit 94; fi
if [ "$builds" = inside ] && [ $inside = no ]; then
  if [ -e "/etc/devhost/$name.json" ]; then exit 93; fi
  sudo -n fc-build-dev-container ensure "$name" "$channel" "$aliases" </dev/null >&2 || exit
  echo ` + saysMade + ` >&2
fi
exec sudo -n devhost ensure "$name" "$@"`

// inEnglish is for what is read of sudo's messages: ssh may hand over the
// person's language.
const inEnglish = "unset LC_ALL LANGUAGE; LC_MESSAGES=C; export LC_MESSAGES\n"

// shell is a command line that runs a script of sh with arguments, whatever the
// login's shell is.
func shell(script string, arguments ...string) string {
	return execx.Quote(append([]string{"sh", "-c", inEnglish + script, "devhost-deploy"}, arguments...))
}

// ensureArguments are what devhost ensure is given beside the provision.
func ensureArguments(e *environment.Environment, host *environment.Host) []string {
	arguments := []string{"--json", "--access", "--environment", networkName(e)}
	if host.Provisioner.Channel != "" {
		arguments = append(arguments, "--channel", host.Provisioner.Channel)
	}
	if len(host.Aliases) == 0 {
		arguments = append(arguments, "--alias", "")
	}
	for _, alias := range host.Aliases {
		arguments = append(arguments, "--alias", alias)
	}
	return arguments
}

// longestAnswer bounds what a dev host says to a command, in bytes.
const longestAnswer = 16 << 20

// remote runs a command line on the dev host and gives its standard output.
func remote(ctx context.Context, s *session, line string, stdin []byte, said func(line string)) ([]byte, error) {
	output := &limited{most: longestAnswer}
	command := s.command(line)
	if stdin != nil {
		command.Stdin = bytes.NewReader(stdin)
	}
	stderr := &execx.LineWriter{Line: func(line string) { said(terminal.Line(line)) }}
	command.Stdout, command.Stderr = output, stderr
	err := s.runner.Run(ctx, command)
	_ = stderr.Close()
	if output.full && ctx.Err() == nil {
		return nil, fmt.Errorf("%s answers with more than %d MiB, which nothing there should say", s.destination, longestAnswer>>20)
	}
	var failed *execx.Error
	if !errors.As(err, &failed) || failed.Cancelled || failed.Err != nil || failed.NotFound {
		return output.Bytes(), err
	}
	refused := &RemoteError{Host: s.destination, Status: failed.ExitCode}
	refused.Text, refused.Status = remoteReason(s.destination, failed)
	return output.Bytes(), refused
}

// statusNotAllowed is devhost's exit status for what a person may not do.
const statusNotAllowed = 7

// remoteReason is what devhost said last, or sudo, and the status that stands for
// it.
func remoteReason(host string, failed *execx.Error) (string, int) {
	var lines []string
	for _, line := range failed.Tail {
		line = terminal.Line(line)
		for _, program := range []string{"devhost: ", "fc-build-dev-container: "} {
			if rest, ok := strings.CutPrefix(line, program); ok && !strings.HasPrefix(rest, "warning: ") {
				lines, line = nil, rest
			}
		}
		lines = append(lines, line)
	}
	text := strings.Join(lines, "\n")
	switch {
	case strings.Contains(text, "a password is required"), strings.Contains(text, "is not in the sudoers"), strings.Contains(text, "is not allowed to execute"), strings.Contains(text, "may not run sudo"):
		machine := host[strings.LastIndexByte(host, '@')+1:]
		return fmt.Sprintf("you may not use devhost there (%s); an admin of %s allows it by adding you to its group devhost", lines[len(lines)-1], machine), statusNotAllowed
	case failed.ExitCode == lost && text == "":
		return "the connection was lost; the next run goes on from there", lost
	case failed.ExitCode == lost:
		return fmt.Sprintf("the connection was lost (%s); the next run goes on from there", text), lost
	case text == "":
		return failed.Reason(), failed.ExitCode
	}
	return text, failed.ExitCode
}

// networkName is what containers share that may reach each other: the same for
// all hosts of one environment in one checkout, and for nothing else.
func networkName(e *environment.Environment) string {
	keys := make([]string, len(e.Hosts))
	for i, host := range e.Hosts {
		keys[i] = host.Name
	}
	sort.Strings(keys)
	return label(e.Name) + "-" + shortHash(strings.Join(keys, "\n"))
}

// provisionArchive is a tar of what the system is built from: provision.nix, the
// other *.nix beside it, and all of the folder provision/. It is nil where there
// is no provision.nix.
func provisionArchive(e *environment.Environment) ([]byte, error) {
	if _, err := os.Stat(e.Module()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	paths, err := provisionFiles(e.Folder)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	archive := tar.NewWriter(&packed)
	size := int64(0)
	for _, name := range paths {
		path := filepath.Join(e.Folder, name)
		info, err := os.Stat(path)
		if err != nil {
			return nil, &environment.Invalid{Path: e.Shown(path), Problems: []environment.Problem{{Text: "it cannot be read: " + pathReason(err)}}}
		}
		const largest = 64 << 20
		if size += info.Size(); size > largest {
			return nil, fmt.Errorf("the provision of %s has more than %d MiB (%s is the file that is too much); bring data to the container with COPY in provision.sh", e.Name, largest>>20, e.Shown(path))
		}
		if !info.Mode().IsRegular() {
			return nil, &environment.Invalid{Path: e.Shown(path), Problems: []environment.Problem{{Text: "it is no file, so it cannot be a part of the provision"}}}
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, &environment.Invalid{Path: e.Shown(path), Problems: []environment.Problem{{Text: "it cannot be read: " + pathReason(err)}}}
		}
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		if err := archive.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			return nil, err
		}
		if _, err := archive.Write(content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// provisionFiles are relative to the environment's folder, sorted.
func provisionFiles(folder string) ([]string, error) {
	modules, err := filepath.Glob(filepath.Join(environment.GlobQuote(folder), "*.nix"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, module := range modules {
		if !strings.HasPrefix(filepath.Base(module), ".") {
			names = append(names, filepath.Base(module))
		}
	}
	more := filepath.Join(folder, "provision")
	err = filepath.WalkDir(more, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if errors.Is(err, fs.ErrNotExist) && path == more {
				return nil
			}
			return err
		}
		name, err := filepath.Rel(folder, path)
		names = append(names, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	return names, nil
}

// domainName is what can be a part of a URL, and shown.
var domainName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// parseEnsured reads what devhost ensure printed.
func parseEnsured(host string, output []byte) (*ensured, error) {
	result := &ensured{}
	if err := json.Unmarshal(output, result); err != nil {
		return nil, fmt.Errorf("devhost on %s answers in a way that this devhost-deploy does not understand (%w); are both of the same version?", host, err)
	}
	if result.Access.PrivateKey == "" || strings.ContainsAny(result.Access.HostKey, "\n\r") || result.Access.HostKey == "" {
		return nil, fmt.Errorf("devhost on %s did not say how to log in to the container; are both of the same version?", host)
	}
	for _, domain := range result.Domains {
		if !domainName.MatchString(domain) {
			return nil, fmt.Errorf("devhost on %s says that it serves %q, which is no domain", host, domain)
		}
	}
	cleanUnits(result.Units)
	return result, nil
}

// cleanUnits makes what a container says of its units fit for a terminal.
func cleanUnits(units []Unit) {
	for i, unit := range units {
		units[i].Name, units[i].State, units[i].Description = terminal.Line(unit.Name), terminal.Line(unit.State), terminal.Line(unit.Description)
		for j, line := range unit.Log {
			units[i].Log[j] = terminal.Line(line)
		}
	}
}
