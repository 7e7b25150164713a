package devhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"devhost/internal/engine"
	"devhost/internal/execx"
	"devhost/internal/terminal"
)

// console prints the end of a log file, and follows it across rotations. What
// it holds is the guest's word: on a terminal, only text and colours of it are
// shown.
func (a *app) console(c *cli.Context, path string) error {
	out, close := a.consoleOutput()
	defer close()
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !c.Bool("follow") {
		return nil
	}
	if err == nil {
		if err := copyLastLines(out, file, c.Int("lines")); err != nil {
			return err
		}
	}
	if !c.Bool("follow") {
		return file.Close()
	}
	return follow(c.Context, out, file, path)
}

// consoleOutput is standard output for what a guest wrote.
func (a *app) consoleOutput() (out io.Writer, close func()) {
	if !isTerminal(a.streams.Out) {
		return a.streams.Out, func() {}
	}
	lines := &execx.LineWriter{Line: func(line string) { fmt.Fprintln(a.streams.Out, terminal.Colours(line)) }}
	return lines, func() { _ = lines.Close() }
}

// consoleJournal is console for an engine that keeps no file.
func (a *app) consoleJournal(c *cli.Context, journal engine.Journal, name string) error {
	out, close := a.consoleOutput()
	defer close()
	return journal.Console(c.Context, name, engine.ConsoleOptions{Lines: c.Int("lines"), Follow: c.Bool("follow")}, out)
}

// copyLastLines copies the last lines of a file, all of them for 0.
func copyLastLines(out io.Writer, file *os.File, lines int) error {
	if lines == 0 {
		_, err := io.Copy(out, file)
		return err
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	const block = 32 << 10
	start, breaks := end, 0
	buffer := make([]byte, block)
	for start > 0 {
		size := min(start, block)
		start -= size
		if _, err := file.ReadAt(buffer[:size], start); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			// The break at the very end closes the last line.
			if buffer[i] == '\n' && start+i != end-1 {
				if breaks++; breaks == lines {
					_, err := io.Copy(out, io.NewSectionReader(file, start+i+1, end-start-i-1))
					return err
				}
			}
		}
	}
	_, err = io.Copy(out, io.NewSectionReader(file, 0, end))
	return err
}

// followPoll is how often a followed file is looked at.
const followPoll = 200 * time.Millisecond

func follow(ctx context.Context, out io.Writer, file *os.File, path string) error {
	for {
		if file != nil {
			if _, err := io.Copy(out, file); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPoll):
		}
		if rotated(file, path) {
			if file != nil {
				// What was written between the last look and the rotation.
				if _, err := io.Copy(out, file); err != nil {
					return err
				}
				_ = file.Close()
			}
			file, _ = os.Open(path)
		}
	}
}

func rotated(file *os.File, path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		return false
	}
	if file == nil {
		return true
	}
	then, err := file.Stat()
	return err == nil && !os.SameFile(now, then)
}
