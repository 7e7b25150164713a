package hypervisor

import (
	"bytes"
	"os"
	"strings"

	"devhost/internal/terminal"
)

// LastLines are the last lines of a log, fit for a terminal; none where it
// cannot be read.
func LastLines(path string) []string {
	const most, longest = 8, 16 << 10
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	data = data[max(0, len(data)-longest):]
	var lines []string
	for line := range bytes.Lines(data) {
		if text := terminal.Line(strings.TrimRight(string(line), "\r\n")); text != "" {
			lines = append(lines, text)
		}
	}
	return lines[max(0, len(lines)-most):]
}
