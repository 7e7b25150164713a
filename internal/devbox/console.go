package devbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/terminal"
)

const (
	// consolePoll is how often the console log is looked at for more.
	consolePoll = 200 * time.Millisecond
	// statePoll is how often the hypervisor is asked whether the VM still runs.
	statePoll = time.Second
)

// follow calls line for every line that a VM prints on its console, from the
// start of its log, until the VM does not run any more. Lines are fit for a
// terminal. The error is *FailedGuest for a guest that cannot go on.
func (m *Manager) follow(ctx context.Context, record *Record, chosen hypervisor.Hypervisor, line func(string)) error {
	reader := &consoleReader{path: m.Files(record.Name).Console(), lines: execx.LineWriter{Line: func(text string) {
		if text = strings.TrimSpace(terminal.Line(text)); text != "" {
			line(text)
		}
	}}}
	defer reader.close()
	asked := time.Time{}
	for {
		more, err := reader.read()
		if err != nil {
			return err
		}
		if time.Since(asked) >= statePoll {
			asked = time.Now()
			state, err := chosen.State(ctx, m.vm(record))
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				return err
			case state.Status == hypervisor.Failed:
				return &FailedGuest{Name: record.Name, Detail: state.Detail}
			case state.Status != hypervisor.Running:
				return reader.finish()
			}
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(consolePoll):
		}
	}
}

// consoleReader reads a file that grows and need not exist yet.
type consoleReader struct {
	path  string
	file  *os.File
	lines execx.LineWriter
}

// read hands over what is new, a part at a time, and tells whether there was
// any.
func (c *consoleReader) read() (bool, error) {
	if c.file == nil {
		file, err := os.Open(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		c.file = file
	}
	const part = 64 << 10
	count, err := io.CopyN(&c.lines, c.file, part)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return count > 0, err
}

func (c *consoleReader) finish() error {
	for {
		if more, err := c.read(); err != nil || !more {
			return errors.Join(err, c.lines.Close())
		}
	}
}

func (c *consoleReader) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// ConsoleTail are the last lines of a VM's console, fit for a terminal; none
// where it has printed nothing.
func (m *Manager) ConsoleTail(name string, most int) []string {
	return hypervisor.LastLines(m.Files(name).Console(), most)
}

// lastLine is the last line of a VM's console, "" where there is none.
func (m *Manager) lastLine(name string) string {
	if lines := m.ConsoleTail(name, 1); len(lines) > 0 {
		return strings.TrimSpace(lines[0])
	}
	return ""
}
