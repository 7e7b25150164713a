package box

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Host is a box in a test. Its methods fail the test.
type Host struct {
	*Box
	T testing.TB
}

// commandLimit is far more than any command of a test takes, such as the build of
// a NixOS system while others use the machine.
const commandLimit = 15 * time.Minute

// Start boots a box on which an admin has installed devhost, and removes it at
// the end of the test.
func Start(t testing.TB) *Host {
	t.Helper()
	h := StartBare(t)
	if err := h.Install(context.Background()); err != nil {
		t.Fatal(err)
	}
	return h
}

// StartBare is Start without devhost being installed: its program is at
// /root/devhost.
func StartBare(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a dev host in a box needs root")
	}
	if _, err := os.Stat(initProgram); err != nil {
		t.Skipf("a dev host in a box is made of the machine's /usr, which has no systemd: %v", err)
	}
	program := program
	if program == "" {
		var err error
		if program, err = buildProgram(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := os.MkdirTemp("", "devhost-box-")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b, err := Boot(context.Background(), Options{Folder: folder, Program: program, Sources: Sources()})
	h := &Host{Box: b, T: t}
	forget := removeOnSignal(b)
	t.Cleanup(func() {
		defer forget()
		if t.Failed() {
			h.tellWhy()
		}
		if err := b.Remove(context.Background()); err != nil {
			t.Errorf("the box cannot be removed: %v", err)
		}
		if left := Leftovers(b.id, folder); len(left) > 0 {
			t.Errorf("the box has left %v", left)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the box was up after %s", time.Since(began).Round(time.Millisecond))
	return h
}

// tellWhy logs the end of the box' journal.
func (h *Host) tellWhy() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	result := h.run(ctx, "root", "journalctl --no-pager --lines 300 --output short-monotonic | grep -vE ' (systemd-logind|sshd|\\(systemd\\)|\\(sd-pam\\)|systemd)\\[([02-9]|1[0-9]).*|user-runtime-dir|user@|session-' | tail -80", nil)
	h.T.Logf("the end of the journal of the box:\n%s%s", result.Stdout, result.Stderr)
}

// With is the same box in a subtest.
func (h *Host) With(t testing.TB) *Host { return &Host{Box: h.Box, T: t} }

// Run runs a command line as a login of the box, by ssh from outside.
func (h *Host) Run(login, line string) Result {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	result := h.run(ctx, login, line, nil)
	if ctx.Err() != nil {
		h.T.Errorf("%s@box: %s did not end within %s", login, line, commandLimit)
	}
	return result
}

// Must is Run for a command line that shall succeed; it gives what that
// printed on standard output.
func (h *Host) Must(login, line string) string {
	h.T.Helper()
	result := h.Run(login, line)
	if result.Status != 0 {
		h.T.Fatalf("%s@box: %s ended with %d:\n%s%s", login, line, result.Status, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// Fails is Run for a command line that shall end with a status and say
// something.
func (h *Host) Fails(login, line string, status int, texts ...string) Result {
	h.T.Helper()
	result := h.Run(login, line)
	if result.Status != status {
		h.T.Errorf("%s@box: %s ended with %d, not %d:\n%s%s", login, line, result.Status, status, result.Stdout, result.Stderr)
	}
	for _, text := range texts {
		if !strings.Contains(result.Stderr, text) {
			h.T.Errorf("%s@box: %s does not say %q but:\n%s", login, line, text, result.Stderr)
		}
	}
	return result
}

// RestartBox reboots the box.
func (h *Host) RestartBox() {
	h.T.Helper()
	if err := h.Reboot(context.Background()); err != nil {
		h.T.Fatal(err)
	}
}

// Copy copies a file or folder of the machine to a path in the box; it becomes
// root's.
func (h *Host) Copy(source, target string) {
	h.T.Helper()
	// Through ssh and not through the root folder: tmpfs are mounted in it.
	command := exec.Command("tar", "-C", filepath.Dir(source), "--owner=0", "--group=0", "-c", filepath.Base(source)) //nolint:noctx // it ends with its reader
	packed, err := command.StdoutPipe()
	if err != nil {
		h.T.Fatal(err)
	}
	if err := command.Start(); err != nil {
		h.T.Fatal(err)
	}
	unpack := fmt.Sprintf("mkdir -p %[1]s && tar -C %[1]s -x --transform %[2]s", Quote(filepath.Dir(target)),
		Quote("flags=r;s,^"+filepath.Base(source)+","+filepath.Base(target)+","))
	result := h.run(context.Background(), "root", unpack, packed)
	if err := command.Wait(); err != nil || result.Status != 0 {
		h.T.Fatalf("cannot copy %s to the box: %v %s", source, err, result.Stderr)
	}
}

// GoTest compiles the tests of a package (such as
// "devhost/internal/engine/systemd") and runs them in the box, as root, with
// arguments such as "-test.run=Conformance". Their output becomes that of the
// test, which fails if they fail.
func (h *Host) GoTest(pkg string, arguments ...string) {
	h.T.Helper()
	binary := filepath.Join(h.T.TempDir(), "tests")
	build := exec.Command("go", "test", "-c", "-o", binary, pkg) //nolint:noctx // bounded by the test's own time
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		h.T.Fatalf("cannot compile the tests of %s: %v\n%s", pkg, err, output)
	}
	const inside = "/root/tests/tests"
	h.Copy(binary, inside)
	line := "cd /root/tests && " + Quote(append([]string{inside, "-test.v"}, arguments...)...) + " 2>&1"
	result := h.Run("root", line)
	h.T.Logf("%s in the box:\n%s%s", pkg, result.Stdout, result.Stderr)
	if result.Status != 0 || !strings.Contains(result.Stdout, "--- PASS") {
		h.T.Errorf("the tests of %s ended with %d in the box", pkg, result.Status)
	}
}

// Sources is the root of devhost's source tree.
func Sources() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// program is the devhost binary that Main has built.
var program string

// Main is the TestMain of packages with many boxes: it builds devhost once. The
// result is the exit status.
func Main(m *testing.M) int {
	folder, err := os.MkdirTemp("", "devhost-box-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	if program, err = buildProgram(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func buildProgram(folder string) (string, error) {
	path := filepath.Join(folder, "devhost")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "devhost/cmd/devhost") //nolint:noctx // bounded by the test's own time
	build.Dir = Sources()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build devhost: %w\n%s", err, output)
	}
	return path, nil
}

// removeOnSignal removes the box when the test is interrupted; the function
// that it returns takes that back.
func removeOnSignal(b *Box) func() {
	signals := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			if err := b.Remove(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			if program != "" {
				_ = os.RemoveAll(filepath.Dir(program))
			}
			const interrupted = 130
			os.Exit(interrupted)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
