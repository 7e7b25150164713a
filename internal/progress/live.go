package progress

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// LiveOptions describe the terminal.
type LiveOptions struct {
	// Width gives the columns of the terminal now.
	Width func() int
	Color bool
	// ASCII avoids all other characters.
	ASCII bool
	Now   func() time.Time
	// Tick is how often the live line is drawn anew; zero draws it on changes
	// only.
	Tick time.Duration
}

// Live keeps one line up to date at the bottom and leaves a line for each
// phase that has ended.
func Live(stream io.Writer, options LiveOptions) Reporter {
	return &live{stream: stream, options: options, start: options.Now()}
}

type live struct {
	mutex   sync.Mutex
	stream  io.Writer
	options LiveOptions
	start   time.Time

	phase   Phase
	since   time.Time
	build   BuildStatus
	detail  string
	frame   int
	visible bool
	// stop ends the goroutine that ticks, while a phase runs.
	stop chan struct{}
}

var (
	spinner      = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}
	asciiSpinner = []string{"|", "/", "-", `\`}
)

const (
	eraseLine = "\r\x1b[K"
	green     = "\x1b[32m"
	red       = "\x1b[31m"
	yellow    = "\x1b[33m"
	dim       = "\x1b[2m"
	reset     = "\x1b[0m"
)

func (l *live) paint(color, text string) string {
	if !l.options.Color {
		return text
	}
	return color + text + reset
}

func (l *live) pick(unicode, ascii string) string {
	if l.options.ASCII {
		return ascii
	}
	return unicode
}

func (l *live) Phase(phase Phase) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.phase == phase {
		return
	}
	l.endPhase(l.paint(green, l.pick("✓", "+")), "")
	l.phase, l.since, l.build, l.detail = phase, l.options.Now(), BuildStatus{}, ""
	l.draw()
	if l.options.Tick > 0 {
		l.stop = make(chan struct{})
		go l.tick(l.stop)
	}
}

func (l *live) tick(stop <-chan struct{}) {
	ticker := time.NewTicker(l.options.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			l.mutex.Lock()
			// The phase may have ended while we waited for the mutex.
			select {
			case <-stop:
			default:
				l.frame++
				l.draw()
			}
			l.mutex.Unlock()
		}
	}
}

// endPhase replaces the live line by one that stays.
func (l *live) endPhase(mark, outcome string) {
	if l.phase == "" {
		return
	}
	if l.stop != nil {
		close(l.stop)
		l.stop = nil
	}
	l.erase()
	text := fmt.Sprintf("%-9s %s", l.phase, duration(l.options.Now().Sub(l.since)))
	if l.phase == Build && l.build.Total > 0 {
		text += fmt.Sprintf(", %d built", l.build.Done)
	}
	if outcome != "" {
		text += ", " + outcome
	}
	l.write(mark + " " + text + "\n")
	l.phase = ""
}

func (l *live) erase() {
	if l.visible {
		l.write(eraseLine)
		l.visible = false
	}
}

// write drops errors: a closed terminal is no reason to stop the work.
func (l *live) write(text string) { _, _ = io.WriteString(l.stream, text) }

func (l *live) draw() {
	if l.phase == "" {
		return
	}
	frames := spinner
	if l.options.ASCII {
		frames = asciiSpinner
	}
	left := fmt.Sprintf("%-9s ", l.phase)
	elapsed := l.options.Now().Sub(l.since)
	text, ok := describe[l.phase]
	if !ok {
		// Its name says it already.
		text = "..."
	}
	if l.phase == Build && l.build.Total > 0 {
		// The one that runs is the next, not the last that is done.
		text = fmt.Sprintf("%d of %d", min(l.build.Done+1, l.build.Total), l.build.Total)
		if l.build.Name != "" {
			text += "  " + clean(l.build.Name)
		}
	}
	if l.build.ToFetch > 0 && l.build.Fetched < l.build.ToFetch {
		text += fmt.Sprintf("  (%s of %s)", size(l.build.Fetched), size(l.build.ToFetch))
	}
	if l.detail != "" {
		text += "  " + l.pick("· ", "- ") + clean(l.detail)
	}
	right := ""
	if elapsed >= time.Second {
		right = fmt.Sprintf("  %d s", int(elapsed.Seconds()))
	}
	const spinnerColumns = 2
	// One column stays free: a full line makes some terminals wrap.
	room := l.options.Width() - 1 - spinnerColumns
	if room < len(left)+len(right)+8 {
		right = ""
	}
	body := fit(left+text, room-len(right), l.pick("…", "..."))
	l.write(eraseLine + l.paint(yellow, frames[l.frame%len(frames)]) + " " + body + l.paint(dim, right))
	l.visible = true
}

func (l *live) Build(status BuildStatus) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.build = status
	// Thousands of byte counts a second must not flood the terminal: the tick
	// draws them.
	if status.Started || l.options.Tick == 0 {
		l.draw()
	}
}

func (l *live) Detail(text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.detail = text
	l.draw()
}

func (l *live) Note(text string) { l.line(clean(text)) }
func (l *live) Warn(text string) { l.line(l.paint(yellow, "warning:") + " " + clean(text)) }

func (l *live) line(text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.erase()
	l.write(text + "\n")
	l.draw()
}

func (l *live) Done(text string) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.endPhase(l.paint(green, l.pick("✓", "+")), "")
	if text != "" {
		l.write(clean(text) + l.paint(dim, " ("+duration(l.options.Now().Sub(l.start))+")") + "\n")
	}
}

func (l *live) Failed() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.endPhase(l.paint(red, l.pick("✗", "x")), "failed")
}

// Writer writes above the live line.
func (l *live) Writer() io.Writer { return (*liveWriter)(l) }

type liveWriter live

func (w *liveWriter) Write(data []byte) (int, error) {
	l := (*live)(w)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.erase()
	n, err := l.stream.Write(data)
	// The caller writes whole lines; were it not so, the live line would hide
	// the rest.
	l.draw()
	return n, err
}
