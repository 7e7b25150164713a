package terminal

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLineAndColours(t *testing.T) {
	for text, want := range map[string]struct{ line, colours string }{
		"plain\ttext ü ✓":                         {"plain text ü ✓", "plain\ttext ü ✓"},
		"\x1b[0;32m  OK  \x1b[0m":                 {"  OK  ", "\x1b[0;32m  OK  \x1b[0m"},
		"\x1b[2J\x1b[1;1Hcleared":                 {"cleared", "cleared"},
		"\x1b]0;title\x07after":                   {"after", "after"},
		"\x1b]52;c;ZXZpbA==\x1b\\after":           {"after", "after"},
		"\x1bPq#0\x1b\\\x1bcreset":                {"reset", "reset"},
		"bell\x07 back\x08 csi\u009b2J nul\x00":   {"bell back csi2J nul", "bell back csi2J nul"},
		"unfinished \x1b":                         {"unfinished ", "unfinished "},
		"unfinished \x1b]0;title":                 {"unfinished ", "unfinished "},
		"unfinished \x1b[31":                      {"unfinished 31", "unfinished 31"},
		"two\r\nlines\x7f":                        {"two lines", "twolines"},
		"right to left \u202egpj.exe":             {"right to left gpj.exe", "right to left gpj.exe"},
		"nested \x1b\x1b[2J":                      {"nested [2J", "nested [2J"},
		"bad \xff byte":                           {"bad \ufffd byte", "bad \ufffd byte"},
		"colour\x1b[38;5;1mful \x1b[>4;1mkeys":    {"colourful keys", "colour\x1b[38;5;1mful keys"},
		"private use \ue0b0, no-break\u00a0space": {"private use \ue0b0, no-break\u00a0space", "private use \ue0b0, no-break\u00a0space"},
		"": {"", ""},
	} {
		t.Run(text, func(t *testing.T) {
			if got := Line(text); got != want.line {
				t.Errorf("Line: %q, want %q", got, want.line)
			}
			if got := Colours(text); got != want.colours {
				t.Errorf("Colours: %q, want %q", got, want.colours)
			}
		})
	}
}

func FuzzLine(f *testing.F) {
	for _, text := range []string{"plain", "\x1b[31mred\x1b[0m", "\x1b\x1b[2J", "\x1b]0;t\x07", "\u009b2J", "\xc2\x9b", "\x1b[3\x1b[1m1m"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line := Line(text)
		if !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
			t.Errorf("%q becomes %q", text, line)
		}
		// Without its colours, what is left of a text holds no escape.
		if coloured := Colours(text); strings.ContainsRune(escapes.ReplaceAllStringFunc(coloured, func(sequence string) string {
			if colour.MatchString(sequence) {
				return ""
			}
			return sequence
		}), '\x1b') {
			t.Errorf("%q becomes %q", text, coloured)
		}
	})
}
