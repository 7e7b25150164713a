// Package progress is what a person sees while waiting: one live line on a
// terminal, plain lines elsewhere, nothing with --quiet.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Phase is a part of the work that a person knows.
type Phase string

// The phases of bringing up a container, in their usual order.
const (
	Resolve  Phase = "channel"
	Copy     Phase = "copy"
	Evaluate Phase = "evaluate"
	Build    Phase = "build"
	Switch   Phase = "switch"
	Start    Phase = "start"
	Ready    Phase = "ready"
	Services Phase = "services"
	Stop     Phase = "stop"
	Remove   Phase = "remove"
	// Duplicate is for the files of a container.
	Duplicate Phase = "duplicate"
	Archive   Phase = "archive"
	Unpack    Phase = "unpack"
)

var describe = map[Phase]string{
	Resolve:   "resolving the channel",
	Copy:      "copying the provision to the store",
	Evaluate:  "evaluating the configuration",
	Build:     "building the system",
	Switch:    "switching to the new system",
	Start:     "starting the container",
	Ready:     "waiting until it answers",
	Services:  "waiting for its services",
	Stop:      "stopping the container",
	Remove:    "removing the container",
	Duplicate: "copying the container's files",
	Archive:   "archiving the container",
	Unpack:    "taking the files out of the archive",
}

// description says what goes on in a phase. Callers may have phases of their
// own, which say it by their name.
func (p Phase) description() string {
	if text, ok := describe[p]; ok {
		return text
	}
	return string(p) + " ..."
}

// BuildStatus is how far a build is.
type BuildStatus struct {
	// Started says that the build Name has just started; else only the other
	// fields changed.
	Started bool
	// Name is the build that runs now, "" if none does.
	Name string
	// Done of Total builds have ended.
	Done, Total int
	// Fetched of ToFetch bytes are downloaded.
	Fetched, ToFetch int64
}

// Reporter is told what goes on. All of its methods may be called from several
// goroutines.
type Reporter interface {
	// Phase starts a phase and so ends the one before it.
	Phase(phase Phase)
	// Build reports on the phase Build.
	Build(status BuildStatus)
	// Detail shows what the phase waits for. Only a terminal shows it.
	Detail(text string)
	// Note prints a line that stays.
	Note(text string)
	// Warn prints a line that stays, with --quiet too.
	Warn(text string)
	// Done ends the last phase and prints a line with the time that all took.
	// An empty text prints none.
	Done(text string)
	// Failed ends the phase that runs as failed. The caller prints the error.
	Failed()
	// Writer is where the caller may write whole lines between the calls
	// above without meeting the live line.
	Writer() io.Writer
}

// For picks the Reporter for a stream, which should be standard error: live on
// a terminal, plain elsewhere (and where TERM is dumb), quiet if asked for.
// NO_COLOR and the locale are respected.
func For(stream *os.File, quiet bool) Reporter {
	switch {
	case quiet:
		return Quiet(stream)
	case !term.IsTerminal(int(stream.Fd())) || os.Getenv("TERM") == "dumb":
		return Plain(stream, time.Now)
	}
	return Live(stream, liveOptions(stream))
}

// liveOptions describe a stream that is a terminal.
func liveOptions(stream *os.File) LiveOptions {
	return LiveOptions{
		Width: func() int {
			width, _, err := term.GetSize(int(stream.Fd()))
			if err != nil || width <= 0 {
				return 80
			}
			return width
		},
		Color: os.Getenv("NO_COLOR") == "",
		ASCII: !utf8Locale(os.Getenv),
		Now:   time.Now,
		Tick:  100 * time.Millisecond,
	}
}

// utf8Locale says whether the terminal can be expected to show UTF-8.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := strings.ToLower(getenv(name)); value != "" {
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}

// duration writes a time as people read it: 0.3 s, 12 s, 2 min 05 s.
func duration(d time.Duration) string {
	switch {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	seconds := int(d.Round(time.Second) / time.Second)
	return fmt.Sprintf("%d min %02d s", seconds/60, seconds%60)
}

func size(bytes int64) string {
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// clean makes foreign text (builders, guests) fit for one line of a terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || (r >= 0x7f && r <= 0x9f) || (r >= 0x200b && r <= 0x200f) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069):
			return -1
		}
		return r
	}, text)
}

// fit cuts a text to a number of columns. Wide characters count twice.
func fit(text string, columns int, ellipsis string) string {
	used := 0
	for i, r := range text {
		width := 1
		if r >= 0x1100 {
			width = 2
		}
		// The ellipsis itself is one column, or as long as it is in ASCII.
		if used+width > columns-len([]rune(ellipsis)) && columnsOf(text[i:]) > columns-used {
			return text[:i] + ellipsis
		}
		used += width
	}
	return text
}

func columnsOf(text string) int {
	columns := 0
	for _, r := range text {
		columns++
		if r >= 0x1100 {
			columns++
		}
	}
	return columns
}
