// Package enginetest holds what an engine is: tests that every engine passes,
// with guests that boot in milliseconds.
package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/nspawn"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// Engine is what is tested.
type Engine interface {
	engine.Engine
	engine.Limiter
	engine.Freezer
	// Guest is what the command line enters.
	Guest(name string) (enter.Guest, error)
}

// Host makes an engine for the containers of a state folder. Network is that of
// the containers.
type Host func(layout registry.Layout, load func(name string) (*registry.Container, error), network supervisor.Network) Engine

// SuperviseArguments are the arguments of a test program that is the supervisor
// of a container; Main understands them.
func SuperviseArguments(state, name string) []string {
	return []string{"--state-dir", state, "supervise", name}
}

// Main is TestMain of an engine's tests: the test program is also the session of
// exec, and what the engine starts to supervise a container. Then supervise is
// called with what stands before the container's name, and its result is the
// program's status.
func Main(m *testing.M, supervise func(layout registry.Layout, name string, flags []string) error) {
	arguments := os.Args[1:]
	if len(arguments) > 0 && arguments[0] == enter.SessionArgument {
		os.Exit(enter.Session())
	}
	if len(arguments) > 3 && arguments[2] == "supervise" {
		layout, err := registry.NewLayout(arguments[1])
		if err == nil {
			err = supervise(layout, arguments[len(arguments)-1], arguments[3:len(arguments)-1])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Load reads records without the registry's checks: the systems of these tests
// do not lie in the store.
func Load(layout registry.Layout) func(string) (*registry.Container, error) {
	return func(name string) (*registry.Container, error) {
		text, err := os.ReadFile(layout.Record(name))
		if err != nil {
			return nil, err
		}
		var container registry.Container
		return &container, json.Unmarshal(text, &container)
	}
}

// holdFile keeps guests from being connected, and so starts from their end, for
// as long as it is there.
func holdFile(layout registry.Layout) string { return filepath.Join(layout.State, "hold") }

// Cable is a network of one cable that leads nowhere.
func Cable(layout registry.Layout) supervisor.Network { return cable{hold: holdFile(layout)} }

type cable struct{ hold string }

func (c cable) Attach(ctx context.Context, _ string, address registry.Address) error {
	for {
		if _, err := os.Stat(c.hold); err != nil && linkExists(address.HostInterface) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (cable) Detach(_ context.Context, _ string, address registry.Address) error {
	if !linkExists(address.HostInterface) {
		return nil
	}
	err := execx.New().Run(context.Background(), execx.Command{Name: "ip", Args: []string{"link", "delete", address.HostInterface}})
	if err != nil && linkExists(address.HostInterface) {
		return err
	}
	return nil
}

func linkExists(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name)
	return err == nil
}

// TinyInit is a guest that boots in milliseconds: the host's systemd with
// nothing but what it needs to stop.
const TinyInit = `#!/bin/sh
set -e
mkdir -p /etc/systemd/system /root /tmp
cd /etc/systemd/system
unit() { cat >"$1"; }
if [ ! -e /etc/passwd ]; then
	printf 'root:x:0:0::/root:/bin/bash\ndev:x:1000:100::/home/dev:/bin/bash\n' >/etc/passwd
	printf 'root:x:0:\nusers:x:100:\nstaff:x:50:dev\n' >/etc/group
	mkdir -p /home/dev
	chown 1000:100 /home/dev
fi
printf '[Unit]\nDescription=tiny\nAllowIsolate=yes\n' | unit tiny.target
for target in basic shutdown umount final sysinit; do
	printf '[Unit]\nDefaultDependencies=no\n' | unit $target.target
done
for action in poweroff reboot; do
	printf '[Unit]\nDefaultDependencies=no\nRequires=systemd-%s.service\nAllowIsolate=yes\n' $action | unit $action.target
	printf '[Unit]\nDefaultDependencies=no\nSuccessAction=%s-force\n[Service]\nType=oneshot\nExecStart=/bin/true\n' $action | unit systemd-$action.service
done
[ -x /before-systemd ] && /before-systemd
export SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/nowhere
exec /usr/lib/systemd/systemd --unit=tiny.target
`

// Guest is a registered container of a test.
type Guest struct {
	T      *testing.T
	Name   string
	Layout registry.Layout
	Engine Engine
	Record *registry.Container
	// uidBase is the host's uid of the guest's root in its last life.
	uidBase int
}

// NewGuest registers a container and removes all of it at the end, whatever
// the test did to it.
func NewGuest(t *testing.T, host Host, name string) *Guest {
	t.Helper()
	requireContainers(t)
	// Not below t.TempDir(): inside, nspawn mounts an empty /tmp.
	state, err := os.MkdirTemp("/var/tmp", "devhost-engine-")
	if err != nil {
		t.Fatal(err)
	}
	layout, err := registry.NewLayout(state)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuest(t, host, layout, name)
	t.Cleanup(func() {
		if _, err := os.Lstat(layout.Runtime()); err == nil {
			t.Errorf("left behind: %s", layout.Runtime())
		}
		if err := os.RemoveAll(layout.State); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.remove)
	return g
}

// newGuest registers a container in a state folder.
func newGuest(t *testing.T, host Host, layout registry.Layout, name string) *Guest {
	t.Helper()
	system := filepath.Join(layout.State, "system")
	g := &Guest{T: t, Name: name, Layout: layout, Record: &registry.Container{
		Version: registry.Version, Name: name, System: system,
		Address: registry.Address{HostInterface: fmt.Sprintf("vt-%.6s-%.5s", layout.Instance(), name)},
	}}
	g.Engine = host(layout, Load(layout), Cable(layout))
	for _, folder := range []string{layout.Root(name), layout.Guest(name), filepath.Dir(layout.Log(name))} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(layout.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	g.Write(filepath.Join(system, "devhost-system.json"), `{"version":1,"hostUsr":true}`, 0o644)
	g.Write(filepath.Join(system, "init"), TinyInit, 0o755)
	// The system is no store path: the guest finds it in its root.
	g.WriteInside(filepath.Join(system, "init"), TinyInit, 0o755)
	g.Save()
	return g
}

func requireContainers(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("starting containers needs root")
	}
	for _, program := range []string{nspawn.Program, "nsenter"} {
		if _, err := execx.New().Output(context.Background(), execx.Command{Name: program, Args: []string{"--version"}}); err != nil {
			t.Skipf("%s does not run here: %v", program, err)
		}
	}
	if _, err := os.Stat("/usr/lib/systemd/systemd"); err != nil {
		t.Skip("the guests of these tests use the host's systemd, which is not in /usr/lib/systemd here")
	}
}

// Write writes a file of the host.
func (g *Guest) Write(path, text string, mode fs.FileMode) {
	g.T.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.T.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		g.T.Fatal(err)
	}
}

// WriteInside writes a file of the guest.
func (g *Guest) WriteInside(path, text string, mode fs.FileMode) {
	g.T.Helper()
	g.Write(filepath.Join(g.Layout.Root(g.Name), path), text, mode)
}

// Save writes the container's record.
func (g *Guest) Save() {
	g.T.Helper()
	text, err := json.Marshal(g.Record)
	if err != nil {
		g.T.Fatal(err)
	}
	g.Write(g.Layout.Record(g.Name), string(text), 0o600)
}

func (g *Guest) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := g.Engine.Stop(ctx, g.Name, 0); err != nil {
		g.T.Errorf("cannot stop the container: %v", err)
		// The engine under test may be what is broken.
		record, _ := supervisor.ReadRecord(g.Layout, g.Name)
		if record != nil {
			for _, id := range []process.ID{record.Supervisor, record.Nspawn, record.Leader} {
				_ = id.Signal(syscall.SIGKILL)
			}
		}
		_ = errors.Join(supervisor.Clear(ctx, g.Layout, g.Name, g.Record.Address, cable{}), os.RemoveAll(g.Layout.Runtime()))
	}
	for _, left := range g.Leftovers() {
		g.T.Errorf("left behind: %s", left)
	}
	if g.T.Failed() {
		g.T.Logf("console:\n%s", g.Console())
		if text, err := os.ReadFile(g.Layout.SupervisorLog(g.Name)); err == nil {
			g.T.Logf("supervisor:\n%s", text)
		}
	}
	if preparer, ok := g.Engine.(engine.Preparer); ok {
		if err := preparer.Tidy(ctx); err != nil {
			g.T.Error(err)
		}
	}
}

// Leftovers are all traces of the container outside of its own folder.
func (g *Guest) Leftovers() []string {
	var found []string
	there := func(pattern string) {
		matches, _ := filepath.Glob(pattern)
		found = append(found, matches...)
	}
	there(g.Layout.RuntimeRecord(g.Name))
	there(filepath.Join(g.Layout.Runtime(), g.Name+".*"))
	machine := nspawn.MachineName(g.Layout, g.Name)
	there("/run/systemd/nspawn/*/" + machine)
	there("/run/systemd/machines/" + machine)
	there("/run/systemd/system.control/devhost-" + g.Layout.Instance() + "@" + g.Name + ".service.d")
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		there(hierarchy + "/devhost-" + g.Layout.Instance() + "/" + g.Name)
		there(hierarchy + "/machine.slice/devhost-" + g.Layout.Instance() + "@" + g.Name + ".service")
	}
	there("/sys/class/net/" + g.Record.Address.HostInterface)
	there(filepath.Join(g.Layout.Container(g.Name), ".#root.lck"))
	if g.uidBase != 0 {
		there("/run/systemd/nspawn-uid/" + strconv.Itoa(g.uidBase))
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && bytes.Contains(mounts, []byte(g.Layout.Container(g.Name)+"/")) {
		found = append(found, "a mount below "+g.Layout.Container(g.Name))
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		text, err := os.ReadFile(path)
		if err == nil && (bytes.Contains(text, []byte(g.Layout.Container(g.Name)+"/")) || bytes.HasSuffix(text, []byte("\x00supervise\x00"+g.Name+"\x00")) && bytes.Contains(text, []byte(g.Layout.State))) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

// WantNothingLeft fails the test when Leftovers finds something.
func (g *Guest) WantNothingLeft() {
	g.T.Helper()
	if left := g.Leftovers(); len(left) > 0 {
		g.T.Errorf("left behind: %q", left)
	}
}

// Context ends before the test hangs for good.
func (g *Guest) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	g.T.Cleanup(cancel)
	return ctx
}

// Start starts the container and waits until its systemd is up.
func (g *Guest) Start() {
	g.T.Helper()
	if err := g.Engine.Start(g.Context(), g.Name); err != nil {
		g.T.Fatal(err)
	}
	g.uidBase = g.RuntimeRecord().UIDBase
	g.WantBooted()
}

// WantBooted waits until the guest's own systemd has started everything.
func (g *Guest) WantBooted() {
	g.T.Helper()
	Eventually(g.T, "the guest was up", func() bool {
		_, stdout, _ := g.Exec("systemctl", "is-system-running")
		return stdout == "running\n" || stdout == "degraded\n"
	})
}

// Stop powers the container off.
func (g *Guest) Stop() {
	g.T.Helper()
	if err := g.Engine.Stop(g.Context(), g.Name, 10*time.Second); err != nil {
		g.T.Fatal(err)
	}
}

// State is the engine's.
func (g *Guest) State() engine.State {
	g.T.Helper()
	state, err := g.Engine.State(g.Name)
	if err != nil {
		g.T.Fatal(err)
	}
	return state
}

// RuntimeRecord is what is recorded of a container that runs.
func (g *Guest) RuntimeRecord() *supervisor.Record {
	g.T.Helper()
	record, err := supervisor.ReadRecord(g.Layout, g.Name)
	if err != nil {
		g.T.Fatal(err)
	}
	if record == nil {
		g.T.Fatal("there is no runtime record")
	}
	return record
}

// Kill kills a process and waits until it has gone.
func (g *Guest) Kill(id process.ID) {
	g.T.Helper()
	if err := id.Signal(syscall.SIGKILL); err != nil {
		g.T.Fatal(err)
	}
	if err := id.Wait(g.Context()); err != nil {
		g.T.Fatal(err)
	}
}

// Exec runs a command inside and returns its status, output and errors.
func (g *Guest) Exec(argv ...string) (status int, stdout, stderr string) {
	g.T.Helper()
	return g.ExecWith(enter.Options{Argv: argv})
}

// ExecWith is Exec with all its options.
func (g *Guest) ExecWith(options enter.Options) (status int, stdout, stderr string) {
	g.T.Helper()
	var out, errs bytes.Buffer
	options.Runner, options.Stdout, options.Stderr = execx.New(), &out, &errs
	target, err := g.Engine.Guest(g.Name)
	if err != nil {
		g.T.Fatal(err)
	}
	status, err = enter.Exec(g.Context(), target, options)
	if err != nil {
		fmt.Fprintf(&errs, "%v", err)
	}
	return status, out.String(), errs.String()
}

// Inside runs a shell script inside that must succeed, and returns its output
// without the last line end.
func (g *Guest) Inside(script string) string {
	g.T.Helper()
	status, stdout, stderr := g.Exec("sh", "-c", script)
	if status != 0 {
		g.T.Fatalf("%s: status %d: %s", script, status, stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

// Console is all that the guest wrote to its console.
func (g *Guest) Console() string {
	if !g.Engine.Features().Journal {
		text, _ := os.ReadFile(g.Layout.Log(g.Name))
		return string(text)
	}
	var out bytes.Buffer
	if err := g.Engine.(engine.Journal).Console(g.Context(), g.Name, engine.ConsoleOptions{}, &out); err != nil {
		g.T.Error(err)
	}
	return out.String()
}

// Hold keeps the next start from its end until free is called.
func (g *Guest) Hold() (free func()) {
	g.Write(holdFile(g.Layout), "", 0o600)
	return func() { _ = os.Remove(holdFile(g.Layout)) }
}

// Patience bounds waits that end soon unless something is broken.
const Patience = 3 * time.Minute

// Eventually waits until a condition holds.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it never happened that %s", what)
}
