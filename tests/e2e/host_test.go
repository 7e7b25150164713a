// Package e2e drives devhost as a person would: the real program, real Nix,
// systemd-nspawn, sshd and ingress, on channels/offline.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"devhost/internal/cli/cliargs"
	cli "devhost/internal/cli/devhost"
	"devhost/internal/engine/enter"
	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/registry"
)

// program is the devhost binary under test.
var program string

// These make this test binary, where it behaves as devhost, send itself
// SIGKILL, SIGINT or SIGSTOP when a change reaches the step that they name.
// atCommand makes the command that does so.
const (
	killAtVariable      = "DEVHOST_TEST_KILL_AT"
	interruptAtVariable = "DEVHOST_TEST_INTERRUPT_AT"
	pauseAtVariable     = "DEVHOST_TEST_PAUSE_AT"
	// clockVariable is how far ahead its clock is, as 168h.
	clockVariable = "DEVHOST_TEST_CLOCK"
)

func TestMain(m *testing.M) {
	// devhost starts itself as a supervisor and as a session in a container.
	if len(os.Args) > 1 && (os.Args[1] == "--state-dir" || os.Args[1] == enter.SessionArgument) {
		os.Exit(runDevhost())
	}
	os.Exit(runTests(m))
}

// runDevhost is the main function of cmd/devhost, with a hook at every step.
func runDevhost() int {
	if status, ok := cli.Inside(os.Args); ok {
		return status
	}
	ctx, stop := signal.NotifyContext(context.Background(), cliargs.EndSignals()...)
	context.AfterFunc(ctx, stop)
	hook := cli.OnStep(func(reached string) {
		switch reached {
		case os.Getenv(killAtVariable):
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		case os.Getenv(interruptAtVariable):
			_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
			// The signal arrives in another goroutine.
			<-ctx.Done()
		case os.Getenv(pauseAtVariable):
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
	})
	ahead, _ := time.ParseDuration(os.Getenv(clockVariable))
	clock := cli.Now(func() time.Time { return time.Now().Add(ahead) })
	return cli.Main(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, hook, clock)
}

// atCommand is a devhost command that gets a signal at a step: variable says
// which.
func (h *host) atCommand(variable, step string, args ...string) *exec.Cmd {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	command := h.command(args...)
	command.Path, command.Args[0] = self, self
	command.Env = append(command.Env, variable+"="+step)
	return command
}

func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "end-to-end tests make containers and need root; run: sudo make e2e")
		return 1
	}
	if signal.Ignored(syscall.SIGHUP) {
		// As under nohup. A command whose terminal goes away must end all the
		// same, and what is caught here is not ignored by what is started.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	folder, err := os.MkdirTemp("", "devhost-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	program = filepath.Join(folder, "devhost")
	build := exec.Command("go", "build", "-o", program, "devhost/cmd/devhost")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot build devhost:", err)
		return 1
	}
	// One daemon for all tests, if none runs: a host's own clean-up would end
	// it between them.
	// Builders must see /usr also where containers ask for it.
	if err := os.Setenv("DEVHOST_OFFLINE", "1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client := nix.New(execx.New(), nil)
	if err := client.EnsureDaemon(context.Background(), folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := client.StopDaemon(context.Background(), folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}

// host is one state folder, and the program that works on it.
type host struct {
	t      *testing.T
	layout registry.Layout
	// env is added to the environment of every command.
	env []string
}

// newHost makes a host in an empty folder, and sees to it at the end of the
// test that everything is removed and that nothing is left.
func newHost(t *testing.T) *host {
	t.Helper()
	return hostAt(t, filepath.Join(t.TempDir(), "state"))
}

func hostAt(t *testing.T, stateDir string) *host {
	t.Helper()
	h := &host{t: t, layout: registry.Layout{State: stateDir}}
	t.Cleanup(h.removeAll)
	return h
}

// looksKnown makes the state folder look like one in which root has made a
// container, so that it may be used by way of sudo.
func (h *host) looksKnown() {
	h.t.Helper()
	published := h.layout.Published()
	if err := os.MkdirAll(published, 0o755); err != nil {
		h.t.Fatal(err)
	}
	known := []byte(h.layout.State + "\n")
	if err := os.WriteFile(h.layout.PublishedState(), known, 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = os.RemoveAll(published) })
}

func (h *host) removeAll() {
	h.t.Helper()
	folders, _ := os.ReadDir(h.layout.Containers())
	for _, folder := range folders {
		if result := h.run("destroy", folder.Name()); result.status != 0 {
			h.t.Errorf("destroy %s ended with %d:\n%s", folder.Name(), result.status, result.stderr)
		}
	}
	h.checkNothingLeft()
}

// checkNothingLeft looks for everything global that carries the instance's id
// or lies below the state folder.
func (h *host) checkNothingLeft() {
	h.t.Helper()
	instance := h.layout.Instance()
	read := func(path string) string { data, _ := os.ReadFile(path); return string(data) }
	for _, place := range []struct{ what, content, forbidden string }{
		{"mounts", read("/proc/self/mountinfo"), h.layout.State},
		{"interfaces", read("/proc/net/dev"), "dh-" + instance},
		{"/etc/hosts", read("/etc/hosts"), instance},
	} {
		if strings.Contains(place.content, place.forbidden) {
			h.t.Errorf("%s still hold %s", place.what, place.forbidden)
		}
	}
	if output, err := exec.Command("nft", "list", "tables").Output(); err == nil && strings.Contains(string(output), instance) {
		h.t.Errorf("nftables tables are left:\n%s", output)
	}
	for _, pattern := range []string{
		h.layout.Runtime(), h.layout.GCRoots(), h.layout.Published(), h.layout.Profiles(),
		"/sys/fs/cgroup/*/devhost-" + instance, "/sys/fs/cgroup/devhost-" + instance,
		"/run/systemd/nspawn/*/*" + instance + "*",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			h.t.Errorf("left behind: %v", found)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if command := read(path); strings.Contains(command, h.layout.State+"\x00") || strings.Contains(command, h.layout.State+"/") {
			if !strings.HasPrefix(path, fmt.Sprintf("/proc/%d/", os.Getpid())) {
				h.t.Errorf("process %s still runs: %s", path, strings.ReplaceAll(command, "\x00", " "))
			}
		}
	}
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

func (h *host) command(args ...string) *exec.Cmd {
	command := exec.Command(program, append([]string{"--state-dir", h.layout.State}, args...)...)
	command.Env = append(os.Environ(), h.env...)
	return command
}

// with is the same host in a subtest.
func (h *host) with(t *testing.T) *host {
	inside := *h
	inside.t = t
	return &inside
}

// run runs devhost to its end.
func (h *host) run(args ...string) result { return h.finish(h.command(args...)) }

func (h *host) finish(command *exec.Cmd) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	// Far more than anything takes: a command that hangs fails its test, and
	// not all of them.
	const limit = 8 * time.Minute
	began := time.Now()
	if err := command.Start(); err != nil {
		h.t.Fatalf("cannot run %v: %v", command.Args, err)
	}
	overdue := time.AfterFunc(limit, func() {
		h.t.Errorf("%v did not end within %s", command.Args, limit)
		_ = command.Process.Kill()
	})
	defer overdue.Stop()
	command.WaitDelay = 10 * time.Second
	err := command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("cannot run %v: %v", command.Args, err)
	}
	status := command.ProcessState.ExitCode()
	if signaled, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && signaled.Signaled() {
		status = 128 + int(signaled.Signal())
	}
	h.keepForFigures(stdout.String())
	return result{stdout.String(), stderr.String(), status, time.Since(began)}
}

// figuresVariable names a file that gets what every devhost command said, for
// scripts/e2e-nixos, which counts.
const figuresVariable = "DEVHOST_TEST_FIGURES"

func (h *host) keepForFigures(said string) {
	h.t.Helper()
	path := os.Getenv(figuresVariable)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(said); err != nil {
		h.t.Error(err)
	}
}

// must runs devhost and expects success; it returns the standard output.
func (h *host) must(args ...string) string {
	h.t.Helper()
	result := h.run(args...)
	if result.status != 0 {
		h.t.Fatalf("devhost %s ended with %d:\n%s%s", strings.Join(args, " "), result.status, result.stdout, result.stderr)
	}
	return result.stdout
}

// fails runs devhost and expects an exit code, and texts on standard error.
func (h *host) fails(status int, texts []string, args ...string) result {
	h.t.Helper()
	result := h.run(args...)
	if result.status != status {
		h.t.Errorf("devhost %s ended with %d, not %d:\n%s%s", strings.Join(args, " "), result.status, status, result.stdout, result.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(result.stderr, text) {
			h.t.Errorf("devhost %s does not say %q but:\n%s", strings.Join(args, " "), text, result.stderr)
		}
	}
	return result
}

// decode runs a command with --json.
func (h *host) decode(into any, args ...string) {
	h.t.Helper()
	output := h.must(args...)
	if err := json.Unmarshal([]byte(output), into); err != nil {
		h.t.Fatalf("devhost %s printed no JSON: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// repository is the root of the working tree.
func repository(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// channelVariable names a folder whose channel takes the place of
// channels/offline, see scripts/e2e-nixos.
const channelVariable = "DEVHOST_TEST_CHANNEL"

// offline is the channel that containers of tests come from.
func offline(t testing.TB) string {
	if channel := os.Getenv(channelVariable); channel != "" {
		return channel
	}
	return filepath.Join(repository(t), "channels/offline")
}

func example(t testing.TB, name string) string {
	return filepath.Join(repository(t), "examples", name)
}

// provision writes a provision.nix and returns its path.
func provision(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provision.nix")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// needsFullRun skips a test of the long set.
func needsFullRun(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("in the long set: make e2e")
	}
}
