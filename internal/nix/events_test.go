package nix

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/terminal"
)

func feed(t testing.TB, parser *logParser, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parser.Line(lines.Text())
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
}

// The captures are what nix-store --realise --log-format internal-json -v of
// that version wrote for three derivations: dh-a and dh-b, then dh-c.
func TestBuildLog(t *testing.T) {
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		t.Run(version, func(t *testing.T) {
			var steps []string
			var last Event
			var plain []string
			parser := newLogParser(func(event Event) {
				switch event.Kind {
				case BuildStarted:
					steps = append(steps, "start "+event.Name+" of "+string(rune('0'+event.ToBuild)))
				case BuildEnded:
					steps = append(steps, "end "+event.Name)
				case BuilderOutput:
					steps = append(steps, event.Name+"> "+event.Line)
				}
				last = event
			}, func(line string) { plain = append(plain, line) })
			feed(t, parser, filepath.Join("testdata", version, "build-ok.txt"))
			want := []string{
				"start dh-X of 3", "dh-X> building X", "dh-X> err X", "end dh-X",
				"start dh-X of 3", "dh-X> building X", "dh-X> err X", "end dh-X",
				"start dh-c of 3", "dh-c> building c", "dh-c> err c", "end dh-c",
			}
			for i, step := range steps {
				if i < 8 {
					// Which of the two comes first depends on their hashes.
					steps[i] = strings.NewReplacer("dh-a", "dh-X", "dh-b", "dh-X", "building a", "building X", "building b", "building X", "err a", "err X", "err b", "err X").Replace(step)
				}
			}
			if diff := cmp.Diff(want, steps); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if last.Built != 3 || last.ToBuild != 3 || last.Current != "" {
				t.Errorf("the last event is %+v", last)
			}
			if text := strings.Join(plain, "\n"); !strings.Contains(text, "these 3 derivations will be built:") || !strings.Contains(text, "dh-c> building c") || strings.Contains(text, "@nix") {
				t.Errorf("the readable log is:\n%s", text)
			}
		})
	}
}

func TestDownloadLog(t *testing.T) {
	for version, size := range map[string]int64{"2.8": 216, "2.26": 220} {
		t.Run(version, func(t *testing.T) {
			var last Event
			parser := newLogParser(func(event Event) { last = event }, nil)
			feed(t, parser, filepath.Join("testdata", version, "prefetch-ok.txt"))
			if last.Fetched != size || last.ToFetch != size {
				t.Errorf("%d of %d bytes, want all of %d", last.Fetched, last.ToFetch, size)
			}
			parser = newLogParser(nil, nil)
			feed(t, parser, filepath.Join("testdata", version, "prefetch-truncated.txt"))
			if len(parser.messages) != 1 || !strings.Contains(parser.messages[0], "failed to open archive") {
				t.Errorf("messages: %q", parser.messages)
			}
		})
	}
}

func TestBuildFailure(t *testing.T) {
	const asked = "/nix/store/00000000000000000000000000000000-top.drv"
	exited := &execx.Error{Argv: []string{"nix-store"}, ExitCode: 1}
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		t.Run(version, func(t *testing.T) {
			parser := newLogParser(nil, nil)
			feed(t, parser, filepath.Join("testdata", version, "build-fail.txt"))
			err := buildFailure(context.Background(), exited, asked, parser, BuildOptions{Log: "/var/log/build.log"})
			var failure *BuildError
			if !errors.As(err, &failure) {
				t.Fatalf("got %T", err)
			}
			if len(failure.Lines) != 4 || failure.Lines[0] != "one" || failure.Lines[3] != "third line" {
				t.Errorf("lines: %q", failure.Lines)
			}
			failure.Lines[2] = "TIME"
			failure.DrvPath = "/nix/store/11111111111111111111111111111111-dh-broken.drv"
			want := `the build of dh-broken failed with exit code 3; its last lines:
  > one
  > two
  > TIME
  > third line
All of its log: nix-store --read-log /nix/store/11111111111111111111111111111111-dh-broken.drv
The log of the whole build is in /var/log/build.log`
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
		})
	}
	for name, test := range map[string]struct{ message, drv, reason string }{
		"since 2.31": {
			"error: Cannot build '/nix/store/22222222222222222222222222222222-x.drv'.\n       Reason: builder failed with exit code 7.\n       Output paths:\n         /nix/store/33333333333333333333333333333333-x",
			"/nix/store/22222222222222222222222222222222-x.drv", "failed with exit code 7",
		},
		"a dependency is not the cause": {
			"error: Cannot build '/nix/store/22222222222222222222222222222222-x.drv'.\n       Reason: 1 dependency failed.",
			asked, "failed: Cannot build '/nix/store/22222222222222222222222222222222-x.drv'.\n       Reason: 1 dependency failed.",
		},
		"by a signal": {
			"error: builder for '/nix/store/22222222222222222222222222222222-x.drv' failed due to signal 9 (Killed)",
			"/nix/store/22222222222222222222222222222222-x.drv", "failed due to signal 9 (Killed)",
		},
		"no output": {
			"error: builder for '/nix/store/22222222222222222222222222222222-x.drv' failed to produce output path for output 'out' at '/x'",
			"/nix/store/22222222222222222222222222222222-x.drv", "failed to produce output path for output 'out' at '/x'",
		},
		"a hash": {
			"error: hash mismatch in fixed-output derivation '/nix/store/22222222222222222222222222222222-x.drv':\n         specified: sha256-A\n            got:    sha256-B",
			"/nix/store/22222222222222222222222222222222-x.drv", "failed: hash mismatch in fixed-output derivation '/nix/store/22222222222222222222222222222222-x.drv':\n         specified: sha256-A\n            got:    sha256-B",
		},
		"Nix itself": {
			"error: this system does not support the kernel namespaces that are required for sandboxing",
			asked, "failed: this system does not support the kernel namespaces that are required for sandboxing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			parser := newLogParser(nil, nil)
			parser.Line(test.message)
			err := buildFailure(context.Background(), exited, asked, parser, BuildOptions{})
			var failure *BuildError
			if !errors.As(err, &failure) {
				t.Fatalf("got %T", err)
			}
			if failure.DrvPath != test.drv || failure.Reason != test.reason {
				t.Errorf("got %q, %q", failure.DrvPath, failure.Reason)
			}
		})
	}
}

func FuzzBuildLog(f *testing.F) {
	for _, version := range []string{"2.8", "2.26", "2.34"} {
		for _, name := range []string{"build-ok.txt", "build-fail.txt"} {
			data, err := os.ReadFile(filepath.Join("testdata", version, name))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Add(`@nix {"action":"result","fields":[],"id":0,"type":101}`)
	f.Add(`@nix {"action":"start","fields":[{}],"id":18446744073709551615,"type":105}`)
	f.Fuzz(func(t *testing.T, text string) {
		parser := newLogParser(func(event Event) {
			if event.Line != terminal.Line(event.Line) {
				t.Errorf("%q can drive a terminal", event.Line)
			}
		}, func(string) {})
		for _, line := range strings.Split(text, "\n") {
			parser.Line(line)
		}
		for drv, tail := range parser.tails {
			if len(tail) > keptBuilderLines {
				t.Errorf("%d lines of %s are kept", len(tail), drv)
			}
		}
	})
}
