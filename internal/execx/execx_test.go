package execx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sh(script string) Command { return Command{Name: "sh", Args: []string{"-c", script}} }

func TestRunErrors(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, test := range map[string]struct {
		ctx     context.Context
		command Command
		check   func(*Error) bool
		message string
	}{
		"exit code": {context.Background(), sh("echo out; echo why >&2; exit 3"), func(e *Error) bool { return e.ExitCode == 3 },
			"sh -c 'echo out; echo why >&2; exit 3': ended with exit code 3\n  why"},
		"silent stderr": {context.Background(), sh("echo out; exit 1"), func(e *Error) bool { return cmp.Equal(e.Tail, []string{"out"}) }, "out"},
		"signal":        {context.Background(), sh("kill -TERM $$"), func(e *Error) bool { return e.Signal == syscall.SIGTERM && e.ExitCode == -1 }, "signal 15"},
		"not found":     {context.Background(), Command{Name: "no-such-program"}, func(e *Error) bool { return e.NotFound }, `program "no-such-program" was not found`},
		"no folder":     {context.Background(), Command{Name: "true", Dir: "/no/such"}, func(e *Error) bool { return e.Err != nil }, "/no/such"},
		"timed out":     {context.Background(), Command{Name: "sleep", Args: []string{"60"}, Timeout: 20 * time.Millisecond}, func(e *Error) bool { return e.TimedOut && errors.Is(e, context.DeadlineExceeded) }, "took too long"},
		"cancelled":     {cancelled, sh("sleep 60"), func(e *Error) bool { return e.Cancelled && errors.Is(e, context.Canceled) }, "was interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			err := New().Run(test.ctx, test.command)
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("Run = %v", err)
			}
			if !test.check(failure) || !strings.Contains(err.Error(), test.message) {
				t.Errorf("Run = %+v\n%v", failure, err)
			}
		})
	}
}

func TestTailIsBounded(t *testing.T) {
	err := New().Run(context.Background(), sh("seq 1 1000 >&2; exit 1"))
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatal(err)
	}
	if len(failure.Tail) != tailLines || failure.Tail[tailLines-1] != "1000" {
		t.Errorf("tail of %d lines ends with %q", len(failure.Tail), failure.Tail[len(failure.Tail)-1])
	}
}

func TestOutputAndCredential(t *testing.T) {
	output, err := New().Output(context.Background(), Command{Name: "sh", Args: []string{"-c", "printf '%s' \"$A\""}, Env: []string{"A=b c"}})
	if err != nil || string(output) != "b c" {
		t.Errorf("Output = %q, %v", output, err)
	}
	if syscall.Geteuid() != 0 {
		t.Skip("changing the user needs root")
	}
	output, err = New().Output(context.Background(), Command{Name: "id", Args: []string{"-u", "-G"}, Credential: &Credential{UID: 65534, GID: 65534}})
	if err == nil {
		t.Errorf("id -u -G printed %q", output)
	}
	output, err = New().Output(context.Background(), Command{Name: "id", Args: []string{"-G"}, Credential: &Credential{UID: 65534, GID: 65534}})
	if err != nil || string(output) != "65534\n" {
		t.Errorf("groups %q, %v: root's groups must be gone", output, err)
	}
}

// TestCancelReachesTheGroup: a child that ignores the interrupt is killed with
// its parent.
func TestCancelReachesTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	started := &LineWriter{Line: func(string) { cancel() }}
	command := sh("trap '' INT; sleep 300 & echo $!; wait")
	var child bytes.Buffer
	command.Stdout = writers{&child, started}
	command.Grace = 50 * time.Millisecond
	err := New().Run(ctx, command)
	var failure *Error
	if !errors.As(err, &failure) || !failure.Cancelled {
		t.Fatalf("Run = %v", err)
	}
	var pid int
	if _, err := fmt.Sscan(child.String(), &pid); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for syscall.Kill(pid, 0) == nil && !zombie(pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("child %d still runs", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type writers []interface{ Write([]byte) (int, error) }

func (w writers) Write(data []byte) (int, error) {
	for _, writer := range w {
		if _, err := writer.Write(data); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

func zombie(pid int) bool {
	output, _ := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return strings.HasPrefix(string(output), "Z")
}

func TestQuote(t *testing.T) {
	argv := []string{"a", "", "b c", "it's", "$x;", "-o=/p", "ü"}
	want := `a '' 'b c' 'it'\''s' '$x;' -o=/p 'ü'`
	if got := Quote(argv); got != want {
		t.Errorf("Quote = %s, want %s", got, want)
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	writer := &LineWriter{Line: func(line string) { got = append(got, line) }}
	for _, part := range []string{"a", "b\r\nc\n", "\n", "last"} {
		if _, err := writer.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ab", "c", "", "last"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
