// Package terminal keeps what a guest, a builder or a log file says from
// driving the terminal that it is shown on.
package terminal

import (
	"regexp"
	"strings"
	"unicode"
)

// escapes are the control sequences of ECMA-48: CSI ones, strings (OSC and the
// like) up to their end, and other escapes.
var escapes = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b]*(\x07|\x1b\\\\)?|\x1b.?")

// colour is a CSI sequence that only changes how text looks (SGR).
var colour = regexp.MustCompile("^\x1b\\[[0-9;]*m$")

// Line is a text without control sequences and control characters, on one line:
// tabs and line breaks become spaces.
func Line(text string) string {
	return clean(strings.Map(func(letter rune) rune {
		if letter == '\t' || letter == '\n' {
			return ' '
		}
		return letter
	}, text), false)
}

// Colours is a line of text without control sequences and control characters
// but tabs and what sets colours.
func Colours(line string) string { return clean(line, true) }

func clean(text string, colours bool) string {
	var kept strings.Builder
	plain := func(text string) {
		for _, letter := range text {
			// Bidi controls would show a text other than it is.
			if letter == '\t' || !unicode.IsControl(letter) && !unicode.Is(unicode.Bidi_Control, letter) {
				kept.WriteRune(letter)
			}
		}
	}
	end := 0
	for _, found := range escapes.FindAllStringIndex(text, -1) {
		plain(text[end:found[0]])
		if sequence := text[found[0]:found[1]]; colours && colour.MatchString(sequence) {
			kept.WriteString(sequence)
		}
		end = found[1]
	}
	plain(text[end:])
	return kept.String()
}
