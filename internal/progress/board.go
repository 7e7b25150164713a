package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Board shows several things that go on at the same time, each on a line of its
// own: live on a terminal, plain lines elsewhere. Its methods and those of its
// tracks may be called from several goroutines.
type Board struct {
	mutex   sync.Mutex
	stream  io.Writer
	options LiveOptions
	live    bool
	quiet   bool
	tracks  []*Track
	widest  int
	// drawn is how many lines the live part takes now.
	drawn int
	frame int
	stop  chan struct{}
}

// Track is one line of a Board.
type Track struct {
	board *Board
	label string
	start time.Time
	text  string
	// ended is the mark of a track that is over, "" before.
	ended, color string
	took         time.Duration
}

// PlainBoard prints lines, also on a terminal. With quiet these are warnings only.
func PlainBoard(stream io.Writer, quiet bool) *Board {
	return &Board{stream: stream, quiet: quiet, options: LiveOptions{Now: time.Now}}
}

// BoardFor picks the Board for a stream, as For picks a Reporter. Close ends it.
func BoardFor(stream *os.File, quiet bool) *Board {
	board := PlainBoard(stream, quiet)
	if quiet || !term.IsTerminal(int(stream.Fd())) || os.Getenv("TERM") == "dumb" {
		return board
	}
	board.live = true
	board.options = liveOptions(stream)
	board.stop = make(chan struct{})
	go board.tick()
	return board
}

func (b *Board) tick() {
	ticker := time.NewTicker(b.options.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-ticker.C:
			b.mutex.Lock()
			b.frame++
			b.draw()
			b.mutex.Unlock()
		}
	}
}

// Close leaves the last state of each track.
func (b *Board) Close() {
	if b.stop != nil {
		close(b.stop)
		b.stop = nil
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.draw()
	b.drawn = 0
}

// Track adds a line with a label.
func (b *Board) Track(label string) *Track {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	track := &Track{board: b, label: clean(label), start: b.options.Now()}
	b.tracks = append(b.tracks, track)
	b.widest = max(b.widest, columnsOf(track.label))
	return track
}

// Note prints a line that stays, above the tracks.
func (b *Board) Note(text string) {
	if !b.quiet {
		b.print(clean(text))
	}
}

// Warn prints a line that stays, with --quiet too.
func (b *Board) Warn(text string) { b.print("warning: " + clean(text)) }

func (b *Board) print(line string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.erase()
	// A closed standard error is no reason to stop the work.
	_, _ = fmt.Fprintln(b.stream, line)
	b.draw()
}

// Step says what goes on now. A plain board prints it.
func (t *Track) Step(text string) {
	text = clean(text)
	t.board.mutex.Lock()
	changed := t.text != text
	t.text = text
	t.board.draw()
	t.board.mutex.Unlock()
	if changed && !t.board.live && !t.board.quiet {
		t.board.print(t.label + ": " + text)
	}
}

// Detail says more about it, on a terminal only.
func (t *Track) Detail(text string) {
	t.board.mutex.Lock()
	defer t.board.mutex.Unlock()
	t.text = clean(text)
	t.board.draw()
}

// Output prints a line that something wrote.
func (t *Track) Output(text string) {
	if !t.board.quiet {
		t.board.print(t.label + " | " + clean(text))
	}
}

// Note prints lines that stay.
func (t *Track) Note(text string) {
	for line := range strings.Lines(text) {
		t.board.Note(t.label + ": " + strings.TrimRight(line, "\n"))
	}
}

// Warn prints a line that stays, with --quiet too.
func (t *Track) Warn(text string) { t.board.Warn(t.label + ": " + text) }

// Done ends the track.
func (t *Track) Done(text string) { t.end(text, "✓", "+", green) }

// Failed ends the track; the caller prints why.
func (t *Track) Failed(text string) { t.end(text, "✗", "x", red) }

func (t *Track) end(text, mark, ascii, color string) {
	b := t.board
	b.mutex.Lock()
	t.text, t.ended, t.color, t.took = clean(text), mark, color, b.options.Now().Sub(t.start)
	if b.options.ASCII {
		t.ended = ascii
	}
	b.draw()
	b.mutex.Unlock()
	if !b.live && !b.quiet {
		b.print(fmt.Sprintf("%s: %s (%s)", t.label, t.text, duration(t.took)))
	}
}

// erase removes the live lines; the caller holds the mutex.
func (b *Board) erase() {
	if b.drawn > 0 {
		_, _ = fmt.Fprintf(b.stream, "\r\x1b[%dA\x1b[J", b.drawn)
		b.drawn = 0
	}
}

// draw draws the live lines; the caller holds the mutex.
func (b *Board) draw() {
	if !b.live {
		return
	}
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\r\x1b[%dA", b.drawn)
	}
	frames := spinner
	ellipsis := "…"
	if b.options.ASCII {
		frames, ellipsis = asciiSpinner, "..."
	}
	for _, track := range b.tracks {
		mark, color, took := frames[b.frame%len(frames)], yellow, b.options.Now().Sub(track.start)
		if track.ended != "" {
			mark, color, took = track.ended, track.color, track.took
		}
		if b.options.Color {
			mark = color + mark + reset
		}
		label := track.label + strings.Repeat(" ", b.widest-columnsOf(track.label))
		right := "  " + duration(took)
		// Mark, blank, and one column that stays free.
		room := b.options.Width() - 3 - len(right)
		fmt.Fprintf(&text, "%s %s%s\x1b[K\n", mark, fit(label+"  "+track.text, room, ellipsis), right)
	}
	_, _ = io.WriteString(b.stream, text.String())
	b.drawn = len(b.tracks)
}
