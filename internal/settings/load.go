package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/terminal"
)

// largest bounds the file, in bytes.
const largest = 1 << 20

// Problem is one thing that is wrong in the file, or doubtful.
type Problem struct {
	// Line and Column are counted from 1, the column in bytes.
	Line, Column int
	// Key is the path of the key, as expiry.stopAfter or domains[1]; "" for the
	// file as a whole.
	Key string
	// Reason says what is wrong, Example is a value that would do, "" for none.
	Reason, Example string
	// Warning says that the file can be used all the same.
	Warning bool
	// OfHost says that the file is good as such, and that this host lacks what
	// it names: on another one, or later, it may be there.
	OfHost bool
}

func (p Problem) String() string {
	// What the file says is shown, and it may be anybody's file.
	var text strings.Builder
	fmt.Fprintf(&text, "%d:%d: ", p.Line, p.Column)
	if p.Warning {
		text.WriteString("warning: ")
	}
	if p.Key != "" {
		text.WriteString(terminal.Line(p.Key) + ": ")
	}
	text.WriteString(terminal.Line(p.Reason))
	if p.Example != "" {
		text.WriteString("; for example " + p.Example)
	}
	return text.String()
}

// Invalid says that the file cannot be used.
type Invalid struct {
	Path     string
	Problems []Problem
}

func (i *Invalid) Error() string {
	lines := []string{"the settings of this host cannot be used:"}
	for _, problem := range i.Problems {
		lines = append(lines, "  "+i.Path+":"+problem.String())
	}
	return strings.Join(append(lines, "Correct the file, and check it with: devhost host check"), "\n")
}

// Untrusted says that somebody other than root could write the file.
type Untrusted struct{ Path, Reason string }

func (u *Untrusted) Error() string {
	return fmt.Sprintf("the settings of this host cannot be used: %s %s, and they say what others may do here; make it root's: chown root:root %[1]s && chmod 0644 %[1]s", u.Path, u.Reason)
}

// Load reads the file of a host. A missing one means Default. The error is
// *Invalid, *Untrusted or that of the file system; with *Invalid, what could be
// read holds, and Default for the rest.
func Load(path string) (Settings, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Default(), err
	}
	loaded, problems := Parse(text)
	if serious := withoutWarnings(problems); len(serious) > 0 {
		return loaded, &Invalid{Path: path, Problems: serious}
	}
	return loaded, nil
}

// read reads a file that must be root's.
func read(path string) ([]byte, error) {
	// Opening a FIFO would wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("the settings of this host cannot be read: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("the settings of this host cannot be read: %w", err)
	}
	const othersWrite = 0o022
	status, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, &Untrusted{Path: path, Reason: "is no regular file"}
	case ok && status.Uid != 0:
		return nil, &Untrusted{Path: path, Reason: fmt.Sprintf("belongs to uid %d", status.Uid)}
	case info.Mode().Perm()&othersWrite != 0:
		return nil, &Untrusted{Path: path, Reason: "can be written by others"}
	}
	return io.ReadAll(io.LimitReader(file, largest+1))
}

func withoutWarnings(problems []Problem) []Problem {
	var serious []Problem
	for _, problem := range problems {
		if !problem.Warning {
			serious = append(serious, problem)
		}
	}
	return serious
}

// Parse reads the text of a file. What could be read holds, and Default for
// the rest; problems come in the order of their lines.
func Parse(text []byte) (Settings, []Problem) {
	settings := Default()
	if len(text) > largest {
		return settings, []Problem{{Line: 1, Column: 1, Reason: fmt.Sprintf("it is larger than %d bytes", largest)}}
	}
	// 0 stands for a missing one.
	settings.Version = 0
	d := decode(text, &settings)
	_, versioned := d.offsets["version"]
	misread := slices.ContainsFunc(d.problems, func(problem Problem) bool { return problem.Key == "version" })
	if settings.Version != Version && !misread && (versioned || len(d.problems) == 0) {
		reason := fmt.Sprintf("it has version %d, this devhost reads version %d", settings.Version, Version)
		if !versioned {
			reason = "it is missing"
		}
		d.problems = nil
		d.report(d.offsets["version"], "version", reason)
		return Default(), d.problems
	}
	settings.Version = Version
	check(settings, d)
	sortProblems(d.problems)
	return settings, d.problems
}
