package direct

import (
	"io"
	"os"
	"strings"

	"devhost/internal/terminal"
)

// tail is the last lines that were written to a log after offset before. What
// a guest wrote is not trusted: only what prints is kept.
func tail(path string, before int64) []string {
	const most, lines = 8192, 20
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	if info.Size() < before {
		// It was rotated meanwhile.
		before = 0
	}
	from := max(before, info.Size()-most)
	text, err := io.ReadAll(io.NewSectionReader(file, from, most))
	if err != nil {
		return nil
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(terminal.Line(line)); line != "" {
			kept = append(kept, line)
		}
	}
	return kept[max(0, len(kept)-lines):]
}
