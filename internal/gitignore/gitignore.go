// Package gitignore tells which files git would ignore, by the rules of
// gitignore(5), without git and also for files that are not there. The tests
// compare it with git itself.
//
// The rules of git that a list of patterns alone does not have: a file below an
// ignored folder is ignored, whatever other lines say; the file of the deepest
// folder decides first; in one file the last line that matches does.
package gitignore

import (
	"fmt"
	"strings"
)

// File is the name of the files that hold patterns.
const File = ".gitignore"

func hex(letter rune) string { return fmt.Sprintf(`\x{%x}`, letter) }

// list is the patterns of one file, in reverse: the last one decides first.
type list []pattern

// match is whether a line decides about the path, and how.
func (l list) match(path string, folder bool) (ignored, decided bool) {
	for _, p := range l {
		if p.matches(path, folder) {
			return !p.negated, true
		}
	}
	return false, false
}

func parseList(text string) list {
	text = strings.TrimPrefix(text, "\ufeff")
	lines := strings.Split(text, "\n")
	patterns := make(list, 0, len(lines))
	for i := len(lines) - 1; i >= 0; i-- {
		if p, ok := parse(lines[i]); ok {
			patterns = append(patterns, p)
		}
	}
	return patterns
}

// Rules are the patterns that hold below one top folder. They are not for
// concurrent use.
type Rules struct {
	// first decides before all files, last after them.
	first, last list
	// files are those of folders, by the folder's path, "" for the top.
	files   map[string]list
	folders map[string]bool
}

// New makes rules. The text first has patterns that come before those of all
// files; the texts last come after them, the first of them before the others.
func New(first string, last ...string) *Rules {
	r := &Rules{first: parseList(first), files: map[string]list{}, folders: map[string]bool{}}
	for _, text := range last {
		r.last = append(r.last, parseList(text)...)
	}
	return r
}

// Add adds the patterns of the file in a folder; "" is the top folder. It is
// called before anything below the folder is asked for.
func (r *Rules) Add(folder, text string) { r.files[folder] = parseList(text) }

// Negated tells whether any line is an exception ("!").
func (r *Rules) Negated() bool {
	negated := func(l list) bool {
		for _, p := range l {
			if p.negated {
				return true
			}
		}
		return false
	}
	for _, file := range r.files {
		if negated(file) {
			return true
		}
	}
	return negated(r.first) || negated(r.last)
}

// Names are the names of folders that are ignored wherever they are, by a line
// that has neither wildcards nor slashes.
func (r *Rules) Names() []string {
	var names []string
	for _, l := range []list{r.first, r.files[""], r.last} {
		for _, p := range l {
			if !p.anchored && !p.negated && !p.suffix && p.expression == nil {
				names = append(names, p.text)
			}
		}
	}
	return names
}

// Ignored tells whether the file or folder at a path is ignored. Paths are
// relative to the top folder, with slashes.
func (r *Rules) Ignored(path string, folder bool) bool {
	if end := strings.LastIndexByte(path, '/'); end > 0 && r.folder(path[:end]) {
		return true
	}
	if folder {
		return r.folder(path)
	}
	return r.match(path, false)
}

// folder is Ignored for a folder; the answers are kept.
func (r *Rules) folder(path string) bool {
	ignored, known := r.folders[path]
	if known {
		return ignored
	}
	if end := strings.LastIndexByte(path, '/'); end > 0 && r.folder(path[:end]) {
		ignored = true
	} else {
		ignored = r.match(path, true)
	}
	r.folders[path] = ignored
	return ignored
}

// match is about the path alone, not about the folders that it is in.
func (r *Rules) match(path string, folder bool) bool {
	if ignored, decided := r.first.match(path, folder); decided {
		return ignored
	}
	for end := strings.LastIndexByte(path, '/'); ; end = strings.LastIndexByte(path[:end], '/') {
		if end < 0 {
			if ignored, decided := r.files[""].match(path, folder); decided {
				return ignored
			}
			break
		}
		if file, found := r.files[path[:end]]; found {
			if ignored, decided := file.match(path[end+1:], folder); decided {
				return ignored
			}
		}
	}
	ignored, _ := r.last.match(path, folder)
	return ignored
}
