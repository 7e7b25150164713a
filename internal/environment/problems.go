package environment

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong in a file.
type Problem struct {
	// Line is counted from 1, 0 for the file as a whole.
	Line int
	// Text says what is wrong, and what was expected.
	Text string
}

// Invalid says that a file of an environment cannot be used; it has all that is
// wrong in it.
type Invalid struct {
	// Path is the file, relative to the project where it is in there.
	Path     string
	Problems []Problem
}

func (i *Invalid) Error() string {
	lines := make([]string, len(i.Problems))
	for n, problem := range i.Problems {
		lines[n] = at(i.Path, problem.Line) + problem.Text
	}
	return strings.Join(lines, "\n")
}

func at(path string, line int) string {
	if line == 0 {
		return path + ": "
	}
	return fmt.Sprintf("%s:%d: ", path, line)
}

// Missing says that there is no such environment.
type Missing struct {
	// Name is that of the environment, Path its environment.cfg.
	Name, Path string
	// Known are the environments of the project; Meant is the one that may have
	// been meant, "" for none.
	Known []string
	Meant string
}

func (m *Missing) Error() string {
	text := fmt.Sprintf("there is no environment %q: %s is missing", m.Name, m.Path)
	switch {
	case m.Meant != "":
		return text + fmt.Sprintf("; did you mean %q?", m.Meant)
	case len(m.Known) > 0:
		return text + "; there are: " + strings.Join(m.Known, ", ")
	}
	return text + "; devhost-deploy init makes a first one"
}

// NoProject says that there is no project around a folder.
type NoProject struct{ Folder string }

func (n *NoProject) Error() string {
	return fmt.Sprintf("neither %s nor a folder above it has a folder environments; go to your project, or make one there: devhost-deploy init", n.Folder)
}

// NoHost says that a word names no host of an environment.
type NoHost struct{ Text string }

func (n *NoHost) Error() string { return n.Text }

// BadName says that an environment cannot have a name.
type BadName struct{ Name string }

func (b *BadName) Error() string {
	return fmt.Sprintf("%q cannot be the name of an environment: letters, digits and . _ - are allowed, and it does not start with a dot or hyphen", b.Name)
}
