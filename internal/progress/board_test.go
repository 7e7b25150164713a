package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPlainBoard(t *testing.T) {
	now := time.Unix(0, 0)
	for name, test := range map[string]struct {
		quiet bool
		want  string
	}{
		"plain": {false, "app: starting\napp | out\x1b[31m\nnote\nwarning: db: odd\napp: created (2.0 s)\n"},
		"quiet": {true, "warning: db: odd\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stream bytes.Buffer
			board := PlainBoard(&stream, test.quiet)
			board.options.Now = func() time.Time { return now }
			app, db := board.Track("app"), board.Track("db")
			app.Step("starting")
			app.Step("starting")
			app.Detail("more")
			app.Output("out\x1b[31m")
			board.Note("note")
			db.Warn("odd")
			board.options.Now = func() time.Time { return now.Add(2 * time.Second) }
			app.Done("created")
			board.Close()
			// Escape sequences of what runs do not reach the terminal.
			if diff := cmp.Diff(strings.ReplaceAll(test.want, "\x1b", ""), stream.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLiveBoard(t *testing.T) {
	var stream bytes.Buffer
	now := time.Unix(0, 0)
	board := PlainBoard(&stream, false)
	board.live = true
	board.options = LiveOptions{Now: func() time.Time { return now }, Width: func() int { return 30 }, ASCII: true}
	app, database := board.Track("app"), board.Track("database")
	app.Step("starting")
	database.Done("unchanged")
	stream.Reset()
	board.Note("a note")
	app.Failed("something that is much too long for it")
	board.Close()
	up := "\r\x1b[2A"
	unchanged := "+ database  unchanged  0.0 s\x1b[K\n"
	failed := "x app       somethi...  0.0 s\x1b[K\n" + unchanged
	want := up + "\x1b[J" + "a note\n" + "| app       starting  0.0 s\x1b[K\n" + unchanged + up + failed + up + failed
	if diff := cmp.Diff(want, stream.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
