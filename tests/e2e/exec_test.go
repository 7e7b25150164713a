package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

func checkExec(t *testing.T, h *host) {
	for _, test := range []struct {
		name   string
		args   []string
		stdin  string
		stdout string
		stderr string
		status int
	}{
		{"the exit status is passed on", []string{"exec", "trial", "--", "sh", "-c", "echo out; echo err >&2; exit 42"}, "", "out\n", "err\n", 42},
		{"a signal's status is that of a shell", []string{"exec", "trial", "--", "sh", "-c", "kill -9 $$"}, "", "", "", 137},
		{"the dashes may be left out", []string{"exec", "trial", "echo", "-n", "--", "x"}, "", "-- x", "", 0},
		{"as a user", []string{"exec", "--user", "s-dev", "trial", "--", "sh", "-c", "id -un; pwd"}, "", "s-dev\n/srv/s-dev\n", "", 0},
		{"in a folder", []string{"exec", "-C", "/etc", "trial", "--", "pwd"}, "", "/etc\n", "", 0},
		{"with variables", []string{"exec", "-e", "A=1 2", "-e", "B=", "trial", "--", "sh", "-c", `echo "$A|$B"`}, "", "1 2|\n", "", 0},
		{"with standard input", []string{"exec", "trial", "--", "tr", "a-z", "A-Z"}, "abc", "ABC", "", 0},
		{"no such program", []string{"exec", "trial", "--", "no-such-program"}, "", "", "devhost: cannot run a command in container trial: ", 127},
		{"not a program", []string{"exec", "trial", "--", "/etc/hosts"}, "", "", "devhost: cannot run a command in container trial: ", 126},
		{"no such user", []string{"exec", "-u", "no-such-user", "trial", "--", "true"}, "", "", "no-such-user", 125},
		{"no command", []string{"exec", "trial"}, "", "", "give a command: devhost exec NAME -- COMMAND", 2},
		{"no such container", []string{"exec", "absent", "--", "true"}, "", "", "there is no container absent", 4},
		{"a bad variable", []string{"exec", "-e", "A", "trial", "--", "true"}, "", "", "give KEY=VALUE", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := h.with(t)
			command := h.command(test.args...)
			command.Stdin = strings.NewReader(test.stdin)
			result := h.finish(command)
			if result.stdout != test.stdout || !strings.Contains(result.stderr, test.stderr) || result.status != test.status {
				t.Errorf("ended with %d, %q and %q; not %d, %q and %q", result.status, result.stdout, result.stderr, test.status, test.stdout, test.stderr)
			}
		})
	}
	t.Run("much data", func(t *testing.T) {
		h := h.with(t)
		data := bytes.Repeat([]byte{0, 1, 0xff, '\n'}, 1<<19)
		command := h.command("exec", "trial", "--", "cat")
		command.Stdin = bytes.NewReader(data)
		if result := h.finish(command); result.stdout != string(data) {
			t.Errorf("%d bytes came back as %d", len(data), len(result.stdout))
		}
	})
}

// checkExecIsClean: nothing of the host gets in, and the command is wholly
// inside.
func checkExecIsClean(t *testing.T, h *host) {
	t.Run("environment", func(t *testing.T) {
		h := h.with(t)
		h.env = []string{"HOST_SECRET=1", "LD_PRELOAD=/nonexistent.so"}
		environment := h.must("exec", "trial", "--", "env")
		if strings.Contains(environment, "HOST_SECRET") || strings.Contains(environment, "LD_PRELOAD") || strings.Contains(environment, killAtVariable) {
			t.Errorf("the host's environment is inside:\n%s", environment)
		}
		if !strings.Contains(environment, "HOME=/root\n") || !regexp.MustCompile(`(?m)^PATH=.*/run/current-system/sw/bin`).MatchString(environment) {
			t.Errorf("the guest's environment is not there:\n%s", environment)
		}
	})
	t.Run("descriptors", func(t *testing.T) {
		h := h.with(t)
		secret, err := os.Open("/etc/hostname")
		if err != nil {
			t.Fatal(err)
		}
		defer secret.Close()
		command := h.command("exec", "trial", "--", "sh", "-c", "ls -l /proc/$$/fd; true")
		command.ExtraFiles = []*os.File{secret, secret}
		result := h.finish(command)
		// The shell of the guest has its three streams, all of them pipes.
		if found := regexp.MustCompile(`(?m) (\d+) -> (.*)$`).FindAllStringSubmatch(result.stdout, -1); len(found) != 3 {
			t.Errorf("the command has these descriptors:\n%s%s", result.stdout, result.stderr)
		}
	})
	t.Run("namespaces", func(t *testing.T) {
		h := h.with(t)
		const links = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/%s/ns/$n; done"
		own, first := h.inside("trial", fmt.Sprintf(links, "self")), h.inside("trial", fmt.Sprintf(links, "1"))
		if own != first || strings.Count(own, "\n") != 6 {
			t.Errorf("the command is in\n%s\nnot in\n%s", own, first)
		}
		host, err := os.Readlink("/proc/self/ns/pid")
		if err != nil || strings.Contains(own, host) {
			t.Errorf("the command is in the host's namespace %s (%v)", host, err)
		}
	})
	t.Run("cgroup", func(t *testing.T) {
		h := h.with(t)
		command := h.command("exec", "trial", "--", "sleep", "86399")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = command.Process.Signal(syscall.SIGTERM)
			_ = command.Wait()
		}()
		var pid int
		waitFor(t, "the command runs", func() bool {
			pid = findProcess("sleep\x0086399\x00")
			return pid != 0
		})
		text := readFile(t, fmt.Sprintf("/proc/%d/cgroup", pid))
		want := "/devhost-" + h.layout.Instance() + "/trial"
		for line := range strings.Lines(text) {
			fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
			// A named hierarchy that is not mounted is nobody's.
			if mounted(fields[1]) && !strings.HasPrefix(fields[2], want) {
				t.Errorf("the command is in cgroup %s, not below %s", line, want)
			}
		}
	})
}

// findProcess is the pid of a command line, 0 for none.
func findProcess(commandLine string) int {
	if pids := findProcesses(commandLine); len(pids) > 0 {
		return pids[0]
	}
	return 0
}

// findProcesses are the pids of a command line.
func findProcesses(commandLine string) []int {
	var pids []int
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if data, err := os.ReadFile(path); err == nil && string(data) == commandLine {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// mounted tells whether the hierarchy of these controllers is mounted.
func mounted(controllers string) bool {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if controllers == "" && fields[2] == "cgroup2" {
			return true
		}
		if fields[2] == "cgroup" && strings.Contains(","+fields[3]+",", ","+controllers+",") {
			return true
		}
	}
	return false
}

func checkExecSignals(t *testing.T, h *host) {
	const script = `trap 'echo int; exit 3' INT; trap 'echo term; exit 4' TERM; trap 'echo usr1; exit 5' USR1; echo up; while :; do sleep 0.05; done`
	for _, test := range []struct {
		signal syscall.Signal
		output string
		status int
	}{{syscall.SIGINT, "int", 3}, {syscall.SIGTERM, "term", 4}, {syscall.SIGUSR1, "usr1", 5}} {
		t.Run(test.output, func(t *testing.T) {
			h := h.with(t)
			command := h.command("exec", "trial", "--", "sh", "-c", script)
			output := &lines{}
			command.Stdout = output
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the command runs", func() bool { return output.text() == "up\n" })
			_ = command.Process.Signal(test.signal)
			_ = command.Wait()
			if status := command.ProcessState.ExitCode(); status != test.status || output.text() != "up\n"+test.output+"\n" {
				t.Errorf("the command ended with %d and %q, not %d", status, output.text(), test.status)
			}
		})
	}
	t.Run("a killed devhost leaves no command", func(t *testing.T) {
		h := h.with(t)
		command := h.command("exec", "trial", "--", "sleep", "86398")
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the command runs", func() bool { return findProcess("sleep\x0086398\x00") != 0 })
		// A hang-up is what a lost terminal sends.
		_ = command.Process.Signal(syscall.SIGHUP)
		_ = command.Wait()
		waitFor(t, "the command has ended", func() bool { return findProcess("sleep\x0086398\x00") == 0 })
	})
}

// seat is somebody at a terminal.
type seat struct {
	t       *testing.T
	file    *os.File
	command *exec.Cmd
	screen  *lines
}

// sitDown starts a command at a terminal of its own.
func sitDown(t *testing.T, command *exec.Cmd, rows, columns uint16) *seat {
	t.Helper()
	command.Env = append(command.Env, "TERM=xterm")
	file, err := pty.StartWithSize(command, &pty.Winsize{Rows: rows, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, file: file, command: command, screen: &lines{}}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = file.Close()
	})
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			_, _ = s.screen.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	return s
}

// types sends keys and waits until the screen shows, after what was there
// before, what the pattern wants.
func (s *seat) types(keys, pattern string) {
	s.t.Helper()
	before := len(s.screen.text())
	if _, err := s.file.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
	wanted := regexp.MustCompile(pattern)
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the screen shows %q", s.screen.text())
		}
	}()
	waitFor(s.t, fmt.Sprintf("after %q there is %s", keys, pattern), func() bool { return wanted.MatchString(s.screen.text()[before:]) })
}

func checkTerminal(t *testing.T, h *host) {
	t.Run("shell", func(t *testing.T) {
		h := h.with(t)
		s := sitDown(t, h.command("shell", "trial"), 30, 100)
		// The echoed command does not match: it has quotes in it.
		s.types("echo rea''dy\r", `ready\r\n`)
		s.types("stty size; tty; echo $TERM\r", `30 100\r\n/dev/pts/\d+\r\nxterm\r\n`)
		if err := pty.Setsize(s.file, &pty.Winsize{Rows: 41, Cols: 133}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the size is the new one", func() bool {
			before := len(s.screen.text())
			s.types("stty size; echo do''ne\r", `done\r\n`)
			return strings.Contains(s.screen.text()[before:], "41 133\r\n")
		})
		// Job control, as with a terminal of one's own.
		s.types("sleep 86397\r", `86397\r\n`)
		waitFor(t, "the command runs", func() bool { return findProcess("sleep\x0086397\x00") != 0 })
		s.types("\x1a", `Stopped`)
		s.types("jobs; bg\r", `sleep 86397 &\r\n`)
		s.types("fg\r", `sleep 86397\r\n`)
		s.types("\x03", `\^C`)
		waitFor(t, "Ctrl-C has ended it", func() bool { return findProcess("sleep\x0086397\x00") == 0 })
		s.types("echo status $?\r", `status 130\r\n`)
		if _, err := s.file.WriteString("exit 9\r"); err != nil {
			t.Fatal(err)
		}
		_ = s.command.Wait()
		if status := s.command.ProcessState.ExitCode(); status != 9 {
			t.Errorf("the shell ended with %d; the screen shows %q", status, s.screen.text())
		}
	})
	t.Run("exec takes the terminal", func(t *testing.T) {
		h := h.with(t)
		s := sitDown(t, h.command("exec", "trial", "--", "sh", "-c", "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; exit 5"), 24, 77)
		_ = s.command.Wait()
		waitFor(t, "the output is there", func() bool { return strings.Contains(s.screen.text(), "24 77\r\nall\r\n") })
		if status := s.command.ProcessState.ExitCode(); status != 5 {
			t.Errorf("ended with %d", status)
		}
	})
	t.Run("exec -T takes none", func(t *testing.T) {
		h := h.with(t)
		s := sitDown(t, h.command("exec", "-T", "trial", "--", "sh", "-c", "tty; echo en''d"), 24, 80)
		_ = s.command.Wait()
		waitFor(t, "the output is there", func() bool { return strings.Contains(s.screen.text(), "not a tty") })
	})
	t.Run("ssh takes the terminal", func(t *testing.T) {
		h := h.with(t)
		s := sitDown(t, h.command("ssh", "trial"), 33, 99)
		s.types("stty size; id -un\r", `33 99\r\ndeveloper\r\n`)
		if _, err := s.file.WriteString("exit 6\r"); err != nil {
			t.Fatal(err)
		}
		_ = s.command.Wait()
		if status := s.command.ProcessState.ExitCode(); status != 6 {
			t.Errorf("ended with %d", status)
		}
	})
}
