//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// zeros are n fields of /proc/PID/stat that nobody looks at.
func zeros(n int) string { return strings.Repeat(" 0", n) }

func TestParseStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       Stat
		wantError  string
	}{
		{"plain", "42 (sh) S 1" + zeros(15) + " 2 0 777" + zeros(29) + " 0\n", Stat{ID: ID{42, 777}, State: 'S', Parent: 1, Threads: 2}, ""},
		{"a name that looks like the rest", "42 (a) Z 9 (b) R 1" + zeros(17) + " 777" + zeros(29) + " 34048\n", Stat{ID: ID{42, 777}, State: 'R', Parent: 1, ExitCode: 34048}, ""},
		{"empty", "", Stat{}, "no process status"},
		{"no name", "42 S 1", Stat{}, "no process status"},
		{"short", "42 (sh) S 1 2 3", Stat{}, "short process status"},
		{"no number", "x (sh) S 1" + zeros(48), Stat{}, "no process status"},
		{"no parent", "42 (sh) S x" + zeros(48), Stat{}, "parent"},
		{"no threads", "42 (sh) S 1" + zeros(15) + " x" + zeros(32), Stat{}, "threads"},
		{"no start", "42 (sh) S 1" + zeros(17) + " x" + zeros(30), Stat{}, "start"},
		{"no exit code", "42 (sh) S 1" + zeros(17) + " 5" + zeros(29) + " x", Stat{}, "exit code"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseStat([]byte(test.text))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
			if fmt.Sprint(err) != "<nil>" && (test.wantError == "" || !strings.Contains(err.Error(), test.wantError)) || (err == nil) != (test.wantError == "") {
				t.Errorf("error %v, want %q", err, test.wantError)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sh) S 1" + zeros(17) + " 777" + zeros(30)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if stat, err := ParseStat(text); err != nil && stat != (Stat{}) {
			t.Errorf("with error %v: %+v", err, stat)
		}
	})
}

func TestProcess(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	child, err := execx.New().Start(execx.Command{Name: "cat", Stdin: reader})
	if err != nil {
		t.Fatal(err)
	}
	reaped := false
	defer func() {
		_ = writer.Close()
		if !reaped {
			_ = child.Wait()
		}
	}()
	id, err := Of(child.Pid())
	if err != nil {
		t.Fatal(err)
	}
	other := ID{PID: id.PID, Start: id.Start + 1}
	if !id.Alive() || other.Alive() || (ID{}).Alive() {
		t.Errorf("alive: the child %v, another process %v, none %v", id.Alive(), other.Alive(), (ID{}).Alive())
	}
	for what, dead := range map[string]ID{"another process": other, "none": {}} {
		if err := dead.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("a signal to %s: %v", what, err)
		}
		if err := dead.Wait(t.Context()); err != nil {
			t.Errorf("waiting for %s: %v", what, err)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := id.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a living process: %v", err)
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := id.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet: a zombie.
	if stat, err := Read(id.PID); err != nil || stat.State != 'Z' || stat.ExitCode != int(syscall.SIGKILL) {
		t.Errorf("the killed child is %+v, %v", stat, err)
	}
	if id.Alive() {
		t.Error("a zombie is alive")
	}
	reaped = true
	if err := child.Wait(); err == nil {
		t.Error("the child was not killed")
	}
	if err := id.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to the dead: %v", err)
	}
}

func TestBootID(t *testing.T) {
	if len(BootID()) != 36 {
		t.Errorf("the id of this boot is %q", BootID())
	}
}

func TestDead(t *testing.T) {
	tests := []struct {
		name string
		stat Stat
		want bool
	}{
		{"sleeping", Stat{State: 'S', Threads: 1}, false},
		{"zombie", Stat{State: 'Z', Threads: 1}, true},
		{"zombie whose parent takes note", Stat{State: 'Z'}, true},
		{"dead", Stat{State: 'X'}, true},
		{"first thread of a process that is being killed", Stat{State: 'Z', Threads: 7}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.stat.Dead(); got != test.want {
				t.Errorf("dead: %v", got)
			}
		})
	}
}
