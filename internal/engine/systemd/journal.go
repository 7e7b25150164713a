package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/terminal"
)

// journalTimeout bounds what is read of the journal beside something else.
const journalTimeout = 30 * time.Second

// message is an entry's text as journalctl writes it in JSON: a string, or an
// array of bytes where it is no text, or null where it is too long. See
// journalctl(1), --output=json.
type message string

func (m *message) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		// Not bytes, which Go takes for base64.
		var numbers []uint16
		if err := json.Unmarshal(text, &numbers); err != nil {
			return err
		}
		var plain []byte
		for _, number := range numbers {
			plain = append(plain, byte(number))
		}
		*m = message(plain)
		return nil
	}
	var plain string
	if err := json.Unmarshal(text, &plain); err != nil {
		return err
	}
	*m = message(plain)
	return nil
}

type entry struct {
	Message message `json:"MESSAGE"`
}

// timestamp is a time as journalctl takes it.
func timestamp(at time.Time) string {
	return "@" + strconv.FormatFloat(float64(at.UnixMicro())/1e6, 'f', 6, 64)
}

// read hands the messages of a container's unit, as journalctl selects them, to
// take: what the guest wrote to its console, and what nspawn and devhost said.
func (e *Engine) read(ctx context.Context, name string, take func(string), arguments ...string) error {
	lines := &execx.LineWriter{Line: func(line string) {
		var found entry
		// Whatever else journalctl writes is no entry.
		if json.Unmarshal([]byte(line), &found) == nil {
			// A terminal's line ends in a carriage return too.
			take(strings.TrimRight(string(found.Message), "\r"))
		}
	}}
	defer lines.Close()
	return e.Runner.Run(ctx, execx.Command{
		Name:   "journalctl",
		Args:   append([]string{"--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE", "_SYSTEMD_UNIT=" + e.unit(name)}, arguments...),
		Stdout: lines, Grace: time.Second,
	})
}

// Console implements engine.Journal. What an earlier container of this name said
// is left out.
func (e *Engine) Console(ctx context.Context, name string, options engine.ConsoleOptions, out io.Writer) error {
	lines := "all"
	if options.Lines > 0 {
		lines = strconv.Itoa(options.Lines)
	}
	arguments := []string{"_TRANSPORT=stdout", "_TRANSPORT=journal", "--lines=" + lines}
	if container, err := e.Load(name); err == nil && !container.CreatedAt.IsZero() {
		arguments = append(arguments, "--since="+timestamp(container.CreatedAt))
	}
	if options.Follow {
		arguments = append(arguments, "--follow")
	}
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := e.read(ctx, name, func(line string) {
		if _, err := io.WriteString(out, line+"\n"); err != nil && failed == nil {
			failed = err
			cancel()
		}
	}, arguments...)
	if failed != nil {
		return failed
	}
	if options.Follow && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the journal of container %s: %w", name, err)
	}
	return nil
}

// tail is the last lines that a unit said since a time: only what prints.
func (e *Engine) tail(ctx context.Context, name string, since time.Time) []string {
	const lines = 20
	var kept []string
	e.readBriefly(ctx, name, func(line string) {
		if line = strings.TrimSpace(terminal.Line(line)); line != "" {
			kept = append(kept, line)
		}
	}, "_TRANSPORT=stdout", "_TRANSPORT=journal", "--lines="+strconv.Itoa(lines), "--since="+timestamp(since))
	return kept
}

// LastWords is the last that nspawn itself said since a time; a guest, whose
// console goes another way, cannot say it.
func (e *Engine) LastWords(ctx context.Context, name string, since time.Time) string {
	last := ""
	e.readBriefly(ctx, name, func(line string) { last = strings.TrimSpace(terminal.Line(line)) },
		"_TRANSPORT=journal", "SYSLOG_IDENTIFIER=systemd-nspawn", "PRIORITY=3", "--lines=1", "--since="+timestamp(since))
	return last
}

// readBriefly reads what there is. Without a journal there is nothing.
func (e *Engine) readBriefly(ctx context.Context, name string, take func(string), arguments ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTimeout)
	defer cancel()
	// What was said a moment ago may not be in the journal yet.
	_ = e.Runner.Run(ctx, execx.Command{Name: "journalctl", Args: []string{"--sync"}})
	_ = e.read(ctx, name, take, arguments...)
}
