package nix

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"devhost/internal/execx"
	"devhost/internal/process"

	"golang.org/x/sys/unix"
)

// daemonVariable makes the test program play a Nix daemon: it listens on the
// named socket until it is terminated. "stubborn:" in front makes it ignore
// SIGTERM, "broken:" makes it end at once.
const daemonVariable = "DEVHOST_TEST_DAEMON"

func TestMain(m *testing.M) {
	if mode := os.Getenv(daemonVariable); mode != "" {
		playDaemon(mode)
	}
	os.Exit(m.Run())
}

func playDaemon(mode string) {
	if strings.HasPrefix(mode, "broken:") {
		_, _ = os.Stderr.WriteString("error: the disk is on fire\n")
		os.Exit(1)
	}
	socket, stubborn := strings.CutPrefix(mode, "stubborn:")
	if stubborn {
		signal.Ignore(syscall.SIGTERM)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		os.Exit(1)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		connection.Close()
	}
}

// daemonRunner starts this test program in place of nix-daemon.
type daemonRunner struct {
	execx.Runner
	mode    string
	mutex   sync.Mutex
	started []int
}

func (d *daemonRunner) Start(command execx.Command) (execx.Process, error) {
	command.Name = os.Args[0]
	command.Env = append(command.Env, daemonVariable+"="+d.mode)
	process, err := d.Runner.Start(command)
	if err == nil {
		d.mutex.Lock()
		d.started = append(d.started, process.Pid())
		d.mutex.Unlock()
	}
	return process, err
}

func daemonClient(t *testing.T, prefix string) (*Client, *daemonRunner, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the lock of the daemon is root's")
	}
	folder, err := os.MkdirTemp("/tmp", "devhost-test-")
	if err != nil {
		t.Fatal(err)
	}
	// That of the host is taken now and then by what runs beside this test.
	ofHost := daemonLock
	daemonLock = filepath.Join(folder, "lock")
	t.Cleanup(func() { daemonLock = ofHost })
	socket := filepath.Join(folder, "socket")
	runner := &daemonRunner{Runner: execx.New(), mode: prefix + socket}
	client := New(runner, nil)
	client.Socket = socket
	t.Cleanup(func() {
		for _, pid := range runner.started {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	if err := client.CheckBuildUsers(context.Background()); err != nil {
		t.Skip("needs build users: ", err)
	}
	return client, runner, filepath.Join(folder, "runtime", "instance")
}

func TestDaemon(t *testing.T) {
	t.Setenv("DEVHOST_OFFLINE", "1")
	client, runner, runtime := daemonClient(t, "")
	ctx := context.Background()
	if err := client.StopDaemon(ctx, runtime); err != nil {
		t.Errorf("stopping none: %v", err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := client.EnsureDaemon(ctx, runtime); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(runner.started) != 1 {
		t.Fatalf("%d daemons were started", len(runner.started))
	}
	if err := client.EnsureDaemon(ctx, runtime); err != nil {
		t.Error(err)
	}
	pid := runner.started[0]
	daemon, err := process.Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	if session, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0); errno != 0 || int(session) != pid {
		t.Errorf("the daemon is in session %d, so it ends with ours", session)
	}
	if err := client.StopDaemon(ctx, runtime); err != nil {
		t.Fatal(err)
	}
	if daemon.Alive() {
		t.Error("the daemon still runs")
	}
	if left, err := os.ReadDir(runtime); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Lstat(daemonLock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", daemonLock)
	}
}

func TestStopDaemonKills(t *testing.T) {
	client, runner, runtime := daemonClient(t, "stubborn:")
	ctx := context.Background()
	if err := client.EnsureDaemon(ctx, runtime); err != nil {
		t.Fatal(err)
	}
	daemon, err := process.Of(runner.started[0])
	if err != nil {
		t.Fatal(err)
	}
	saved := daemonStopTimeout
	daemonStopTimeout = 200 * time.Millisecond
	defer func() { daemonStopTimeout = saved }()
	if err := client.StopDaemon(ctx, runtime); err != nil {
		t.Fatal(err)
	}
	if daemon.Alive() {
		t.Error("it still runs")
	}
}

// A recorded pid that belongs to another process by now is left alone.
func TestStopDaemonKnowsItsOwn(t *testing.T) {
	client, _, runtime := daemonClient(t, "")
	bystander, err := execx.New().Start(execx.Command{Name: "sleep", Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = bystander.Signal(syscall.SIGKILL)
		_ = bystander.Wait()
	}()
	id, err := process.Of(bystander.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(runtime, 0o755); err != nil {
		t.Fatal(err)
	}
	other := process.ID{PID: id.PID, Start: id.Start + 1}
	if err := writeDaemonRecord(runtime, daemonRecord{Version: 1, ID: other}); err != nil {
		t.Fatal(err)
	}
	if err := client.StopDaemon(context.Background(), runtime); err != nil {
		t.Fatal(err)
	}
	if !id.Alive() {
		t.Error("a process that is not ours was stopped")
	}
}

func TestDaemonThatEnds(t *testing.T) {
	client, _, runtime := daemonClient(t, "broken:")
	err := client.EnsureDaemon(context.Background(), runtime)
	var down *DaemonDown
	if !errors.As(err, &down) {
		t.Fatalf("got %T: %v", err, err)
	}
	if log, err := os.ReadFile(down.Log); err != nil || !strings.Contains(string(log), "on fire") {
		t.Errorf("the log: %q, %v", log, err)
	}
	if _, err := os.Stat(daemonRecordPath(runtime)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the record of a daemon that has ended is left")
	}
}

func TestDaemonRecordFormat(t *testing.T) {
	folder := t.TempDir()
	if err := writeDaemonRecord(folder, daemonRecord{Version: 1, ID: process.ID{PID: 7, Start: 99}}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(daemonRecordPath(folder))
	if err != nil || !json.Valid(data) || string(data) != "{\"version\":1,\"pid\":7,\"start\":99}\n" {
		t.Errorf("got %s, %v", data, err)
	}
}

// TestBusyDaemon: a daemon that has not yet taken the connections of others is
// there all the same. A second one would remove its socket.
func TestBusyDaemon(t *testing.T) {
	client, runner, runtime := daemonClient(t, "")
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	address := &unix.SockaddrUnix{Name: client.Socket}
	if err := errors.Join(unix.Bind(listener, address), unix.Listen(listener, 1)); err != nil {
		t.Fatal(err)
	}
	for waiting := 0; ; waiting++ {
		one, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(one)
		err = unix.Connect(one, address)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil || waiting > 10 {
			t.Fatalf("connection %d: %v", waiting, err)
		}
	}
	if err := client.EnsureDaemon(t.Context(), runtime); err != nil {
		t.Error(err)
	}
	if len(runner.started) != 0 {
		t.Errorf("%d daemons were started beside one that is busy", len(runner.started))
	}
}
