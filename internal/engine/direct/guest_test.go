package direct_test

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
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/direct"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/nspawn"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

// TestMain lets the test program be the supervisor and the session, which are
// processes of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case enter.SessionArgument:
			os.Exit(enter.Session())
		case "supervise":
			os.Exit(superviseMain(os.Args[2], os.Args[3]))
		}
	}
	os.Exit(m.Run())
}

func superviseMain(state, name string) int {
	layout, err := registry.NewLayout(state)
	if err != nil {
		return 2
	}
	err = supervisor.Run(context.Background(), supervisor.Options{
		Layout: layout, Name: name, Load: loader(layout), Runner: execx.New(),
		Network: cable{hold: holdFile(layout)}, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug}),
	})
	if err != nil {
		return 1
	}
	return 0
}

// loader reads records without the registry's checks: the systems of these
// tests do not lie in the store.
func loader(layout registry.Layout) func(string) (*registry.Container, error) {
	return func(name string) (*registry.Container, error) {
		text, err := os.ReadFile(layout.Record(name))
		if err != nil {
			return nil, err
		}
		var container registry.Container
		return &container, json.Unmarshal(text, &container)
	}
}

// holdFile keeps a guest from being connected, and so a start from its end, for
// as long as it is there.
func holdFile(layout registry.Layout) string { return filepath.Join(layout.State, "hold") }

// cable is a network of one cable that leads nowhere.
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

// tinyInit is a guest that boots in milliseconds: the host's systemd with
// nothing but what it needs to stop.
const tinyInit = `#!/bin/sh
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

// guest is a registered container of a test.
type guest struct {
	t      *testing.T
	name   string
	layout registry.Layout
	engine *direct.Engine
	record *registry.Container
	// uidBase is the host's uid of the guest's root in its last life.
	uidBase int
}

// newGuest registers a container and removes all of it at the end, whatever
// the test did to it.
func newGuest(t *testing.T, name string) *guest {
	t.Helper()
	requireContainers(t)
	// Not below t.TempDir(): inside, nspawn mounts an empty /tmp.
	state, err := os.MkdirTemp("/var/tmp", "devhost-direct-")
	if err != nil {
		t.Fatal(err)
	}
	layout, err := registry.NewLayout(state)
	if err != nil {
		t.Fatal(err)
	}
	system := filepath.Join(state, "system")
	g := &guest{t: t, name: name, layout: layout, record: &registry.Container{
		Version: registry.Version, Name: name, System: system,
		Address: registry.Address{HostInterface: "vt-" + layout.Instance()},
	}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g.engine = &direct.Engine{
		Layout: layout, Load: loader(layout), Runner: execx.New(), Network: cable{},
		Supervise: func(name string) []string { return []string{self, "supervise", state, name} },
	}
	t.Cleanup(g.remove)
	for _, folder := range []string{layout.Root(name), layout.Guest(name), filepath.Dir(layout.Log(name))} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(layout.Containers(), 0o700); err != nil {
		t.Fatal(err)
	}
	g.write(filepath.Join(system, "devhost-system.json"), `{"version":1,"hostUsr":true}`, 0o644)
	g.write(filepath.Join(system, "init"), tinyInit, 0o755)
	// The system is no store path: the guest finds it in its root.
	g.writeInside(filepath.Join(system, "init"), tinyInit, 0o755)
	g.save()
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

func (g *guest) write(path, text string, mode fs.FileMode) {
	g.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) writeInside(path, text string, mode fs.FileMode) {
	g.t.Helper()
	g.write(filepath.Join(g.layout.Root(g.name), path), text, mode)
}

func (g *guest) save() {
	g.t.Helper()
	text, err := json.Marshal(g.record)
	if err != nil {
		g.t.Fatal(err)
	}
	g.write(g.layout.Record(g.name), string(text), 0o600)
}

func (g *guest) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.engine.Stop(ctx, g.name, 0); err != nil {
		g.t.Errorf("cannot stop the container: %v", err)
		// The engine under test may be what is broken.
		group := g.group()
		_ = errors.Join(group.Kill(ctx), group.Remove(ctx), cable{}.Detach(ctx, "", g.record.Address), os.RemoveAll(g.layout.Runtime()))
	}
	for _, left := range g.leftovers() {
		g.t.Errorf("left behind: %s", left)
	}
	if g.t.Failed() {
		for _, path := range []string{g.layout.Log(g.name), g.layout.SupervisorLog(g.name)} {
			text, _ := os.ReadFile(path)
			g.t.Logf("%s:\n%s", path, text)
		}
	}
	if err := os.RemoveAll(g.layout.State); err != nil {
		g.t.Error(err)
	}
}

// leftovers are all traces of the container outside of its own folder.
func (g *guest) leftovers() []string {
	var found []string
	there := func(pattern string) {
		matches, _ := filepath.Glob(pattern)
		found = append(found, matches...)
	}
	there(g.layout.Runtime())
	machine := nspawn.MachineName(g.layout, g.name)
	there("/run/systemd/nspawn/*/" + machine)
	there("/sys/fs/cgroup/devhost-" + g.layout.Instance())
	there("/sys/fs/cgroup/*/devhost-" + g.layout.Instance())
	there("/sys/class/net/" + g.record.Address.HostInterface)
	there(filepath.Join(g.layout.Container(g.name), ".#root.lck"))
	if g.uidBase != 0 {
		there("/run/systemd/nspawn-uid/" + strconv.Itoa(g.uidBase))
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && bytes.Contains(mounts, []byte(g.layout.State)) {
		found = append(found, "a mount below "+g.layout.State)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(g.layout.State)) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

func (g *guest) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	g.t.Cleanup(cancel)
	return ctx
}

func (g *guest) start() {
	g.t.Helper()
	if err := g.engine.Start(g.context(), g.name); err != nil {
		g.t.Fatal(err)
	}
	g.uidBase = g.runtimeRecord().UIDBase
	g.wantBooted()
}

// wantBooted waits until the guest's own systemd has started everything.
func (g *guest) wantBooted() {
	g.t.Helper()
	eventually(g.t, "the guest was up", func() bool {
		_, stdout, _ := g.exec("systemctl", "is-system-running")
		return stdout == "running\n" || stdout == "degraded\n"
	})
}

func (g *guest) stop() {
	g.t.Helper()
	if err := g.engine.Stop(g.context(), g.name, 10*time.Second); err != nil {
		g.t.Fatal(err)
	}
}

// exec runs a command inside and returns its status, output and errors.
func (g *guest) exec(argv ...string) (status int, stdout, stderr string) {
	g.t.Helper()
	return g.execWith(enter.Options{Argv: argv})
}

func (g *guest) execWith(options enter.Options) (status int, stdout, stderr string) {
	g.t.Helper()
	var out, errs bytes.Buffer
	options.Runner, options.Stdout, options.Stderr = execx.New(), &out, &errs
	target, err := g.engine.Guest(g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	status, err = enter.Exec(g.context(), target, options)
	if err != nil {
		fmt.Fprintf(&errs, "%v", err)
	}
	return status, out.String(), errs.String()
}

// inside runs a shell script inside that must succeed, and returns its output
// without the last line end.
func (g *guest) inside(script string) string {
	g.t.Helper()
	status, stdout, stderr := g.exec("sh", "-c", script)
	if status != 0 {
		g.t.Fatalf("%s: status %d: %s", script, status, stderr)
	}
	return strings.TrimSuffix(stdout, "\n")
}

func (g *guest) group() *cgroup.Group {
	g.t.Helper()
	tree, err := cgroup.Discover()
	if err != nil {
		g.t.Fatal(err)
	}
	return tree.Group(g.layout.Instance(), g.name)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it never happened that %s", what)
}
