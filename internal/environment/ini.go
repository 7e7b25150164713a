package environment

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// A file is what an INI file says, with the line of everything. The format is
// that of Python's configparser.RawConfigParser with its usual settings (Python
// library reference, "Supported INI File Structure"): = or : after a key, # and
// ; before a comment on a line of its own, and values that go on in lines that
// are indented deeper than the key's.
type file struct {
	sections []*section
	defaults *section
}

// section is one [name].
type section struct {
	name    string
	line    int
	entries []*entry
}

// entry is one key with its value.
type entry struct {
	key  string
	line int
	// lines are the value's, the first of them that behind the key.
	lines []valueLine
}

type valueLine struct {
	text string
	line int
}

// value is the whole value, as configparser gives it.
func (e *entry) value() string {
	texts := make([]string, len(e.lines))
	for i, line := range e.lines {
		texts[i] = line.text
	}
	return strings.TrimRight(strings.Join(texts, "\n"), "\n")
}

// words are the value's words, each with its line.
func (e *entry) words() []valueLine {
	var words []valueLine
	for _, line := range e.lines {
		for _, word := range strings.Fields(line.text) {
			words = append(words, valueLine{word, line.line})
		}
	}
	return words
}

// filled are the value's lines that say something.
func (e *entry) filled() []valueLine {
	var lines []valueLine
	for _, line := range e.lines {
		if line.text != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s *section) entry(key string) *entry {
	for _, entry := range s.entries {
		if entry.key == key {
			return entry
		}
	}
	return nil
}

func (f *file) section(name string) *section {
	for _, section := range f.sections {
		if section.name == name {
			return section
		}
	}
	return nil
}

// defaultSection has values that hold in every section.
const defaultSection = "DEFAULT"

// iniReader reads one file line by line.
type iniReader struct {
	file     file
	problems []Problem
	section  *section
	entry    *entry
	// indent is the column of the last line that was no continuation.
	indent int
}

// readINI reads an INI file, and says all that is wrong with its form.
func readINI(data []byte) (*file, []Problem) {
	reader := &iniReader{file: file{defaults: &section{name: defaultSection}}}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		line := 1
		for text := range bytes.Lines(data) {
			if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
				return &reader.file, []Problem{{Line: line, Text: "it is no text in UTF-8"}}
			}
			line++
		}
	}
	// Python reads \r\n and \r as \n.
	text := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	for i, line := range strings.Split(text, "\n") {
		reader.line(i+1, line)
	}
	for _, section := range reader.file.sections {
		for _, entry := range section.entries {
			for len(entry.lines) > 1 && entry.lines[len(entry.lines)-1].text == "" {
				entry.lines = entry.lines[:len(entry.lines)-1]
			}
		}
		for _, entry := range reader.file.defaults.entries {
			if section.entry(entry.key) == nil {
				section.entries = append(section.entries, entry)
			}
		}
	}
	return &reader.file, reader.problems
}

func (r *iniReader) problem(line int, format string, arguments ...any) {
	r.problems = append(r.problems, Problem{Line: line, Text: fmt.Sprintf(format, arguments...)})
}

func (r *iniReader) line(number int, line string) {
	text := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(text, "#"), strings.HasPrefix(text, ";"):
		return
	case text == "":
		// An empty line belongs to the value, if that goes on.
		if r.entry != nil {
			r.entry.lines = append(r.entry.lines, valueLine{"", number})
		}
		return
	}
	column := len(line) - len(strings.TrimLeft(line, " \t\f\v"))
	if r.entry != nil && column > r.indent {
		r.entry.lines = append(r.entry.lines, valueLine{text, number})
		return
	}
	r.indent, r.entry = column, nil
	if strings.HasPrefix(text, "[") {
		r.startSection(number, text)
		return
	}
	if r.section == nil {
		r.problem(number, "%s stands before the first section; a section such as [environment] was expected", shown(text))
		// Once is enough.
		r.section = &section{}
	}
	at := strings.IndexAny(text, "=:")
	if at < 0 {
		r.problem(number, "%s is neither a section such as [environment] nor a key with a value; key = value was expected (a line that continues a value is indented)", shown(text))
		return
	}
	key, value := strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+1:])
	if key == "" {
		r.problem(number, "there is no key before the %q; key = value was expected", text[at:at+1])
		return
	}
	r.entry = &entry{key: key, line: number, lines: []valueLine{{value, number}}}
	if first := r.section.entry(key); first != nil {
		r.problem(number, "%s is there twice in this section, first in line %d", key, first.line)
		return
	}
	r.section.entries = append(r.section.entries, r.entry)
}

func (r *iniReader) startSection(number int, text string) {
	end := strings.LastIndexByte(text, ']')
	if end < 0 {
		r.problem(number, "the section %s has no closing bracket; [name] was expected", shown(text))
		end = len(text)
	}
	name := strings.TrimSpace(text[1:end])
	r.section = &section{name: name, line: number}
	// The next line starts a key, however it is indented.
	r.indent = math.MaxInt
	switch first := r.file.section(name); {
	case name == defaultSection:
		r.section = r.file.defaults
	case name == "":
		r.problem(number, "the section has no name; [name] was expected")
	case first != nil:
		r.problem(number, "the section [%s] is there twice, first in line %d", name, first.line)
	default:
		r.file.sections = append(r.file.sections, r.section)
	}
}

// shown is a text of the file in a message: short, and harmless.
func shown(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "..."
	}
	return fmt.Sprintf("%q", text)
}
