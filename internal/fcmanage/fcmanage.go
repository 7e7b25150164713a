package fcmanage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"

	"devhost/internal/channel"
	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/terminal"
)

// Files of the container, relative to its root folder.
const (
	// LocalFolder holds the modules that a system is built from beside its
	// channel's.
	LocalFolder = "etc/local/nixos"
	// Profile is what tools inside take for the system's profile.
	Profile = "nix/var/nix/profiles/system"

	stateFile = "var/lib/fc-manage/state.json"
	lockFile  = "run/fc-manage.lock"
)

// Manager builds and switches. All fields but Timeout and Verbose are required.
type Manager struct {
	Runner execx.Runner
	// Root is the container's root folder, "/" in life.
	Root string
	// System and Next are the links into the store that the host's collector
	// follows, relative to Root.
	System, Next string
	// Out gets what is said to a person, Err what Nix and the switch say.
	Out, Err io.Writer
	// Verbose shows the output of builders.
	Verbose bool
	// Timeout bounds the whole, zero means no bound.
	Timeout time.Duration
}

// state is what the last switch left.
type state struct {
	Version     int    `json:"version"`
	Fingerprint string `json:"fingerprint"`
	System      string `json:"system"`
}

// Failure says what did not work, and what holds now.
type Failure struct {
	What, Now string
	Err       error
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %v\n%s", f.What, f.Err, f.Now) }
func (f *Failure) Unwrap() error { return f.Err }

func (m *Manager) path(relative string) string { return filepath.Join(m.Root, relative) }

// Switch builds the system and switches to it. When nothing changed since the
// last switch, no process is started. The error is *BadEnc, *Failure, or one of
// this container.
func (m *Manager) Switch(ctx context.Context) error {
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, m.Timeout)
		defer cancel()
	}
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	enc, err := readEnc(m.path(EncPath))
	if err != nil {
		return err
	}
	modules, err := m.modules()
	if err != nil {
		return err
	}
	print, err := fingerprint([]string{m.path("etc/local"), m.path("etc/nixos")}, enc.Devhost.Channel, enc.Devhost.GuestModule)
	if err != nil {
		return err
	}
	if print != "" && m.runs(print) {
		fmt.Fprintln(m.Out, "fc-manage: unchanged")
		return nil
	}
	fmt.Fprintf(m.Out, "fc-manage: building the system of %s and %s\n", terminal.Line(enc.Parameters.EnvironmentURL), describe(modules))
	system, err := m.build(ctx, enc, modules)
	if err != nil {
		return &Failure{What: "the system could not be built", Err: err, Now: "This container keeps the system that it has."}
	}
	if err := m.install(ctx, enc, system); err != nil {
		return &Failure{What: "the system could not be installed", Err: err, Now: "This container keeps the system that it has."}
	}
	fmt.Fprintf(m.Out, "fc-manage: switching to %s\n", system)
	command := m.command(enc, filepath.Join(system, "bin/switch-to-configuration"), "switch")
	command.Stdout, command.Stderr = m.Err, m.Err
	if err := m.Runner.Run(ctx, command); err != nil {
		return &Failure{What: "the switch to the new system was not smooth", Err: err, Now: "This container has the new system, also after a restart, but not all of it is up; see: systemctl --failed"}
	}
	return m.remember(state{Version: 1, Fingerprint: print, System: system})
}

func describe(modules []string) string {
	switch len(modules) {
	case 0:
		return "no module in /" + LocalFolder
	case 1:
		return "one module in /" + LocalFolder
	}
	return fmt.Sprintf("%d modules in /%s", len(modules), LocalFolder)
}

// lock keeps two of us from building and switching at once.
func (m *Manager) lock(ctx context.Context) (func(), error) {
	lock := flock.New(m.path(lockFile))
	held, err := lock.TryLock()
	if err == nil && !held {
		fmt.Fprintln(m.Out, "fc-manage: waiting for another fc-manage")
		_, err = lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", lock.Path(), err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// modules are the files of LocalFolder, sorted.
func (m *Manager) modules() ([]string, error) {
	entries, err := os.ReadDir(m.path(LocalFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var modules []string
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".nix") && !strings.HasPrefix(entry.Name(), ".") {
			modules = append(modules, m.path(filepath.Join(LocalFolder, entry.Name())))
		}
	}
	return modules, nil
}

// runs tells whether what has this fingerprint was switched to, and still runs
// and starts.
func (m *Manager) runs(fingerprint string) bool {
	data, err := readBounded(m.path(stateFile), mostEnc)
	var last state
	if err != nil || json.Unmarshal(data, &last) != nil || last.Version != 1 || last.Fingerprint != fingerprint {
		return false
	}
	for _, link := range []string{m.System, "run/current-system"} {
		if target, err := os.Readlink(m.path(link)); err != nil || target != last.System {
			return false
		}
	}
	_, err = os.Lstat(last.System)
	return err == nil
}

func (m *Manager) remember(done state) error {
	data, err := json.Marshal(done)
	if err != nil {
		return err
	}
	path := m.path(stateFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o644)
}

// programFolders are where a container has its programs.
const programFolders = "/run/wrappers/bin:/root/.nix-profile/bin:/etc/profiles/per-user/root/bin:/run/current-system/sw/bin"

// command is a program of the container, with Nix as a client of the host's
// daemon.
func (m *Manager) command(enc Enc, name string, args ...string) execx.Command {
	path := programFolders
	if enc.Devhost.NixFolder != "" {
		path += ":" + enc.Devhost.NixFolder
	}
	environment := append(nix.ClientEnvironment("/root"), "PATH="+path)
	return execx.Command{Name: name, Args: args, Env: environment, Dir: "/"}
}

// NoNix says that the container has no Nix programs.
type NoNix struct{}

func (NoNix) Error() string {
	return "there are no Nix programs in this container (nix-build); its NixOS must not set nix.enable = false"
}

// program finds a Nix program: that of the container, or that of the host where
// it lies in the store.
func program(enc Enc, name string) (string, error) {
	for _, folder := range append(filepath.SplitList(programFolders), enc.Devhost.NixFolder) {
		if path, err := exec.LookPath(filepath.Join(folder, name)); folder != "" && err == nil {
			return path, nil
		}
	}
	return "", NoNix{}
}

// build evaluates and builds in one process, whose connection to the daemon
// keeps what it makes from the collector until the link is there.
func (m *Manager) build(ctx context.Context, enc Enc, modules []string) (string, error) {
	shape, err := channel.ShapeOf(enc.Devhost.Channel)
	if err != nil {
		return "", err
	}
	nixBuild, err := program(enc, "nix-build")
	if err != nil {
		return "", err
	}
	arguments := []string{"-E", channel.GuestExpression(shape, modules), "--out-link", m.path(m.Next), "--show-trace"}
	for _, entry := range channel.SearchPath(shape, enc.Devhost.Channel, enc.Devhost.GuestModule, "") {
		arguments = append(arguments, "-I", entry.String())
	}
	if !m.Verbose {
		arguments = append(arguments, "--no-build-output")
	}
	if err := os.MkdirAll(filepath.Dir(m.path(m.Next)), 0o755); err != nil {
		return "", err
	}
	command := m.command(enc, nixBuild, arguments...)
	messages := &execx.LineWriter{Line: m.show()}
	command.Stdout, command.Stderr = io.Discard, messages
	err = m.Runner.Run(ctx, command)
	if closeErr := messages.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", explain(ctx, err, channel.NeedsHostUsr(enc.Devhost.Channel, shape))
	}
	system, err := os.Readlink(m.path(m.Next))
	if err != nil {
		return "", fmt.Errorf("the build ended well and yet left no result: %w", err)
	}
	if err := nix.CheckStorePath(system); err != nil {
		return "", err
	}
	if _, err := os.Lstat(filepath.Join(system, "init")); err != nil {
		return "", &channel.NoInit{Reference: enc.Parameters.EnvironmentURL, Path: system}
	}
	return system, nil
}

// show passes on what Nix says, but for what nobody can do anything about: an
// unprivileged client's settings are not all taken.
func (m *Manager) show() func(string) {
	return func(line string) {
		if strings.Contains(line, "ignoring the") && strings.Contains(line, "restricted setting") {
			return
		}
		fmt.Fprintln(m.Err, terminal.Line(line))
	}
}

// BuildFailed says that nix-build did not build the system. What it said has
// been shown.
type BuildFailed struct {
	// HostUsr says that the channel's builders need the host's /usr.
	HostUsr bool
	Err     *execx.Error
}

func (b *BuildFailed) Error() string {
	text := "nix-build " + b.Err.Reason() + "; what it said is above"
	if b.HostUsr {
		text += "\nThe builders of this channel need the host's /usr; if they lack it, the host's nix.conf has no sandbox-paths for it: see channels/offline/README.md"
	}
	return text
}

func (b *BuildFailed) Unwrap() error { return b.Err }

func explain(ctx context.Context, err error, hostUsr bool) error {
	var failed *execx.Error
	if ctx.Err() != nil || !errors.As(err, &failed) || failed.Err != nil {
		return err
	}
	if strings.Contains(strings.Join(failed.Tail, "\n"), "daemon-socket") {
		return fmt.Errorf("the host's Nix daemon does not answer; on the host, run: devhost start NAME: %w", err)
	}
	return &BuildFailed{HostUsr: hostUsr, Err: failed}
}

// install makes a system the one that the container starts with.
func (m *Manager) install(ctx context.Context, enc Enc, system string) error {
	nixEnv, err := program(enc, "nix-env")
	if err != nil {
		return err
	}
	if err := m.Runner.Run(ctx, m.command(enc, nixEnv, "--profile", m.path(Profile), "--set", system)); err != nil {
		return err
	}
	// Until here the other link keeps it, which stays until the next build.
	return renameio.Symlink(system, m.path(m.System))
}
