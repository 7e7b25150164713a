package direct_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"devhost/internal/engine/enginetest"
	"devhost/internal/engine/enter"
	"devhost/internal/execx"
)

// One guest serves all tests of commands inside.
func TestEnter(t *testing.T) {
	g := newGuest(t, "inside")
	t.Setenv("DEVHOST_TEST_SECRET", "of-the-host")
	g.Start()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, g *guest)
	}{
		{"environment", testEnvironment},
		{"descriptors", testDescriptors},
		{"namespaces and cgroup", testNamespaces},
		{"rights and limits", testRights},
		{"users", testUsers},
		{"statuses", testStatuses},
		{"input and output", testStreams},
		{"ignored signals", testIgnoredSignals},
		{"forwarded signals", testForwardedSignals},
		{"end of the context", testCancelled},
		{"killed while stopped", testKilledWhileStopped},
		{"terminal", testTerminal},
		{"size and raw mode", testPersonsTerminal},
		{"login shell", testLoginShell},
		{"another process", testAnotherProcess},
		{"false multiplexer", testFalseMultiplexer},
	} {
		t.Run(test.name, func(t *testing.T) {
			inner := g.in(t)
			test.run(t, inner)
		})
	}
}

func testEnvironment(t *testing.T, g *guest) {
	_, stdout, _ := g.ExecWith(enter.Options{Argv: []string{"env"}, Env: []string{"EXTRA=a=b", "LANG=de_DE.UTF-8"}})
	want := `EXTRA=a=b
HOME=/root
LANG=de_DE.UTF-8
LOGNAME=root
PATH=/run/wrappers/bin:/root/.nix-profile/bin:/etc/profiles/per-user/root/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SHELL=/bin/bash
USER=root
`
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if status, _, stderr := g.ExecWith(enter.Options{Argv: []string{"env"}, Env: []string{"nonsense"}}); status != 125 || !strings.Contains(stderr, "KEY=VALUE") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

func testDescriptors(t *testing.T, g *guest) {
	descriptor, err := unix.Open(filepath.Join(t.TempDir(), "of-the-host"), unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(descriptor)
	reader, writer := io.Pipe()
	defer writer.Close()
	before, err := g.group().PIDs()
	if err != nil {
		t.Fatal(err)
	}
	command := g.begin(g.Context(), enter.Options{Argv: []string{"cat"}, Stdin: reader})
	if _, err := io.WriteString(writer, "here\n"); err != nil {
		t.Fatal(err)
	}
	command.wantOutput("here")
	after, err := g.group().PIDs()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, pid := range after {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if slices.Contains(before, pid) || err != nil || string(name) != "cat\n" {
			continue
		}
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			target, _ := os.Readlink(link)
			listed[filepath.Base(link)] = regexp.MustCompile(`\d+`).ReplaceAllString(target, "N")
		}
	}
	if diff := cmp.Diff(map[string]string{"0": "pipe:[N]", "1": "pipe:[N]", "2": "pipe:[N]"}, listed); diff != "" {
		t.Errorf("descriptors (-want +got):\n%s", diff)
	}
	_ = writer.Close()
	command.wantStatus(0)
}

func testNamespaces(t *testing.T, g *guest) {
	const list = `cd /proc/%s/ns; for n in *; do echo $n $(readlink $n); done`
	if diff := cmp.Diff(g.Inside(fmt.Sprintf(list, "1")), g.Inside(fmt.Sprintf(list, "self"))); diff != "" {
		t.Errorf("namespaces (-guest +command):\n%s", diff)
	}
	if own, err := os.Readlink("/proc/self/ns/user"); err != nil || own == g.Inside("readlink /proc/self/ns/user") {
		t.Errorf("the command is in our own user namespace %s (%v)", own, err)
	}
	before, err := g.group().PIDs()
	if err != nil {
		t.Fatal(err)
	}
	output, input := io.Pipe()
	defer output.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.ExecWith(enter.Options{Argv: []string{"cat"}, Stdin: output})
	}()
	enginetest.Eventually(t, "the command was in the container's cgroup", func() bool {
		now, err := g.group().PIDs()
		return err == nil && len(now) == len(before)+2
	})
	// As the host sees it: below the container's own cgroup, in all hierarchies.
	now, err := g.group().PIDs()
	if err != nil {
		t.Fatal(err)
	}
	prefix := ":/devhost-" + g.Layout.Instance() + "/" + g.Name
	for _, pid := range now {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, prefix) && !unmounted(line) {
				t.Errorf("process %d is in %s", pid, line)
			}
		}
	}
	if inside := g.Inside("cat /sys/fs/cgroup/devhost-exec/cgroup.procs 2>/dev/null || echo none"); slices.Contains(strings.Fields(inside), "0") {
		t.Errorf("the guest sees processes of the host: %q", inside)
	}
	_ = input.Close()
	<-done
}

// unmounted says that a line of /proc/PID/cgroup is of a hierarchy that no
// cgroup can be made in here.
func unmounted(line string) bool {
	controllers := strings.Split(line, ":")[1]
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	if controllers == "" {
		return !bytes.Contains(mounts, []byte(" cgroup2 "))
	}
	return !regexp.MustCompile(` cgroup \S*\b` + regexp.QuoteMeta(controllers) + `\b`).Match(mounts)
}

func testRights(t *testing.T, g *guest) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &before); err != nil {
		t.Fatal(err)
	}
	// A limit of the host's shell.
	if err := unix.Setrlimit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: 1 << 20, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_STACK, &before); err != nil {
			t.Error(err)
		}
	}()
	const list = "grep -E '^(CapBnd|NoNewPrivs|SigBlk)' /proc/%[1]s/status; cat /proc/%[1]s/limits /proc/%[1]s/oom_score_adj; umask"
	guests := g.Inside(fmt.Sprintf(list, "1"))
	// PID 1 blocks signals; a command does not.
	guests = regexp.MustCompile(`SigBlk:.*`).ReplaceAllString(guests, "SigBlk:\t0000000000000000")
	if diff := cmp.Diff(guests, g.Inside(fmt.Sprintf(list, "self"))); diff != "" {
		t.Errorf("rights (-guest +command):\n%s", diff)
	}
	if effective := g.Inside("grep CapEff /proc/self/status"); strings.HasSuffix(effective, "ffffffffff") {
		t.Errorf("the command has all capabilities of the host: %s", effective)
	}
}

func testUsers(t *testing.T, g *guest) {
	tests := []struct{ user, want string }{
		{"", "0 0 0 root /root"},
		{"root", "0 0 0 root /root"},
		{"dev", "1000 100 100 50 dev /home/dev"},
		{"1000", "1000 100 100 50 dev /home/dev"},
		{"4711", "4711 4711 4711 4711 /"},
	}
	for _, test := range tests {
		t.Run("user "+test.user, func(t *testing.T) {
			_, stdout, stderr := g.ExecWith(enter.Options{User: test.user, Argv: []string{"sh", "-c", "echo $(id -u) $(id -g) $(id -G) $USER $PWD"}})
			if got := strings.TrimSpace(stdout); got != test.want {
				t.Errorf("it is %q, want %q (%s)", got, test.want, stderr)
			}
		})
	}
	if status, _, stderr := g.ExecWith(enter.Options{User: "nobody-here", Argv: []string{"id"}}); status != 125 || !strings.Contains(stderr, "nobody-here") {
		t.Errorf("an unknown user: status %d, %s", status, stderr)
	}
	_, stdout, _ := g.ExecWith(enter.Options{User: "dev", Argv: []string{"grep", "-E", "^Cap(Prm|Eff|Inh|Amb)", "/proc/self/status"}})
	if strings.Trim(stdout, "CapPrmEfInhAb:0\t\n") != "" {
		t.Errorf("a user has capabilities:\n%s", stdout)
	}
	if _, stdout, _ := g.ExecWith(enter.Options{User: "dev", Dir: "/usr/bin", Argv: []string{"pwd"}}); stdout != "/usr/bin\n" {
		t.Errorf("the working folder is %q", stdout)
	}
	if status, _, stderr := g.ExecWith(enter.Options{Dir: "/no/such/folder", Argv: []string{"pwd"}}); status != 126 || !strings.Contains(stderr, "/no/such/folder") {
		t.Errorf("a missing working folder: status %d, %s", status, stderr)
	}
}

func testStatuses(t *testing.T, g *guest) {
	g.WriteInside("root/not-a-program", "no\n", 0o644)
	g.WriteInside("root/no-interpreter", "#!/no/such/program\n", 0o755)
	tests := []struct {
		name string
		argv []string
		want int
		says string
	}{
		{"success", []string{"true"}, 0, ""},
		{"failure", []string{"sh", "-c", "exit 42"}, 42, ""},
		{"125 is the command's own", []string{"sh", "-c", "exit 125"}, 125, ""},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, 143, ""},
		{"signal with a core dump", []string{"sh", "-c", "kill -SEGV $$"}, 139, ""},
		{"not found", []string{"no-such-program"}, 127, "no-such-program: command not found"},
		{"not found by path", []string{"/no/such/program"}, 127, "/no/such/program: command not found"},
		{"not executable", []string{"/root/not-a-program"}, 126, "permission denied"},
		{"cannot run", []string{"/root/no-interpreter"}, 126, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := g.Exec(test.argv...)
			if status != test.want || !strings.Contains(stderr, test.says) || (test.says == "") != (stderr == "") || stdout != "" {
				t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
			}
		})
	}
}

func testStreams(t *testing.T, g *guest) {
	t.Run("all of a lot", func(t *testing.T) {
		const size = 3 << 20
		_, stdout, _ := g.ExecWith(enter.Options{Argv: []string{"cat"}, Stdin: bytes.NewReader(make([]byte, size))})
		if len(stdout) != size {
			t.Errorf("%d of %d bytes came back", len(stdout), size)
		}
	})
	t.Run("apart", func(t *testing.T) {
		_, stdout, stderr := g.Exec("sh", "-c", "echo out; echo err >&2")
		if stdout != "out\n" || stderr != "err\n" {
			t.Errorf("stdout %q, stderr %q", stdout, stderr)
		}
	})
	t.Run("no input", func(t *testing.T) {
		if status, stdout, _ := g.Exec("cat"); status != 0 || stdout != "" {
			t.Errorf("status %d, stdout %q", status, stdout)
		}
	})
	t.Run("input that does not end", func(t *testing.T) {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		defer writer.Close()
		if status, _, _ := g.ExecWith(enter.Options{Argv: []string{"true"}, Stdin: reader}); status != 0 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("input that nobody reads", func(t *testing.T) {
		status, _, stderr := g.ExecWith(enter.Options{Argv: []string{"true"}, Stdin: bytes.NewReader(make([]byte, 1<<20))})
		if status != 0 || stderr != "" {
			t.Errorf("status %d, %s", status, stderr)
		}
	})
	t.Run("child in the background", func(t *testing.T) {
		begin := time.Now()
		_, stdout, _ := g.Exec("sh", "-c", "sleep 3600 & echo started")
		if stdout != "started\n" || time.Since(begin) > 10*time.Minute {
			t.Errorf("stdout %q after %s", stdout, time.Since(begin))
		}
	})
	t.Run("output that cannot be written", func(t *testing.T) {
		target, err := g.Engine.Guest(g.Name)
		if err != nil {
			t.Fatal(err)
		}
		full := errors.New("full")
		_, err = enter.Exec(g.Context(), target, enter.Options{Runner: execx.New(), Argv: []string{"yes"}, Stdout: failing{full}})
		if !errors.Is(err, full) {
			t.Errorf("error %v", err)
		}
	})
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func testIgnoredSignals(t *testing.T, g *guest) {
	signal.Ignore(syscall.SIGUSR2, syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGUSR2, syscall.SIGPIPE)
	got := g.Inside("grep -E '^Sig(Ign|Blk)' /proc/self/status")
	if got != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000" {
		t.Errorf("the command starts with\n%s", got)
	}
}

// shout is output that can be looked at while it is written.
type shout struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (s *shout) Write(data []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.text.Write(data)
}

func (s *shout) String() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.text.String()
}

// running is a command that runs in the background of a test.
type running struct {
	t      *testing.T
	output *shout
	ended  chan int
}

func (g *guest) begin(ctx context.Context, options enter.Options) *running {
	g.T.Helper()
	target, err := g.Engine.Guest(g.Name)
	if err != nil {
		g.T.Fatal(err)
	}
	r := &running{t: g.T, output: &shout{}, ended: make(chan int, 1)}
	options.Runner, options.Stdout, options.Stderr = execx.New(), r.output, r.output
	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	g.T.Cleanup(func() {
		cancel()
		<-finished
	})
	go func() {
		defer close(finished)
		status, err := enter.Exec(ctx, target, options)
		if err != nil {
			g.T.Errorf("exec: %v", err)
		}
		r.ended <- status
	}()
	return r
}

func (r *running) wantOutput(text string) {
	r.t.Helper()
	enginetest.Eventually(r.t, fmt.Sprintf("the output had %q", text), func() bool { return strings.Contains(r.output.String(), text) })
}

func (r *running) wantStatus(want int) {
	r.t.Helper()
	select {
	case got := <-r.ended:
		if got != want {
			r.t.Errorf("status %d, want %d; output %q", got, want, r.output)
		}
	case <-time.After(enginetest.Patience):
		r.t.Errorf("the command does not end; output %q", r.output)
	}
}

func testForwardedSignals(t *testing.T, g *guest) {
	for _, sent := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2} {
		t.Run(sent.String(), func(t *testing.T) {
			inner := g.in(t)
			script := fmt.Sprintf("trap 'echo caught; exit 5' %d; echo ready; while :; do sleep 0.01; done", int(sent))
			command := inner.begin(g.Context(), enter.Options{Argv: []string{"bash", "-c", script}})
			command.wantOutput("ready")
			if err := syscall.Kill(os.Getpid(), sent); err != nil {
				t.Fatal(err)
			}
			command.wantStatus(5)
			command.wantOutput("caught")
		})
	}
}

func testCancelled(t *testing.T, g *guest) {
	ctx, cancel := context.WithCancel(g.Context())
	command := g.begin(ctx, enter.Options{Argv: []string{"bash", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"}})
	command.wantOutput("ready")
	cancel()
	command.wantStatus(6)
}

// testKilledWhileStopped is what happens to every command when its guest powers
// off: systemd stops all processes before it kills them.
func testKilledWhileStopped(t *testing.T, g *guest) {
	command := g.begin(g.Context(), enter.Options{Argv: []string{"bash", "-c", "echo pid $$; kill -STOP $$; echo continued"}})
	command.wantOutput("\n")
	pid := strings.Fields(command.output.String())[1]
	state := func() string {
		_, stdout, _ := g.ExecWith(enter.Options{Argv: []string{"ps", "-o", "stat=", "-p", pid}})
		return stdout
	}
	enginetest.Eventually(t, "the command was stopped", func() bool { return strings.HasPrefix(state(), "T") })
	if status, _, stderr := g.ExecWith(enter.Options{Argv: []string{"kill", "-KILL", pid}}); status != 0 {
		t.Fatalf("kill: %s", stderr)
	}
	command.wantStatus(137)
}

func testTerminal(t *testing.T, g *guest) {
	for _, user := range []string{"root", "dev"} {
		t.Run(user, func(t *testing.T) {
			inner := g.in(t)
			script := "tty; stat -c '%U %a' $(tty); stty size; echo $TERM; echo new >$(tty); ps -o tpgid= -p $$ | xargs test $$ -eq && echo foreground"
			command := inner.begin(g.Context(), enter.Options{TTY: true, Term: "linux", User: user, Argv: []string{"sh", "-c", script}})
			command.wantStatus(0)
			want := regexp.MustCompile(`^/dev/pts/\d+\r\n` + user + ` 620\r\n24 80\r\nlinux\r\nnew\r\nforeground\r\n$`)
			if !want.MatchString(command.output.String()) {
				t.Errorf("output %q", command.output)
			}
		})
	}
	t.Run("keys", func(t *testing.T) {
		inner := g.in(t)
		keys, typed := io.Pipe()
		command := inner.begin(g.Context(), enter.Options{TTY: true, Stdin: keys, Argv: []string{"bash", "-c", "trap 'echo interrupted' INT; echo ready; read -r line; echo read $line; cat; echo end"}})
		command.wantOutput("ready")
		type_ := func(text string) {
			if _, err := io.WriteString(typed, text); err != nil {
				t.Fatal(err)
			}
		}
		type_("\x03")
		command.wantOutput("interrupted")
		type_("some words\r")
		command.wantOutput("read some words")
		// The end of the input is the end of the terminal's input.
		_ = typed.Close()
		command.wantStatus(0)
		command.wantOutput("end")
	})
}

// openPTY makes a terminal of the host, as a person has one.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func testPersonsTerminal(t *testing.T, g *guest) {
	master, slave := openPTY(t)
	setSize := func(rows, columns uint16) {
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
			t.Fatal(err)
		}
	}
	settings := func() *unix.Termios {
		current, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return current
	}
	setSize(41, 123)
	before := settings()
	command := g.begin(g.Context(), enter.Options{
		TTY: true, Terminal: slave, Stdin: slave,
		Argv: []string{"bash", "-c", "trap 'stty size' WINCH; stty size; echo ready; until read -r -t 0.05 line; do :; done; exit 3"},
	})
	command.wantOutput("41 123\r\nready")
	if raw := settings(); raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Errorf("the terminal is not raw: %+v", raw)
	}
	setSize(50, 200)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	command.wantOutput("50 200")
	if _, err := master.WriteString("go on\r"); err != nil {
		t.Fatal(err)
	}
	command.wantStatus(3)
	if diff := cmp.Diff(before, settings()); diff != "" {
		t.Errorf("the terminal was not restored (-before +after):\n%s", diff)
	}
}

func testLoginShell(t *testing.T, g *guest) {
	command := g.begin(g.Context(), enter.Options{TTY: true, User: "dev", Stdin: strings.NewReader("echo $0 $(id -un); exit 9\r")})
	command.wantStatus(9)
	command.wantOutput("-bash dev\r\n")
}

// A pid that was given to another process is not entered.
func testAnotherProcess(t *testing.T, g *guest) {
	target, err := g.Engine.Guest(g.Name)
	if err != nil {
		t.Fatal(err)
	}
	target.Leader.Start++
	if _, err := enter.Exec(g.Context(), target, enter.Options{Runner: execx.New(), Argv: []string{"true"}}); !errors.As(err, new(*enter.NotRunning)) {
		t.Errorf("error %v", err)
	}
}

// Last: the guest has no terminals after that.
func testFalseMultiplexer(t *testing.T, g *guest) {
	g.Inside("mount --bind /dev/null /dev/pts/ptmx")
	status, _, stderr := g.ExecWith(enter.Options{TTY: true, Argv: []string{"true"}})
	if status != 125 || !strings.Contains(stderr, "not that of a devpts") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
