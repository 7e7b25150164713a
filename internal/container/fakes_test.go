package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/ssh"

	"devhost/internal/archive"
	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/provision"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// world is a host without processes: the registry is real, all else is here.
// Calls that change something are written down.
type world struct {
	t        *testing.T
	registry *registry.Registry
	sshPort  string
	calls    []string
	// fail has the errors of calls, by the call.
	fail map[string]error
	// die makes the process end at a step, as kill -9 does.
	die string

	// disk is the file system; frozen says that the guest is held.
	disk   fakeDisk
	frozen bool

	state       engine.State
	limits      registry.Limits
	generations []nix.Generation
	known       map[string]string
	// runs is the system that the guest runs.
	runs string
	// published are the names that resolve.
	published []string
	// listening are the ports of the host's programs; damaged says that somebody
	// has removed the bridge.
	listening map[string]bool
	damaged   bool
	// silent makes the guest's sshd say nothing, until the guest is started.
	silent atomic.Bool
	// stolen has another server than the sshd of the container box answer.
	stolen atomic.Bool
	// taken says that a program of the host has the port of a container's sshd.
	taken bool
	// onState is called before each answer about the state.
	onState func()
	// jobs are the numbers of jobs in the guest's queue, one an answer, and
	// then 0; units is the answer of systemctl list-units, after those of earlierUnits.
	jobs         []int
	units        string
	earlierUnits []string
	// unread says that the guest's journal has not yet taken in what units said.
	unread bool
	// answer replaces what the guest does with any command.
	answer func(ctx context.Context, stdout io.Writer) (int, error)
	// switchStatus is the exit status of switch-to-configuration, by system.
	switchStatus map[string]int
}

// killed is what a step panics with.
type killed struct{}

func newWorld(t *testing.T) *world {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, registry: registry.New(registry.Layout{State: t.TempDir(), Etc: t.TempDir()}), sshPort: port,
		fail: map[string]error{}, known: map[string]string{}, switchStatus: map[string]int{},
		state: engine.State{Status: engine.Stopped}, units: "[]", onState: func() {},
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			switch key, err := os.ReadFile(filepath.Join(w.registry.Guest("box"), "ssh/ssh_host_ed25519_key")); {
			case w.silent.Load():
				_ = connection.Close()
			case err == nil && !w.stolen.Load():
				go serveSSH(connection, key)
			default:
				_, _ = io.WriteString(connection, "SSH-2.0-fake\r\n")
				_ = connection.Close()
			}
		}
	}()
	return w
}

// serveSSH shows who connects that it has a host key.
func serveSSH(connection net.Conn, key []byte) {
	defer connection.Close()
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	_, _, _, _ = ssh.NewServerConn(connection, config)
}

// Idle implements Systems.
func (s fakeSystems) Idle(context.Context) error { return nil }

func (w *world) manager() *Manager {
	return &Manager{
		Registry: w.registry, Engine: fakeEngine{w}, Systems: fakeSystems{w}, Profiles: fakeProfiles{w}, Network: fakeNetwork{w}, Guest: fakeGuest{w}, Archiver: fakeArchiver{w}, Disk: &w.disk,
		Settings: settings.Default(), Logger: hclog.NewNullLogger(), Now: time.Now, Reporter: progress.Quiet(io.Discard), sshPort: w.sshPort,
		OnStep: func(step string) {
			if step == w.die {
				panic(killed{})
			}
		},
	}
}

// called writes a call down and returns its error.
func (w *world) called(format string, values ...any) error {
	call := fmt.Sprintf(format, values...)
	w.calls = append(w.calls, call)
	return w.fail[call]
}

// killedAt runs a change that is killed at a step.
func (w *world) killedAt(step string, change func(m *Manager) error) {
	w.t.Helper()
	w.die = step
	defer func() {
		w.die = ""
		if problem := recover(); problem != (killed{}) {
			w.t.Fatalf("step %s was never reached: %v", step, problem)
		}
	}()
	err := change(w.manager())
	w.t.Fatalf("the change ended: %v", err)
}

type fakeEngine struct{ *world }

func (fakeEngine) Features() engine.Features {
	return engine.Features{Name: "fake", Limits: true, Freezes: true}
}

func (e fakeEngine) State(string) (engine.State, error) {
	e.onState()
	return e.state, nil
}

func (e fakeEngine) Start(_ context.Context, name string) error {
	if e.state.Status == engine.Running && e.state.SupervisorPID != 0 {
		return nil
	}
	if err := e.called("start"); err != nil {
		return err
	}
	record, err := e.registry.Load(name)
	if err != nil {
		return err
	}
	if e.state.Status != engine.Running {
		e.runs = record.System
	}
	e.silent.Store(false)
	e.state = engine.State{Status: engine.Running, SupervisorPID: 100, LeaderPID: 101}
	return nil
}

func (e fakeEngine) Stop(context.Context, string, time.Duration) error {
	if err := e.called("stop"); err != nil {
		return err
	}
	e.state, e.runs = engine.State{Status: engine.Stopped}, ""
	return nil
}

func (e fakeEngine) Freeze(context.Context, string) error {
	if err := e.called("freeze"); err != nil {
		return err
	}
	e.frozen = true
	return nil
}

func (e fakeEngine) Thaw(string) error {
	if !e.frozen {
		return nil
	}
	e.frozen = false
	return e.called("thaw")
}

func (e fakeEngine) SetLimits(_ context.Context, _ string, limits registry.Limits) error {
	if err := e.called("limits"); err != nil {
		return err
	}
	e.limits = limits
	return nil
}

type fakeSystems struct{ *world }

// Snapshot takes the source's text for its content and its hash.
func (s fakeSystems) Snapshot(_ context.Context, source string, _ io.Reader, _ person.Person, destination string) (provision.Snapshot, error) {
	if err := s.fail["snapshot"]; err != nil {
		return provision.Snapshot{}, err
	}
	return provision.Snapshot{Hash: source, Dir: destination}, os.WriteFile(filepath.Join(destination, "provision.nix"), []byte(source), 0o600)
}

func (s fakeSystems) Resolve(_ context.Context, reference string, _ person.Person, _ *registry.Pin, _ string) (registry.Pin, error) {
	if err := s.called("resolve"); err != nil {
		return registry.Pin{}, err
	}
	return registry.Pin{Reference: reference, StorePath: "/nix/store/channel"}, nil
}

func (fakeSystems) Inputs(pin registry.Pin, provisionHash string) (string, error) {
	return filepath.Base(pin.Reference) + "-" + provisionHash, nil
}

func (s fakeSystems) Known(_ context.Context, inputs, _ string) (string, bool) {
	system, ok := s.known[inputs]
	return system, ok
}

func (s fakeSystems) GuestModule(context.Context, string) (string, error) {
	return "/nix/store/" + strings.Repeat("g", 32) + "-container-guest", s.fail["guest module"]
}

func (s fakeSystems) Keep(context.Context, string, string) error { return s.fail["keep"] }

// Build makes a system whose name tells its inputs, and reads the snapshot.
func (s fakeSystems) Build(_ context.Context, build Build) (string, error) {
	if err := s.called("build"); err != nil {
		return "", err
	}
	if build.ProvisionDir != "" {
		text, err := os.ReadFile(filepath.Join(build.ProvisionDir, "provision.nix"))
		if err != nil {
			return "", err
		}
		if !strings.HasSuffix(build.Inputs, "-"+string(text)) {
			return "", fmt.Errorf("the snapshot holds %q, the inputs are %q", text, build.Inputs)
		}
	}
	return "/nix/store/" + build.Inputs, nil
}

type fakeProfiles struct{ *world }

func (p fakeProfiles) SetProfile(_ context.Context, _, system string) (bool, error) {
	if err := p.called("profile"); err != nil {
		return false, err
	}
	last := 0
	for i := range p.generations {
		p.generations[i].Current = false
		last = p.generations[i].Number
	}
	p.generations = append(p.generations, nix.Generation{Number: last + 1, Path: system, Current: true})
	return true, nil
}

func (p fakeProfiles) Generations(string) ([]nix.Generation, error) { return p.generations, nil }

func (p fakeProfiles) SwitchGeneration(_ context.Context, _ string, number int) (nix.Generation, error) {
	if err := p.called("generation %d", number); err != nil {
		return nix.Generation{}, err
	}
	var found nix.Generation
	for i := range p.generations {
		one := &p.generations[i]
		if one.Current = one.Number == number; one.Current {
			found = *one
		}
	}
	return found, nil
}

func (p fakeProfiles) DeleteGenerations(_ string, numbers ...int) error {
	p.generations = slices.DeleteFunc(p.generations, func(one nix.Generation) bool { return slices.Contains(numbers, one.Number) })
	return p.called("delete generations %v", numbers)
}

func (p fakeProfiles) DeleteProfile(string) error {
	p.generations = nil
	return p.fail["delete profile"]
}

func (w *world) currentSystem() string {
	for _, one := range w.generations {
		if one.Current {
			return one.Path
		}
	}
	return ""
}

type fakeNetwork struct{ *world }

func (n fakeNetwork) NameInUse(name string) (string, error) {
	if name == "taken" {
		return "the host has it", nil
	}
	return "", nil
}

func (n fakeNetwork) Allocate(_ string, used []registry.Address) (registry.Address, error) {
	return registry.Address{IPv4: fmt.Sprintf("127.0.0.%d", len(used)+1), HostInterface: "v"}, n.fail["allocate"]
}

func (n fakeNetwork) AllocateOnHost(context.Context, string, []*registry.Container) (registry.Address, error) {
	port, err := strconv.ParseUint(n.sshPort, 10, 16)
	return registry.Address{IPv4: "127.0.0.1", SSHPort: uint16(port)}, errors.Join(err, n.called("allocate on host"))
}

func (n fakeNetwork) FreeOnHost(context.Context, registry.Address) bool { return !n.taken }

func (n fakeNetwork) GuestFiles(string, registry.Address, []Host) (map[string]string, error) {
	return map[string]string{"hosts": "127.0.0.1 x\n"}, n.fail["guest files"]
}

func (n fakeNetwork) Publish(_ context.Context, records []*registry.Container) error {
	n.published = nil
	for _, record := range records {
		n.published = append(n.published, record.Name)
	}
	return n.fail["publish"]
}

func (n fakeNetwork) PortInUse(port registry.ForwardPort) (bool, error) {
	return n.listening[port.Host()], n.fail["port in use"]
}

func (n fakeNetwork) Current(context.Context) (bool, error) { return !n.damaged, n.fail["current"] }

func (n fakeNetwork) Prepare(context.Context) error { return n.fail["prepare network"] }

func (n fakeNetwork) Remove(context.Context) error { return n.called("remove network") }

type fakeGuest struct{ *world }

func (g fakeGuest) Run(ctx context.Context, _ string, stdout, _ io.Writer, argv ...string) (int, error) {
	if g.state.Status != engine.Running {
		return 0, errors.New("it is not running")
	}
	if ctx.Err() != nil {
		// What an interruption looks like depends on when it comes.
		return 125, errors.New("read |0: i/o timeout")
	}
	if g.answer != nil {
		return g.answer(ctx, stdout)
	}
	switch {
	case slices.Contains(argv, "--property=NJobs"):
		jobs := 0
		if len(g.jobs) > 0 {
			jobs, g.jobs = g.jobs[0], g.jobs[1:]
		}
		fmt.Fprintln(stdout, jobs)
	case slices.Contains(argv, "list-units"):
		units := g.units
		if len(g.earlierUnits) > 0 {
			units, g.earlierUnits = g.earlierUnits[0], g.earlierUnits[1:]
		}
		_, _ = io.WriteString(stdout, units)
	case slices.Contains(argv, "--sync"):
		g.unread = false
	case slices.Contains(argv, "--output=cat"):
		if !g.unread {
			fmt.Fprintf(stdout, "one\nlog of %s\x1b[2J\n", argv[1])
		}
	case argv[len(argv)-1] == "switch":
		system := strings.TrimSuffix(argv[0], "/bin/switch-to-configuration")
		g.runs = system
		if err := g.called("switch to %s", filepath.Base(system)); err != nil {
			return 0, err
		}
		return g.switchStatus[system], nil
	}
	return 0, nil
}

// fakeArchiver is the real one with failures.
type fakeArchiver struct{ *world }

func (a fakeArchiver) Pack(ctx context.Context, folder, path string, exclude ...string) (archive.Packed, error) {
	if err := a.called("pack"); err != nil {
		return archive.Packed{}, err
	}
	return archive.Tar{Runner: execx.New()}.Pack(ctx, folder, path, exclude...)
}

func (a fakeArchiver) Unpack(ctx context.Context, path, sum, folder string, exclude ...string) error {
	return errors.Join(archive.Tar{Runner: execx.New()}.Unpack(ctx, path, sum, folder, exclude...), a.called("unpack"))
}
