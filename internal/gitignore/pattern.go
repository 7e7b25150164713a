package gitignore

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// pattern is one line of a gitignore file.
type pattern struct {
	// negated is a line that starts with "!".
	negated bool
	// folders is a line that ends with "/": it means folders only.
	folders bool
	// anchored patterns are compared with the path below the folder of the
	// file, others with the last part of the path.
	anchored bool
	// text is compared as it is, or as the end of the name where suffix is set;
	// expression is there for everything else.
	text       string
	suffix     bool
	expression *regexp.Regexp
}

const wildcards = `*?[\`

// parse reads a line; ok is false for one that means nothing.
func parse(line string) (p pattern, ok bool) {
	line = strings.TrimSuffix(line, "\r")
	if line == "" || line[0] == '#' {
		return p, false
	}
	line = trimSpaces(line)
	if line, p.negated = strings.CutPrefix(line, "!"); line == "" {
		return p, false
	}
	line, p.folders = strings.CutSuffix(line, "/")
	if strings.Contains(line, "/") {
		p.anchored = true
		line = strings.TrimPrefix(line, "/")
	}
	if line == "" {
		return p, false
	}
	switch {
	case !strings.ContainsAny(line, wildcards):
		p.text = line
	case !p.anchored && line[0] == '*' && !strings.ContainsAny(line[1:], wildcards):
		p.text, p.suffix = line[1:], true
	default:
		source, valid := expression(byteRunes(line))
		if !valid {
			return p, false
		}
		compiled, err := regexp.Compile(source)
		if err != nil {
			return p, false
		}
		p.expression = compiled
	}
	return p, true
}

// trimSpaces removes spaces at the end, but those behind a backslash.
func trimSpaces(line string) string {
	end := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(line))
	}
	return line[:end]
}

// matches compares a path below the folder of the pattern's file.
func (p pattern) matches(path string, folder bool) bool {
	if p.folders && !folder {
		return false
	}
	if !p.anchored {
		path = path[strings.LastIndexByte(path, '/')+1:]
	}
	switch {
	case p.expression != nil:
		return p.expression.MatchString(byteRunes(path))
	case p.suffix:
		return strings.HasSuffix(path, p.text)
	}
	return path == p.text
}

// byteRunes makes a rune of every byte: git compares bytes, and a file name
// need not be UTF-8.
func byteRunes(text string) string {
	ascii := true
	for i := 0; i < len(text) && ascii; i++ {
		ascii = text[i] < utf8.RuneSelf
	}
	if ascii {
		return text
	}
	var runes strings.Builder
	for i := 0; i < len(text); i++ {
		runes.WriteRune(rune(text[i]))
	}
	return runes.String()
}

// expression translates a pattern. It follows wildmatch of git with
// WM_PATHNAME: no wildcard but ** between slashes matches a slash.
func expression(text string) (source string, valid bool) {
	runes := []rune(text)
	var out strings.Builder
	out.WriteString(`(?s)\A`)
	for i := 0; i < len(runes); i++ {
		switch letter := runes[i]; letter {
		case '\\':
			i++
			if i == len(runes) {
				return "", false
			}
			out.WriteString(regexp.QuoteMeta(string(runes[i])))
		case '?':
			out.WriteString(`[^/]`)
		case '[':
			class, length := characters(runes[i:])
			if length == 0 {
				return "", false
			}
			out.WriteString(class)
			i += length - 1
		case '*':
			stars := i
			for i+1 < len(runes) && runes[i+1] == '*' {
				i++
			}
			// git compares what comes before the first wildcard by itself, and takes
			// the rest for a whole pattern: two stars there may match slashes, too.
			starts := stars == 0 || runes[stars-1] == '/' || !strings.ContainsAny(string(runes[:stars]), wildcards)
			switch {
			case i == stars || !starts:
				out.WriteString(`[^/]*`)
			case i+1 == len(runes):
				out.WriteString(`.*`)
			case runes[i+1] == '/':
				out.WriteString(`(?:.*/)?`)
				i++
			default:
				out.WriteString(`[^/]*`)
			}
		default:
			out.WriteString(regexp.QuoteMeta(string(letter)))
		}
	}
	out.WriteString(`\z`)
	return out.String(), true
}

// named are the classes of names in brackets, without their brackets.
var named = map[string]string{
	"alnum": `0-9A-Za-z`, "alpha": `A-Za-z`, "blank": ` \t`, "cntrl": `\x00-\x1f\x7f`, "digit": `0-9`, "graph": `!-~`,
	"lower": `a-z`, "print": ` -~`, "punct": `!-/:-@\[-` + "`" + `{-~`, "space": ` \t\n\v\f\r`, "upper": `A-Z`, "xdigit": `0-9A-Fa-f`,
}

// characters translates what starts with a bracket; length is 0 where the
// bracket is not closed. A slash is never matched.
func characters(runes []rune) (class string, length int) {
	var out strings.Builder
	i := 1
	negated := i < len(runes) && (runes[i] == '!' || runes[i] == '^')
	if negated {
		i++
	}
	for first := true; ; first = false {
		if i >= len(runes) {
			return "", 0
		}
		if runes[i] == ']' && !first {
			break
		}
		if name, width := className(runes[i:]); width > 0 {
			set, known := named[name]
			if !known {
				return "", 0
			}
			out.WriteString(set)
			i += width
			continue
		}
		low, next := member(runes, i)
		if next == 0 {
			return "", 0
		}
		i = next
		high := low
		if i+1 < len(runes) && runes[i] == '-' && runes[i+1] != ']' {
			if high, i = member(runes, i+1); i == 0 {
				return "", 0
			}
		}
		// git looks at the first letter of a range by itself, too: [z-a] is z.
		out.WriteString(span(low, max(low, high)))
	}
	set := out.String()
	switch {
	case set == "" && negated:
		return `[^/]`, i + 1
	case set == "":
		// Nothing is in it.
		return `[^\x00-\x{10ffff}]`, i + 1
	case negated:
		return `[^/` + set + `]`, i + 1
	}
	return `[` + set + `]`, i + 1
}

// member is one letter of a class, behind a backslash or not; next is 0 at the
// end of the pattern.
func member(runes []rune, at int) (letter rune, next int) {
	if runes[at] == '\\' {
		at++
	}
	if at >= len(runes) {
		return 0, 0
	}
	return runes[at], at + 1
}

func className(runes []rune) (name string, width int) {
	if len(runes) < 2 || runes[0] != '[' || runes[1] != ':' {
		return "", 0
	}
	for i := 2; i+1 < len(runes) && runes[i] != ']'; i++ {
		if runes[i] == ':' && runes[i+1] == ']' {
			return string(runes[2:i]), i + 2
		}
	}
	return "", 0
}

// span is a range of letters without the slash.
func span(low, high rune) string {
	if low > '/' || high < '/' {
		return hex(low) + "-" + hex(high)
	}
	var out string
	if low < '/' {
		out += hex(low) + "-" + hex('/'-1)
	}
	if high > '/' {
		out += hex('/'+1) + "-" + hex(high)
	}
	return out
}
