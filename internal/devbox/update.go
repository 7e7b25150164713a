package devbox

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed" // activate.sh
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/nix"
	"devhost/internal/progress"
	"devhost/internal/terminal"
)

// activate switches a VM to a system, in the VM: see the file.
//
//go:embed activate.sh
var activate string

// systemNix asks a flake for the system of a host.
//
//go:embed system.nix
var systemNix string

// receive unpacks the source of a flake in a VM.
const receive = `set -eu
umask 077
rm -rf /tmp/nix-config.new
mkdir /tmp/nix-config.new
tar -xf - -C /tmp/nix-config.new
rm -rf /tmp/nix-config
mv /tmp/nix-config.new /tmp/nix-config
`

// buildThere builds a system in a VM and prints its path as the last line.
const buildThere = `set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
nixos-rebuild build --flake "$1" >&2
readlink -f result
`

// guestSource is where the source of a flake is in a VM.
const guestSource = "/tmp/nix-config"

// UpdateOptions say what to update to.
type UpdateOptions struct {
	Reference Reference
	// BuildLocally builds the system here and copies the result.
	BuildLocally bool
	// Timeout is how long the VM may take to answer after the switch; then it
	// goes back by itself.
	Timeout time.Duration
}

// UpdateResult is what update did.
type UpdateResult struct {
	// Before and After are the store paths of the systems.
	Before, After string
	// Changed is false where they are the same.
	Changed bool
}

// UpdateFailed says that a VM was not updated, and what it runs now.
type UpdateFailed struct {
	Name string
	// What failed, and why.
	What string
	Err  error
	// Now is what holds.
	Now string
}

func (u *UpdateFailed) Error() string {
	text := fmt.Sprintf("the update of VM %s failed: %s", u.Name, u.What)
	if u.Err != nil {
		text += ": " + u.Err.Error()
	}
	return text + "\n" + u.Now
}

func (u *UpdateFailed) Unwrap() error { return u.Err }

// Degraded says that a VM runs the new system, and units of it failed.
type Degraded struct{ Name, Output string }

func (d *Degraded) Error() string {
	return fmt.Sprintf("VM %s runs the new system, but not all of its units started:\n%s\nSee them with: devbox-cli ssh %s systemctl --failed; go back with: devbox-cli ssh %[1]s sudo nixos-rebuild --rollback switch", d.Name, d.Output, d.Name)
}

// session is ssh to one VM.
type session struct {
	manager  *Manager
	name     string
	login    string
	endpoint hypervisor.Endpoint
}

// run runs a command in the VM: words that a POSIX shell reads.
func (s *session) run(ctx context.Context, input io.Reader, output, messages io.Writer, words ...string) error {
	arguments := append([]string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"}, s.manager.SSHArguments(s.name, s.login, s.endpoint)...)
	return s.manager.Runner.Run(ctx, execx.Command{
		Name: "ssh", Args: append(arguments, "--", execx.Quote(words)),
		Stdin: input, Stdout: output, Stderr: messages,
	})
}

// script runs a shell script in the VM, as root if asked.
func (s *session) script(ctx context.Context, text string, output, messages io.Writer, root bool, arguments ...string) error {
	words := append([]string{"sh", "-s", "--"}, arguments...)
	if root {
		words = append([]string{"sudo", "-n"}, words...)
	}
	return s.run(ctx, strings.NewReader(text), output, messages, words...)
}

// Update brings a running VM to what its flake says now, checks that it answers
// afterwards, and has it go back where it does not. The errors are
// *UpdateFailed, *Degraded, and those of finding the VM.
func (m *Manager) Update(ctx context.Context, options UpdateOptions) (*UpdateResult, error) {
	name := options.Reference.Host
	unlock, err := m.lock(ctx, name, "update")
	if err != nil {
		return nil, err
	}
	defer unlock()
	record, _, err := m.open(name)
	if err == nil {
		err = record.CheckInstalled()
	}
	if err != nil {
		return nil, err
	}
	endpoint, err := m.Endpoint(ctx, name)
	if err != nil {
		return nil, err
	}
	if record.Login == "" {
		found, err := m.evaluate(ctx, options.Reference)
		if err != nil {
			return nil, err
		}
		record.Login = found.Devbox.Login
	}
	to := &session{manager: m, name: name, login: record.Login, endpoint: endpoint}
	var system string
	if options.BuildLocally {
		system, err = m.buildHere(ctx, options.Reference, to)
	} else {
		system, err = m.buildInVM(ctx, options.Reference, to)
	}
	if err != nil {
		return nil, err
	}
	result, err := m.activate(ctx, to, system, options.Timeout)
	var degraded *Degraded
	if err == nil || errors.As(err, &degraded) {
		record.Flake, record.Host, record.UpdatedAt = options.Reference.Flake, name, m.Now().UTC()
		err = errors.Join(err, m.save(record))
	}
	return result, err
}

// buildHere builds the system on this machine and copies it.
func (m *Manager) buildHere(ctx context.Context, reference Reference, to *session) (string, error) {
	m.Reporter.Phase(progress.Evaluate)
	own := nix.Own{Runner: m.Runner}
	name := reference.Host
	var found struct {
		Names   []string `json:"names"`
		DrvPath string   `json:"drvPath"`
	}
	if err := m.ask(ctx, reference, systemNix, &found); err != nil {
		return "", err
	}
	if found.DrvPath == "" {
		return "", &UnknownHost{Reference: reference, Hosts: found.Names}
	}
	m.Reporter.Phase(progress.Build)
	system, err := own.Build(ctx, found.DrvPath, nix.BuildOptions{GCRoot: m.System(name), Log: m.BuildLog(name), Progress: nix.Report(m.Reporter)})
	if err != nil {
		return "", err
	}
	m.Reporter.Phase("copying the system to the VM")
	// Nix splits the variable at blanks, without quotes: see sshFile.
	config, err := m.sshFile(name, to)
	if err != nil {
		return "", err
	}
	defer os.Remove(config)
	err = own.Copy(ctx, system, "ssh-ng://"+name, "-F "+config, func(line string) { m.Reporter.Detail(terminal.Line(line)) })
	if err != nil {
		return "", &UpdateFailed{Name: name, What: "its new system could not be copied", Err: err, Now: "It still runs the system that it ran before. Only a trusted user of the VM's Nix may copy what was built elsewhere: nix.settings.trusted-users."}
	}
	return system, nil
}

// buildInVM sends the flake's source and builds there.
func (m *Manager) buildInVM(ctx context.Context, reference Reference, to *session) (string, error) {
	folder, below := reference.Folder, ""
	if folder != "" {
		folder, below = sourceOf(folder)
	} else {
		m.Reporter.Phase("fetching the flake")
		own := nix.Own{Runner: m.Runner}
		var err error
		if folder, below, err = own.FlakeSource(ctx, reference.Flake); err != nil {
			return "", err
		}
	}
	fail := func(what string, err error) error {
		return &UpdateFailed{Name: to.name, What: what, Err: err, Now: "It still runs the system that it ran before."}
	}
	m.Reporter.Phase("sending the flake's source")
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(packSource(writer, folder)) }()
	err := errors.Join(to.run(ctx, reader, nil, nil, "sh", "-c", receive), reader.Close())
	if err != nil {
		return "", fail("its source could not be sent", err)
	}
	flake := guestSource
	if below != "" {
		flake = "path:" + guestSource + "?dir=" + strings.ReplaceAll(url.PathEscape(below), "%2F", "/")
	}
	m.Reporter.Phase("building in the VM")
	var output answer
	lines := &execx.LineWriter{Line: func(line string) { m.Reporter.Detail(terminal.Line(line)) }}
	err = to.script(ctx, buildThere, &output, lines, false, flake+"#"+reference.Host)
	if err != nil {
		return "", fail("its new system could not be built there", err)
	}
	system := output.lastLine()
	if err := nix.CheckStorePath(system); err != nil {
		return "", fail("nixos-rebuild build left no system", err)
	}
	return system, nil
}

// answer keeps the end of what a guest answers: enough for a few words, however
// much it prints.
type answer struct{ kept []byte }

func (a *answer) Write(data []byte) (int, error) {
	const most = 8 << 10
	a.kept = append(a.kept, data[max(0, len(data)-most):]...)
	a.kept = a.kept[max(0, len(a.kept)-most):]
	return len(data), nil
}

// String is fit for a terminal, on one line.
func (a *answer) String() string { return strings.TrimSpace(terminal.Line(string(a.kept))) }

// lastLine is the last line, fit for a terminal.
func (a *answer) lastLine() string {
	lines := bytes.Split(bytes.TrimSpace(a.kept), []byte("\n"))
	return strings.TrimSpace(terminal.Line(string(lines[len(lines)-1])))
}

// sourceOf is what belongs to a local flake: the top of its git repository, or
// its own folder, and where its flake.nix is below that.
func sourceOf(folder string) (top, below string) {
	if with, ok := flakeFolder(folder); ok {
		folder = with
	}
	for above := folder; ; above = filepath.Dir(above) {
		if _, err := os.Stat(filepath.Join(above, ".git")); err == nil {
			relative, err := filepath.Rel(above, folder)
			if err != nil || relative == "." {
				relative = ""
			}
			return above, filepath.ToSlash(relative)
		}
		if above == filepath.Dir(above) {
			return folder, ""
		}
	}
}

// packSource writes a folder as a tar archive, without git's and Nix' own.
func packSource(to io.Writer, folder string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewWriter(to)
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		base := entry.Name()
		if base == ".git" || base == "result" && entry.Type()&fs.ModeSymlink != 0 || strings.HasPrefix(base, "result-") && entry.Type()&fs.ModeSymlink != 0 {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return packOne(archive, root, path, entry)
	})
	return errors.Join(err, archive.Close())
}

func packOne(archive *tar.Writer, root *os.Root, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = root.Readlink(path); err != nil {
			return err
		}
	} else if !info.Mode().IsRegular() && !info.IsDir() {
		// Sockets and the like are no source.
		return nil
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = path
	header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
	// A source from the Nix store is read-only; the VM's user replaces it next
	// time.
	const writable = 0o200
	header.Mode |= writable
	if info.IsDir() {
		header.Name += "/"
	}
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := root.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	// A file that grows meanwhile must not exceed what the header says.
	_, err = io.CopyN(archive, file, header.Size)
	return err
}

// activationState is what activate.sh left in the VM.
const (
	statusCommand = `cat /run/devbox-update/status 2>/dev/null; readlink -f /run/current-system`
	keepCommand   = `systemctl stop devbox-rollback.timer 2>/dev/null; rm -rf /run/devbox-update`
)

// activate switches the VM to a system and checks that it answers.
func (m *Manager) activate(ctx context.Context, to *session, system string, limit time.Duration) (*UpdateResult, error) {
	var output answer
	err := to.run(ctx, nil, &output, nil, "readlink", "-f", "/run/current-system")
	before := output.lastLine()
	if err == nil {
		err = nix.CheckStorePath(before)
	}
	if err != nil {
		return nil, &UpdateFailed{Name: to.name, What: "the VM does not say what it runs", Err: err, Now: "Nothing was changed."}
	}
	result := &UpdateResult{Before: before, After: system}
	if result.Before == system {
		return result, nil
	}
	result.Changed = true
	m.Reporter.Phase("switching the VM to the new system")
	var said []string
	lines := &execx.LineWriter{Line: func(line string) {
		line = terminal.Line(line)
		m.Reporter.Detail(line)
		const most = 30
		if said = append(said, line); len(said) > most {
			said = said[1:]
		}
	}}
	// The switch may cost the connection: what counts is what the VM says on a
	// new one. From now on, Ctrl-C comes too late to stop it.
	err = to.script(ctx, activate, lines, lines, true, system, fmt.Sprint(int(limit.Seconds())))
	if interrupted(ctx, err) {
		return nil, &LeftRunning{Err: err, Now: fmt.Sprintf("VM %s goes on with its switch by itself, and goes back to %s afterwards; run the update again", to.name, result.Before)}
	}
	m.Reporter.Phase("checking that the VM answers")
	status, current, err := m.outcome(ctx, to, limit)
	text := strings.Join(said, "\n")
	switch {
	case err != nil:
		return nil, m.wentBack(ctx, to, result.Before, limit, err)
	case current != system:
		return nil, &UpdateFailed{Name: to.name, What: fmt.Sprintf("the switch ended with exit code %s:\n%s", status, text), Now: "The VM went back to the system that it ran before."}
	}
	if err := to.run(ctx, nil, nil, nil, "sudo", "-n", "sh", "-c", keepCommand); err != nil {
		return nil, m.wentBack(ctx, to, result.Before, limit, err)
	}
	if status != "0" {
		return result, &Degraded{Name: to.name, Output: text}
	}
	return result, nil
}

// outcome asks the VM, on a new connection, how the switch ended and which
// system it runs.
func (m *Manager) outcome(ctx context.Context, to *session, limit time.Duration) (status, current string, err error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		// A new system may bring a new address.
		endpoint, addressErr := m.Endpoint(limited, to.name)
		if addressErr == nil {
			to.endpoint = endpoint
		}
		var output answer
		err = to.run(limited, nil, &output, nil, "sh", "-c", statusCommand)
		fields := strings.Fields(output.String())
		if err == nil && len(fields) == 2 {
			return fields[0], fields[1], nil
		}
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		select {
		case <-limited.Done():
			return "", "", errors.Join(addressErr, err, limited.Err())
		case <-time.After(sshPoll):
		}
	}
}

// wentBack waits until a VM that did not answer runs its old system again.
func (m *Manager) wentBack(ctx context.Context, to *session, before string, limit time.Duration, cause error) error {
	failure := &UpdateFailed{Name: to.name, What: fmt.Sprintf("it did not answer within %s after the switch", limit.Round(time.Second)), Err: cause}
	m.Reporter.Phase("waiting until the VM is back at its old system")
	const patience = 3 * time.Minute
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for limited.Err() == nil {
		var output answer
		if err := to.run(limited, nil, &output, nil, "readlink", "-f", "/run/current-system"); err == nil && output.lastLine() == before {
			failure.Now = "The VM went back to the system that it ran before, and answers again."
			return failure
		}
		select {
		case <-limited.Done():
		case <-time.After(sshPoll):
		}
	}
	failure.Now = fmt.Sprintf("It goes back to %s by itself, and did not answer since; look at it with: devbox-cli logs %s", before, to.name)
	return failure
}

// sshFile writes an ssh_config for programs that cannot be given options with
// blanks in them.
func (m *Manager) sshFile(name string, to *session) (string, error) {
	file, err := os.CreateTemp("", "devbox-ssh-")
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(m.SSHConfig(name, to.login, to.endpoint) + "  BatchMode yes\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}
