package devhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/cli/cliargs"
	"devhost/internal/container"
	"devhost/internal/execx"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/registry"
)

func TestReorderPutsFlagsBeforeTheName(t *testing.T) {
	a := &app{streams: Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}}
	for name, test := range map[string]struct{ typed, want string }{
		"flags after the name": {"devhost ensure demo --channel ./c --json", "devhost ensure --channel ./c --json demo"},
		"flag with equals":     {"devhost ensure demo --channel=./c --alias www", "devhost ensure --channel=./c --alias www demo"},
		"global flags":         {"devhost --state-dir /s -q ensure demo --json", "devhost --state-dir /s -q ensure --json demo"},
		"global flag behind":   {"devhost list --state-dir /s --json -q", "devhost --state-dir /s -q list --json"},
		"missing value":        {"devhost ensure demo --channel", "devhost ensure --channel"},
		"standard input":       {"devhost ensure demo --provision -", "devhost ensure --provision - demo"},
		"exec keeps its order": {"devhost exec demo ls -l", "devhost exec demo ls -l"},
		"ssh keeps its order":  {"devhost ssh demo -L 1:h:2", "devhost ssh demo -L 1:h:2"},
		"end of flags":         {"devhost stop -- --odd", "devhost stop -- --odd"},
		"command of a group":   {"devhost snapshot create demo one --stop -q", "devhost -q snapshot create --stop demo one"},
		"group alone":          {"devhost snapshot --json", "devhost snapshot --json"},
		"unknown in a group":   {"devhost snapshot crate demo --stop", "devhost snapshot crate demo --stop"},
		"nothing":              {"devhost", "devhost"},
		"unknown command":      {"devhost foo --bar", "devhost foo --bar"},
	} {
		t.Run(name, func(t *testing.T) {
			got := a.reorder(a.command(), strings.Fields(test.typed))
			if diff := cmp.Diff(strings.Fields(test.want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	invalid := names.Container("../x")
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		want int
	}{
		"done":          {context.Background(), nil, 0},
		"anything else": {context.Background(), errors.New("x"), 1},
		"usage":         {context.Background(), &cliargs.UsageError{Err: errors.New("x")}, 2},
		"name":          {context.Background(), fmt.Errorf("alias: %w", invalid), 2},
		"degraded":      {context.Background(), degradedError{}, 3},
		"missing":       {context.Background(), &registry.NotRegistered{Name: "x"}, 4},
		"busy":          {context.Background(), &registry.Locked{What: "x"}, 5},
		"host":          {context.Background(), &cliargs.HostError{Err: errors.New("x")}, 6},
		"build users":   {context.Background(), &container.Failure{Err: &nix.NoBuildUsers{Group: "nixbld"}}, 6},
		"interrupted":   {cancelled, &container.Failure{Err: context.Canceled}, 130},
		"not by us":     {context.Background(), context.Canceled, 1},
		"command":       {context.Background(), &cliargs.StatusError{Status: 42}, 42},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(test.ctx, test.err); got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
		})
	}
}

func TestPassStatus(t *testing.T) {
	var status *cliargs.StatusError
	if err := cliargs.PassStatus(&execx.Error{Argv: []string{"ssh"}, ExitCode: 255}); !errors.As(err, &status) || status.Status != 255 {
		t.Errorf("exit code: %v", err)
	}
	if err := cliargs.PassStatus(&execx.Error{Argv: []string{"ssh"}, ExitCode: -1, Signal: 15}); !errors.As(err, &status) || status.Status != 143 {
		t.Errorf("signal: %v", err)
	}
	if err := cliargs.PassStatus(&execx.Error{Argv: []string{"ssh"}, NotFound: true}); errors.As(err, &status) {
		t.Errorf("a missing program is an error of ours: %v", err)
	}
	if err := cliargs.PassStatus(nil); err != nil {
		t.Error(err)
	}
}

func TestPickGenerations(t *testing.T) {
	generations := []nix.Generation{{Number: 2}, {Number: 5}, {Number: 6, Current: true}, {Number: 7}}
	for name, test := range map[string]struct {
		numbers  []string
		from, to int
		message  string
	}{
		"none":       {nil, 5, 6, ""},
		"from":       {[]string{"2"}, 2, 6, ""},
		"both":       {[]string{"7", "2"}, 7, 2, ""},
		"missing":    {[]string{"3"}, 0, 0, "has no generation 3; see: devhost generations demo"},
		"no number":  {[]string{"x"}, 0, 0, `"x" is no number`},
		"missing to": {[]string{"2", "9"}, 0, 0, "has no generation 9"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to, err := pickGenerations("demo", generations, test.numbers)
			if test.message != "" {
				if err == nil || !strings.Contains(err.Error(), test.message) {
					t.Errorf("error %v, want %q", err, test.message)
				}
				return
			}
			if err != nil || from.Number != test.from || to.Number != test.to {
				t.Errorf("%d -> %d, %v; want %d -> %d", from.Number, to.Number, err, test.from, test.to)
			}
		})
	}
	if _, _, err := pickGenerations("demo", generations[:1], nil); err == nil {
		t.Error("without a current generation there is nothing to compare")
	}
	if _, _, err := pickGenerations("demo", []nix.Generation{{Number: 1, Current: true}}, nil); err == nil {
		t.Error("there is none before the first")
	}
}

func TestCopyLastLines(t *testing.T) {
	long := strings.Repeat("x", 40_000) + "\n"
	for name, test := range map[string]struct {
		content string
		lines   int
		want    string
	}{
		"empty":            {"", 3, ""},
		"fewer":            {"a\nb\n", 3, "a\nb\n"},
		"exact":            {"a\nb\nc\n", 3, "a\nb\nc\n"},
		"more":             {"a\nb\nc\nd\n", 2, "c\nd\n"},
		"unfinished":       {"a\nb\nc", 2, "b\nc"},
		"all":              {"a\nb\n", 0, "a\nb\n"},
		"blank lines":      {"a\n\n\n", 2, "\n\n"},
		"longer than read": {"a\n" + long + "b\n", 2, long + "b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			var got bytes.Buffer
			if err := copyLastLines(&got, file, test.lines); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// received is a writer that tells when it has got a text.
type received struct {
	mutex sync.Mutex
	text  strings.Builder
	more  chan struct{}
}

func (r *received) Write(data []byte) (int, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.text.Write(data)
	select {
	case r.more <- struct{}{}:
	default:
	}
	return len(data), nil
}

func (r *received) waitFor(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		r.mutex.Lock()
		got := r.text.String()
		r.mutex.Unlock()
		if got == want {
			return
		}
		select {
		case <-r.more:
		case <-deadline:
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestFollowGoesOnAfterARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(text string) {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	out := &received{more: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- follow(ctx, out, nil, path) }()
	write("one\n")
	out.waitFor(t, "one\n")
	write("two\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	out.waitFor(t, "one\ntwo\nthree\n")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
