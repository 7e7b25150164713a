package hypervisor

import (
	"bytes"
	"io"
	"os"
	"strings"

	"devhost/internal/terminal"
)

// Tail is the end of a log, at most longest bytes of it. A guest can make a log
// as long as it likes.
func Tail(path string, longest int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-longest), longest))
}

// LastLines are the last lines of a log that are not empty, fit for a terminal;
// none where it cannot be read.
func LastLines(path string, most int) []string {
	const longest = 32 << 10
	data, err := Tail(path, longest)
	if err != nil {
		return nil
	}
	var lines []string
	for line := range bytes.Lines(data) {
		if text := strings.TrimRight(terminal.Line(string(line)), " "); text != "" {
			lines = append(lines, text)
		}
	}
	return lines[max(0, len(lines)-most):]
}

// LogLines is how many lines of a hypervisor's log a StartError shows.
const LogLines = 8
