package progress

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock advances by hand.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }
func newClock() *clock                   { return &clock{time.Unix(0, 0)} }
func started(name string, done, total int) BuildStatus {
	return BuildStatus{Started: true, Name: name, Done: done, Total: total}
}

// run plays a whole ensure.
func run(reporter Reporter, clock *clock) {
	reporter.Phase(Resolve)
	clock.advance(300 * time.Millisecond)
	reporter.Note("channel nixos-26.05 is pinned")
	reporter.Warn("provision.nix:3: a password in clear text")
	reporter.Phase(Evaluate)
	clock.advance(12 * time.Second)
	reporter.Phase(Build)
	reporter.Build(BuildStatus{Total: 2})
	reporter.Build(started("nginx.conf", 0, 2))
	clock.advance(time.Second)
	reporter.Build(BuildStatus{Done: 1, Total: 2})
	reporter.Build(started("nixos-system", 1, 2))
	reporter.Build(BuildStatus{Name: "nixos-system", Done: 1, Total: 2, Fetched: 1 << 20, ToFetch: 5 << 20})
	clock.advance(80 * time.Second)
	reporter.Build(BuildStatus{Done: 2, Total: 2})
	reporter.Phase(Start)
	clock.advance(time.Second)
	reporter.Phase(Ready)
	reporter.Detail("Started nginx.\x1b[2J")
	clock.advance(500 * time.Millisecond)
	reporter.Done("container demo is ready")
}

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	clock := newClock()
	run(Plain(&out, clock.Now), clock)
	want := `channel: resolving the channel
channel nixos-26.05 is pinned
warning: provision.nix:3: a password in clear text
evaluate: evaluating the configuration
build: building the system
build: 1 of 2, nginx.conf
build: 2 of 2, nixos-system
start: starting the container
ready: waiting until it answers
container demo is ready (1 min 35 s)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	run(Quiet(&out), newClock())
	if diff := cmp.Diff("warning: provision.nix:3: a password in clear text\n", out.String()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// screen shows what a terminal does with what was written: lines that stay,
// and the live line.
func screen(out string) (lines []string, live string) {
	for _, part := range strings.SplitAfter(out, "\n") {
		text, ended := strings.CutSuffix(part, "\n")
		if i := strings.LastIndex(text, eraseLine); i >= 0 {
			text = text[i+len(eraseLine):]
		}
		if ended {
			lines = append(lines, text)
		} else {
			live = text
		}
	}
	return lines, live
}

func TestLive(t *testing.T) {
	var out bytes.Buffer
	clock := newClock()
	run(Live(&out, LiveOptions{Width: func() int { return 80 }, Now: clock.Now}), clock)
	lines, live := screen(out.String())
	want := []string{
		"channel nixos-26.05 is pinned",
		"warning: provision.nix:3: a password in clear text",
		"✓ channel   0.3 s",
		"✓ evaluate  12 s",
		"✓ build     1 min 21 s, 2 built",
		"✓ start     1.0 s",
		"✓ ready     0.5 s",
		"container demo is ready (1 min 35 s)",
	}
	if diff := cmp.Diff(want, lines); diff != "" || live != "" {
		t.Errorf("lines, then %q (-want +got):\n%s", live, diff)
	}
	if strings.Contains(out.String(), "[2J") && strings.Contains(out.String(), "\x1b[2J") {
		t.Error("a guest's log line drives the terminal")
	}
	if strings.Contains(out.String(), "\x1b[3") {
		t.Error("there are colours without Color")
	}
}

func TestLiveLine(t *testing.T) {
	for name, test := range map[string]struct {
		options LiveOptions
		width   int
		play    func(Reporter, *clock)
		want    string
	}{
		"a phase": {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase(Evaluate) }, "⠋ evaluate  evaluating the configuration"},
		"a build": {LiveOptions{}, 80, func(r Reporter, c *clock) {
			r.Phase(Build)
			c.advance(4 * time.Second)
			r.Build(started("nginx.conf", 2, 12))
		}, "⠋ build     3 of 12  nginx.conf  4 s"},
		"a download": {LiveOptions{}, 80, func(r Reporter, _ *clock) {
			r.Phase(Resolve)
			r.Build(BuildStatus{Fetched: 1 << 20, ToFetch: 3 << 20})
		}, "⠋ channel   resolving the channel  (1.0 MiB of 3.0 MiB)"},
		"a detail": {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase(Ready); r.Detail("Starting nginx") }, "⠋ ready     waiting until it answers  · Starting nginx"},
		"narrow": {LiveOptions{}, 30, func(r Reporter, c *clock) {
			r.Phase(Build)
			c.advance(4 * time.Second)
			r.Build(started("a-very-long-name-of-a-derivation", 2, 12))
		}, "⠋ build     3 of 12  a-…  4 s"},
		"very narrow":          {LiveOptions{}, 12, func(r Reporter, _ *clock) { r.Phase(Evaluate) }, "⠋ evaluate…"},
		"wide letters":         {LiveOptions{}, 40, func(r Reporter, _ *clock) { r.Phase(Ready); r.Detail(strings.Repeat("漢", 30)) }, "⠋ ready     waiting until it answers  …"},
		"ASCII":                {LiveOptions{ASCII: true}, 30, func(r Reporter, _ *clock) { r.Phase(Ready); r.Detail("x") }, "| ready     waiting until ..."},
		"colours":              {LiveOptions{Color: true}, 80, func(r Reporter, c *clock) { r.Phase(Start); c.advance(time.Second); r.Detail("") }, "\x1b[33m⠋\x1b[0m start     starting the container\x1b[2m  1 s\x1b[0m"},
		"after a note":         {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase(Start); r.Note("x") }, "⠋ start     starting the container"},
		"after other output":   {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase(Start); fmt.Fprintln(r.Writer(), "x") }, "⠋ start     starting the container"},
		"a phase of one's own": {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase("making the VM"); r.Detail("") }, "⠋ making the VM ..."},
		"failed":               {LiveOptions{}, 80, func(r Reporter, _ *clock) { r.Phase(Start); r.Failed() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			clock := newClock()
			test.options.Width, test.options.Now = func() int { return test.width }, clock.Now
			test.play(Live(&out, test.options), clock)
			_, live := screen(out.String())
			if live != test.want {
				t.Errorf("got  %q\nwant %q", live, test.want)
			}
			plain := strings.NewReplacer("\x1b[33m", "", "\x1b[0m", "", "\x1b[2m", "").Replace(live)
			if columns := columnsOf(plain); columns >= test.width+len("⠋")-1 {
				t.Errorf("the line has %d columns of %d", columns, test.width)
			}
		})
	}
}

func TestLiveFailed(t *testing.T) {
	var out bytes.Buffer
	clock := newClock()
	reporter := Live(&out, LiveOptions{Width: func() int { return 80 }, Now: clock.Now})
	reporter.Phase(Build)
	reporter.Build(started("x", 1, 3))
	clock.advance(2 * time.Second)
	reporter.Failed()
	reporter.Failed()
	lines, live := screen(out.String())
	if diff := cmp.Diff([]string{"✗ build     2.0 s, 1 built, failed"}, lines); diff != "" || live != "" {
		t.Errorf("lines, then %q (-want +got):\n%s", live, diff)
	}
}

// All methods may be called from several goroutines while it ticks. Run with
// -race, this looks for data races; without, for a live line that comes after
// the end.
func TestLiveTicks(t *testing.T) {
	var out safeBuffer
	reporter := Live(&out, LiveOptions{Width: func() int { return 80 }, Now: time.Now, Tick: time.Microsecond})
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 20 {
				reporter.Phase([]Phase{Resolve, Evaluate, Build, Start}[i])
				reporter.Build(started("x", i, 4))
				reporter.Detail("y")
				fmt.Fprintln(reporter.Writer(), "z")
			}
		})
	}
	group.Wait()
	reporter.Done("end")
	after := out.String()
	time.Sleep(5 * time.Millisecond)
	if now := out.String(); now != after {
		t.Errorf("after the end came %q", now[len(after):])
	}
	if _, live := screen(after); live != "" {
		t.Errorf("the live line %q is left", live)
	}
}

type safeBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (s *safeBuffer) Write(data []byte) (int, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.buffer.Write(data)
}

func (s *safeBuffer) String() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.buffer.String()
}

func TestFor(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, ok := For(file, false).(*plain); !ok {
		t.Errorf("a file gets %T", For(file, false))
	}
	if _, ok := For(file, true).(*quiet); !ok {
		t.Errorf("--quiet gets %T", For(file, true))
	}
}

func TestUTF8Locale(t *testing.T) {
	for name, test := range map[string]struct {
		variables map[string]string
		want      bool
	}{
		"none":      {nil, false},
		"LANG":      {map[string]string{"LANG": "de_DE.UTF-8"}, true},
		"C.utf8":    {map[string]string{"LANG": "C.utf8"}, true},
		"LC_ALL":    {map[string]string{"LANG": "de_DE.UTF-8", "LC_ALL": "C"}, false},
		"empty one": {map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": ""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := utf8Locale(func(variable string) string { return test.variables[variable] }); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 1234 * time.Millisecond: "1.2 s", 9949 * time.Millisecond: "9.9 s", 9951 * time.Millisecond: "10 s",
		59400 * time.Millisecond: "59 s", 59900 * time.Millisecond: "60 s", 125 * time.Second: "2 min 05 s", time.Hour: "60 min 00 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}
