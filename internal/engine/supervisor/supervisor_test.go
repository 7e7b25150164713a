package supervisor

import (
	"bytes"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
	"devhost/internal/engine/cgroup"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "fake-nspawn" {
		os.Exit(fakeNspawn(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// seenFile is the note of a test that has seen the guest running.
const seenFile = "seen"

// rebootsWanted is how often the fake guest "reboots" does that.
const rebootsWanted = 2

// fakeNspawn behaves like nspawn as its supervisor sees it. What the guest does
// is named by behaviour; folder is for its notes.
func fakeNspawn(behaviour, folder string) int {
	socket, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	notify := func(lines ...string) {
		if _, err := io.WriteString(socket, strings.Join(lines, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	starts, _ := os.ReadFile(filepath.Join(folder, "starts"))
	_ = os.WriteFile(filepath.Join(folder, "starts"), append(starts, '.'), 0o600)
	_ = os.WriteFile(filepath.Join(folder, "environment"), []byte(strings.Join(os.Environ(), "\n")), 0o600)
	_ = os.WriteFile(filepath.Join(folder, "arguments"), []byte(strings.Join(os.Args[4:], "\n")), 0o600)

	if behaviour == "does not start" {
		fmt.Fprintln(os.Stderr, "Failed to do what nspawn does: it is a fake")
		fmt.Fprintln(os.Stderr, farewell+" /run/x, and we can't allow that.")
		return 1
	}
	onPowerOff := "exit 0"
	if behaviour == "stays" {
		onPowerOff = ":"
	}
	trapped := filepath.Join(folder, "trapped")
	_ = os.Remove(trapped)
	leader, err := execx.New().Start(execx.Command{Name: "sh", Args: []string{"-c", fmt.Sprintf("trap '%s' 38; echo >%s; while :; do sleep 0.01; done", onPowerOff, trapped)}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	for {
		if _, err := os.Stat(trapped); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	pid := leader.Pid()
	if behaviour == "forges" {
		pid = os.Getppid()
	}
	notify("STATUS=Container running.", "X_NSPAWN_LEADER_PID="+strconv.Itoa(pid))
	fmt.Fprint(os.Stdout, "booting\r\n")
	switch behaviour {
	case "is chatty":
		fmt.Fprint(os.Stdout, strings.Repeat("0123456789012345678901234567890\n", 3<<20/32))
	case "floods":
		for i := range 20_000 {
			notify("STATUS=" + strconv.Itoa(i))
		}
	}
	if behaviour != "never ready" {
		notify("READY=1")
	}
	end := func(status int) int {
		// It reboots or crashes after it was seen running.
		for {
			if _, err := os.Stat(filepath.Join(folder, seenFile)); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		_ = leader.Signal(syscall.SIGKILL)
		_ = leader.Wait()
		return status
	}
	switch {
	case behaviour == "reboots" && len(starts) < rebootsWanted:
		return end(133)
	case behaviour == "crashes":
		fmt.Fprintln(os.Stderr, "something broke")
		return end(7)
	}
	if leader.Wait() != nil {
		return 1
	}
	return 0
}

// cable is a network that notes what it is asked for.
type cable struct {
	mutex sync.Mutex
	calls []string
	// attach replaces what Attach does.
	attach func(ctx context.Context) error
}

func (c *cable) note(call string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.calls = append(c.calls, call)
}

func (c *cable) all() []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return append([]string{}, c.calls...)
}

func (c *cable) Attach(ctx context.Context, name string, address registry.Address) error {
	c.note("attach " + name + " " + address.HostInterface)
	if c.attach != nil {
		return c.attach(ctx)
	}
	return nil
}

func (c *cable) Detach(_ context.Context, name string, address registry.Address) error {
	c.note("detach " + name + " " + address.HostInterface)
	return nil
}

// run is a supervisor with a fake nspawn.
type run struct {
	t       *testing.T
	layout  registry.Layout
	options Options
	network *cable
	signals chan os.Signal
	folder  string
	reports *os.File
	ended   chan struct{}
	err     error
}

const testName = "demo"

// patience bounds waits that end at once unless something is broken.
const patience = 2 * time.Minute

func newRun(t *testing.T, behaviour string) *run {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("supervising needs root, for cgroups and /run")
	}
	state := t.TempDir()
	layout, err := registry.NewLayout(state)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, layout: layout, network: &cable{}, signals: make(chan os.Signal, 8), folder: t.TempDir(), ended: make(chan struct{})}
	system := filepath.Join(state, "system")
	script := filepath.Join(state, "nspawn")
	for path, text := range map[string]string{
		filepath.Join(system, "init"): "",
		script:                        fmt.Sprintf("#!/bin/sh\nexec %s fake-nspawn '%s' %s \"$@\"\n", self, behaviour, r.folder),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.options = Options{
		Layout: layout, Name: testName, Runner: execx.New(), Network: r.network, Nspawn: script, LogMegabytes: 1,
		Logger: hclog.New(&hclog.LoggerOptions{Output: io.Discard}), StopTimeout: patience / 2,
		Load: func(name string) (*registry.Container, error) {
			return &registry.Container{Name: name, System: system, Address: registry.Address{HostInterface: "vd-fake"}, Limits: registry.Limits{Tasks: 1000}}, nil
		},
	}
	return r
}

// start starts the supervisor; the test ends it at the latest.
func (r *run) start() {
	r.t.Helper()
	reports, reportsEnd, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	r.reports = reports
	go func() {
		defer close(r.ended)
		// Not the test's context, which ends before the cleanup.
		r.err = supervise(context.Background(), r.options, r.signals, &starter{pipe: reportsEnd})
	}()
	r.t.Cleanup(func() {
		_ = reports.Close()
		for range 2 {
			select {
			case r.signals <- syscall.SIGTERM:
			default:
			}
		}
		<-r.ended
		r.wantCleared(false)
		if r.t.Failed() {
			console, _ := os.ReadFile(r.layout.Log(testName))
			r.t.Logf("console (last 2000 bytes):\n%s", console[max(0, len(console)-2000):])
		}
	})
}

func (r *run) report() string {
	r.t.Helper()
	if err := r.reports.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	text, err := io.ReadAll(r.reports)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.folder, seenFile), nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (r *run) record() *Record {
	r.t.Helper()
	record, err := ReadRecord(r.layout, testName)
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

func (r *run) wait() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(patience):
		r.t.Fatal("the supervisor does not end")
		return nil
	}
}

func (r *run) wantUp() {
	r.t.Helper()
	if got := r.report(); got != `{"up":true}` {
		r.t.Fatalf("the report is %s", got)
	}
}

func (r *run) note(file string) string {
	text, _ := os.ReadFile(filepath.Join(r.folder, file))
	return string(text)
}

func (r *run) console() string {
	text, _ := os.ReadFile(r.layout.Log(testName))
	return string(text)
}

func (r *run) wantCleared(failed bool) {
	r.t.Helper()
	tree, err := cgroup.Discover()
	if err != nil {
		r.t.Fatal(err)
	}
	if pids, err := tree.Group(r.layout.Instance(), testName).PIDs(); err != nil || len(pids) > 0 {
		r.t.Errorf("processes left: %v, %v", pids, err)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/devhost-" + r.layout.Instance())
	runtime, _ := filepath.Glob(r.layout.Runtime() + "/*")
	var want []string
	if failed {
		want = []string{r.layout.RuntimeRecord(testName)}
	} else if _, err := os.Stat(r.layout.Runtime()); !os.IsNotExist(err) {
		r.t.Errorf("the runtime folder is still there (%v)", err)
	}
	if diff := cmp.Diff(want, append(left, runtime...)); diff != "" {
		r.t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if failed {
		if err := Clear(context.Background(), r.layout, testName, registry.Address{HostInterface: "vd-fake"}, r.network); err != nil {
			r.t.Error(err)
		}
		r.wantCleared(false)
	}
}

func TestNormalLife(t *testing.T) {
	r := newRun(t, "is normal")
	r.start()
	r.wantUp()
	record := r.record()
	if record.Status != engine.Running || record.Supervisor.PID != os.Getpid() || !record.Nspawn.Alive() || !record.Leader.Alive() || time.Since(record.StartedAt) > time.Minute {
		t.Errorf("the record is %+v", record)
	}
	if want := "NOTIFY_SOCKET=" + notifySocket(r.layout, testName); !strings.Contains(r.note("environment"), want) {
		t.Errorf("nspawn's environment is %s", r.note("environment"))
	}
	if !strings.Contains(r.note("arguments"), "--network-veth-extra=vd-fake:host0") {
		t.Errorf("nspawn's arguments are %s", r.note("arguments"))
	}
	var busy *Busy
	second := r.options
	if err := supervise(t.Context(), second, nil, &starter{}); !errors.As(err, &busy) {
		t.Errorf("a second supervisor: %v", err)
	}
	if err := Clear(t.Context(), r.layout, testName, registry.Address{}, r.network); !errors.As(err, &busy) {
		t.Errorf("clearing what runs: %v", err)
	}
	if !record.Leader.Alive() {
		t.Error("that killed the guest")
	}
	r.signals <- syscall.SIGTERM
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"detach demo vd-fake", "attach demo vd-fake", "detach demo vd-fake"}, r.network.all()); diff != "" {
		t.Errorf("network (-want +got):\n%s", diff)
	}
	if console := r.console(); !strings.Contains(console, "\nbooting\n") || strings.Contains(console, "\r") {
		t.Errorf("the console log is %q", console)
	}
	r.wantCleared(false)
}

func TestReboots(t *testing.T) {
	r := newRun(t, "reboots")
	r.start()
	r.wantUp()
	for deadline := time.Now().Add(patience); r.note("starts") != "..." && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if record := r.record(); record != nil && record.Status == engine.Running {
			break
		}
	}
	if starts := r.note("starts"); starts != "..." {
		t.Errorf("it was started %d times", len(starts))
	}
	r.signals <- syscall.SIGTERM
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if got := strings.Count(strings.Join(r.network.all(), "\n"), "attach demo"); got != 3 {
		t.Errorf("the network was attached %d times", got)
	}
	r.wantCleared(false)
}

func TestEndings(t *testing.T) {
	tests := []struct {
		behaviour string
		report    string
		wantError string
	}{
		{"crashes", `{"up":true}`, "systemd-nspawn ended with exit code 7: something broke"},
		{"does not start", "Failed to do what nspawn does: it is a fake", "systemd-nspawn ended with exit code 1: Failed to do what nspawn does: it is a fake"},
	}
	for _, test := range tests {
		t.Run(test.behaviour, func(t *testing.T) {
			r := newRun(t, test.behaviour)
			r.start()
			if got := r.report(); !strings.Contains(got, test.report) {
				t.Errorf("the report is %s", got)
			}
			var failure *Failure
			if err := r.wait(); !errors.As(err, &failure) || failure.Reason != test.wantError {
				t.Errorf("error %v", err)
			}
			if record := r.record(); record == nil || record.Status != engine.Failed || record.Detail != test.wantError {
				t.Errorf("the record is %+v", record)
			}
			if !strings.Contains(r.console(), "-- devhost: "+test.wantError) || strings.Contains(r.console(), farewell) {
				t.Errorf("the console log is %q", r.console())
			}
			r.wantCleared(true)
		})
	}
}

// A unit that takes for ever does not make the start wait, nor the stop.
func TestStopBeforeItIsReady(t *testing.T) {
	r := newRun(t, "never ready")
	r.start()
	r.wantUp()
	begin := time.Now()
	r.signals <- syscall.SIGTERM
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took >= r.options.StopTimeout {
		t.Errorf("it took %s, as if the guest had to be killed", took)
	}
	r.wantCleared(false)
}

// The first signal may come before nspawn has entered its cgroup.
func TestStopAtOnce(t *testing.T) {
	r := newRun(t, "never ready")
	r.signals <- syscall.SIGTERM
	r.start()
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	r.wantCleared(false)
}

func TestGuestThatStays(t *testing.T) {
	t.Run("is killed after the time-out", func(t *testing.T) {
		r := newRun(t, "stays")
		r.options.StopTimeout = 100 * time.Millisecond
		r.start()
		r.wantUp()
		r.signals <- syscall.SIGTERM
		if err := r.wait(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(r.console(), "did not power off within 100ms") {
			t.Errorf("the console log is %q", r.console())
		}
		r.wantCleared(false)
	})
	t.Run("is killed by the second signal", func(t *testing.T) {
		r := newRun(t, "stays")
		r.options.StopTimeout = time.Minute
		r.start()
		r.wantUp()
		r.signals <- syscall.SIGTERM
		r.signals <- syscall.SIGTERM
		if err := r.wait(); err != nil {
			t.Error(err)
		}
		r.wantCleared(false)
	})
}

func TestNetworkFails(t *testing.T) {
	r := newRun(t, "is normal")
	r.network.attach = func(context.Context) error { return errors.New("no bridge") }
	r.start()
	if got := r.report(); !strings.Contains(got, "network cannot be connected: no bridge") {
		t.Errorf("the report is %s", got)
	}
	if err := r.wait(); err == nil {
		t.Error("no error")
	}
	r.wantCleared(true)
}

// It is up when the guest is and the network is.
func TestNetworkComesLate(t *testing.T) {
	r := newRun(t, "is normal")
	plugged := make(chan struct{})
	r.network.attach = func(ctx context.Context) error {
		select {
		case <-plugged:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.start()
	for deadline := time.Now().Add(patience); !strings.Contains(r.console(), "booting") && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(30 * time.Millisecond)
	if record := r.record(); record == nil || record.Status != engine.Starting {
		t.Errorf("without a network the record is %+v", record)
	}
	close(plugged)
	r.wantUp()
}

func TestForgedLeader(t *testing.T) {
	r := newRun(t, "forges")
	r.start()
	eventually(t, "the network was connected", func() bool { return slices.Contains(r.network.all(), "attach demo vd-fake") })
	time.Sleep(50 * time.Millisecond)
	if record := r.record(); record.Leader.PID != 0 || record.Status != engine.Starting {
		t.Errorf("a process that is no child of nspawn became the leader: %+v", record)
	}
	r.signals <- syscall.SIGTERM
	if err := r.wait(); err != nil {
		t.Error(err)
	}
	if got := r.report(); !strings.Contains(got, "asked to stop") {
		t.Errorf("the report is %s", got)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to where %s", what)
		}
	}
}

func TestFlood(t *testing.T) {
	r := newRun(t, "floods")
	r.start()
	r.wantUp()
}

func TestLogRotation(t *testing.T) {
	r := newRun(t, "is chatty")
	r.start()
	r.wantUp()
	var logs []string
	eventually(t, "3 MB were in three files", func() bool {
		logs, _ = filepath.Glob(filepath.Join(filepath.Dir(r.layout.Log(testName)), "console*"))
		return len(logs) >= 3
	})
	for _, log := range logs {
		if info, err := os.Stat(log); err != nil || info.Size() > 1<<20 || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %+v, %v", log, info, err)
		}
	}
}

// A full disk must not stop a guest that writes to its console.
func TestLogCannotBeWritten(t *testing.T) {
	r := newRun(t, "is chatty")
	// A file where the folder of the logs should be.
	folder := filepath.Dir(r.layout.Log(testName))
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.wantUp()
}

func TestRecordChecks(t *testing.T) {
	tests := []struct {
		name, text, wantError string
	}{
		{"good", `{"version":1,"name":"demo","status":"running"}`, ""},
		{"damaged", `{"version":1,`, "unexpected end"},
		{"newer", `{"version":2,"name":"demo","status":"running"}`, "version 2"},
		{"no status", `{"version":1,"name":"demo"}`, `status ""`},
		{"of another", `{"version":1,"name":"other","status":"running"}`, `container "other"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRun(t, "")
			if err := makeRuntime(r.layout); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = os.Remove(r.layout.RuntimeRecord(testName))
				removeRuntime(r.layout)
			}()
			if err := os.WriteFile(r.layout.RuntimeRecord(testName), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			record, err := ReadRecord(r.layout, testName)
			// What is of another boot means nothing.
			if test.wantError == "" {
				if record != nil || err != nil {
					t.Errorf("%+v, %v", record, err)
				}
				return
			}
			var unusable *UnusableRecord
			if !errors.As(err, &unusable) || !strings.Contains(err.Error(), test.wantError) || !strings.Contains(err.Error(), "devhost stop demo") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"demo","status":"running","leader":{"pid":1,"start":2}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		record, err := decodeRecord(text)
		if (record == nil) == (err == nil) {
			t.Errorf("%+v with error %v", record, err)
		}
	})
}

func TestCloseInherited(t *testing.T) {
	inherited, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	keep := os.NewFile(uintptr(kept), "kept")
	defer keep.Close()
	own, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	closeInherited(keep)
	if err := syscall.Close(inherited); !errors.Is(err, syscall.EBADF) {
		t.Errorf("the inherited descriptor was open (%v)", err)
	}
	for what, file := range map[string]*os.File{"our own": own, "the one to keep": keep} {
		if _, err := file.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s was closed (%v)", what, err)
		}
	}
}

func TestNotifyMessages(t *testing.T) {
	tests := []struct {
		name     string
		messages []string
		want     news
	}{
		{"status only", []string{"STATUS=Container running."}, news{}},
		{"leader", []string{"STATUS=Container running.\nX_NSPAWN_LEADER_PID=4711\n"}, news{leader: 4711}},
		{"ready", []string{"X_NSPAWN_LEADER_PID=4711", "READY=1\n"}, news{leader: 4711}},
		{"nonsense", []string{"X_NSPAWN_LEADER_PID=-1", "X_NSPAWN_LEADER_PID=1", "X_NSPAWN_LEADER_PID=x", "READY", "=", "\x00\xff"}, news{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			reader := &notifyReader{changed: make(chan struct{}, 1)}
			for _, message := range test.messages {
				reader.take(message)
			}
			if got := reader.news(); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			reader.reset()
			if got := reader.news(); got != (news{}) {
				t.Errorf("after a reset %+v", got)
			}
		})
	}
}

func TestLastLine(t *testing.T) {
	last := &lastLine{}
	log := &consoleLog{}
	log.logger.Filename = filepath.Join(t.TempDir(), "log")
	defer log.Close()
	take := log.keeping(last)
	for _, part := range []string{"first\nsec", "ond\n  \n", farewell + " x\n", "unfinished"} {
		take([]byte(part))
	}
	if got := last.String(); got != "second" {
		t.Errorf("the last line is %q", got)
	}
	text, err := os.ReadFile(log.logger.Filename)
	if err != nil || !bytes.Equal(text, []byte("first\nsecond\n  \n")) {
		t.Errorf("the log is %q, %v", text, err)
	}
}

func TestRaiseKernelLimits(t *testing.T) {
	sysctls := t.TempDir()
	if err := os.MkdirAll(filepath.Join(sysctls, "fs/inotify"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(sysctls, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("fs/inotify/max_user_instances", "128\n")
	write("fs/inotify/max_user_watches", "1048576\n")
	if err := raiseKernelLimits(sysctls); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for name := range kernelLimits {
		text, err := os.ReadFile(filepath.Join(sysctls, name))
		if err != nil {
			t.Fatal(err)
		}
		got[name] = string(text)
	}
	if diff := cmp.Diff(map[string]string{"fs/inotify/max_user_instances": "8192", "fs/inotify/max_user_watches": "1048576\n"}, got); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	write("fs/inotify/max_user_watches", "many")
	if err := raiseKernelLimits(sysctls); err == nil {
		t.Error("nonsense was taken for a limit")
	}
}

func TestRefreshGoesOnAfterAnError(t *testing.T) {
	r := newRun(t, "is normal")
	refreshed := make(chan struct{}, 100)
	r.options.RefreshEvery = time.Millisecond
	r.options.Refresh = func() error {
		select {
		case refreshed <- struct{}{}:
		default:
		}
		return errors.New("the host has no resolvers")
	}
	r.start()
	for range 3 {
		select {
		case <-refreshed:
		case <-time.After(patience):
			t.Fatal("it was not refreshed")
		}
	}
}
