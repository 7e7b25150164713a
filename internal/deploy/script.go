package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"devhost/internal/environment"
	"devhost/internal/execx"
)

// script is a provision.sh that was read.
type script struct {
	// text is as it is in the file, lines are its lines.
	text  []byte
	lines []string
	// calls says that it uses COPY, RUN, RUN_AS or ECHO.
	calls bool
	// inside says that it is written for a container that builds its own system,
	// as batou has them.
	inside bool
	// warnings are doubts, each with its line.
	warnings []string
}

// words are the functions that provision.sh is given.
var words = []string{"COPY", "RUN", "RUN_AS", "ECHO"}

// largestScript bounds provision.sh, in bytes.
const largestScript = 1 << 20

// buildsInside matches what a provision.sh says that was written for a container
// that builds its own system.
var buildsInside = regexp.MustCompile(`\bfc-manage\b|\bprovision\.nix\b|/etc/local/\S*\.nix\b`)

// readScript reads provision.sh, nil if there is none, and refuses what cannot be
// meant before anything runs.
func readScript(ctx context.Context, runner execx.Runner, e *environment.Environment) (*script, error) {
	path := e.ShownScript()
	info, err := os.Stat(e.Script())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	switch {
	case err != nil:
		return nil, &environment.Invalid{Path: path, Problems: []environment.Problem{{Text: "it cannot be read: " + pathReason(err)}}}
	case !info.Mode().IsRegular():
		return nil, &environment.Invalid{Path: path, Problems: []environment.Problem{{Text: "it is no file"}}}
	case info.Size() > largestScript:
		return nil, &environment.Invalid{Path: path, Problems: []environment.Problem{{Text: fmt.Sprintf("it has more than %d KiB; provision scripts should be small", largestScript>>10)}}}
	}
	text, err := os.ReadFile(e.Script())
	if err != nil {
		return nil, &environment.Invalid{Path: path, Problems: []environment.Problem{{Text: "it cannot be read: " + pathReason(err)}}}
	}
	if problem := notForBash(text, path); problem.Text != "" {
		return nil, &environment.Invalid{Path: path, Problems: []environment.Problem{problem}}
	}
	s := &script{text: text, lines: strings.Split(string(text), "\n")}
	s.inside = slices.ContainsFunc(s.lines, func(line string) bool {
		code, _, _ := strings.Cut(" "+line, " #")
		return buildsInside.MatchString(code)
	})
	parsed, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(text), path)
	if err != nil {
		// bash itself has the last word.
		if err := checkByBash(ctx, runner, e, err); err != nil {
			return nil, err
		}
		s.calls = true
		return s, nil
	}
	problems := s.look(parsed, path)
	if len(problems) > 0 {
		return nil, &environment.Invalid{Path: path, Problems: problems}
	}
	return s, nil
}

// notForBash finds what editors of other systems leave in a script, and what bash
// takes for a part of the first or of each last word.
func notForBash(text []byte, path string) environment.Problem {
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		return environment.Problem{Line: 1, Text: "it begins with a byte order mark, which bash takes for a part of the first word; save it as UTF-8 without one"}
	}
	if first, _, _ := bytes.Cut(text, []byte("\n")); bytes.HasSuffix(first, []byte("\r")) {
		return environment.Problem{Line: 1, Text: fmt.Sprintf(`its lines end as on Windows (CR LF), and bash takes the CR for a part of the last word; convert it: sed -i 's/\r$//' %s, and write "*.sh text eol=lf" into .gitattributes`, path)}
	}
	return environment.Problem{}
}

// pathReason is an error about a file that is named already.
func pathReason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// checkByBash asks bash whether a script that our parser refuses is well-formed.
func checkByBash(ctx context.Context, runner execx.Runner, e *environment.Environment, parseErr error) error {
	err := runner.Run(ctx, execx.Command{Name: "bash", Args: []string{"--noprofile", "--norc", "-n", e.ShownScript()}, Dir: e.Root})
	if err == nil {
		return nil
	}
	problem := environment.Problem{Text: "it is no bash script: " + parseErr.Error()}
	var parse syntax.ParseError
	if errors.As(parseErr, &parse) {
		problem = environment.Problem{Line: int(parse.Pos.Line()), Text: "bash could not read this: " + parse.Text}
	}
	return &environment.Invalid{Path: e.ShownScript(), Problems: []environment.Problem{problem}}
}

// look finds the uses of our functions, and what is wrong with them.
func (s *script) look(parsed *syntax.File, path string) []environment.Problem {
	var problems []environment.Problem
	printer := syntax.NewPrinter()
	shown := func(node syntax.Node) string {
		var text bytes.Buffer
		_ = printer.Print(&text, node)
		first, _, more := strings.Cut(text.String(), "\n")
		if more {
			first += " ..."
		}
		return first
	}
	redirected := func(stmt *syntax.Stmt, name string) {
		for _, redirect := range stmt.Redirs {
			if harmless(redirect) {
				continue
			}
			line := shown(&syntax.Stmt{Cmd: stmt.Cmd, Redirs: stmt.Redirs})
			hint := fmt.Sprintf("a redirection in %s works on this machine, not in the container", name)
			switch {
			case redirect.Op == syntax.RdrIn || redirect.Op == syntax.Hdoc || redirect.Op == syntax.DashHdoc || redirect.Op == syntax.WordHdoc:
				hint = name + " reads no input; bring the data with COPY or ECHO"
			case name == "RUN":
				hint += fmt.Sprintf("; write ECHO \"...\" %s, or give RUN one quoted command line: RUN '... %s %s'", shown(redirect.Word), redirect.Op, shown(redirect.Word))
			}
			problems = append(problems, environment.Problem{Line: int(stmt.Pos().Line()), Text: line + ": " + hint})
			return
		}
	}
	syntax.Walk(parsed, func(node syntax.Node) bool {
		switch node := node.(type) {
		case *syntax.Stmt:
			call, name := callOf(node)
			if name == "" {
				return true
			}
			s.calls = true
			redirected(node, name)
			if name == "RUN" || name == "RUN_AS" {
				for _, word := range call.Args[1:] {
					if pattern(word) {
						s.warnings = append(s.warnings, fmt.Sprintf("%s:%d: %s is compared with the files of this machine; to mean those of the container, give %s one quoted command line", path, word.Pos().Line(), shown(word), name))
					}
				}
			}
		case *syntax.BinaryCmd:
			if node.Op != syntax.Pipe && node.Op != syntax.PipeAll {
				return true
			}
			if _, name := callOf(node.Y); name != "" {
				problems = append(problems, environment.Problem{Line: int(node.Y.Pos().Line()), Text: fmt.Sprintf("%s: %s reads no input; bring the data with COPY or ECHO, or give RUN one quoted command line: RUN '... | ...'", shown(node.Y), name)})
			}
		}
		return true
	})
	return problems
}

// callOf is the call of one of our functions, and its name, "" for none.
func callOf(stmt *syntax.Stmt) (*syntax.CallExpr, string) {
	call, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || len(call.Args) == 0 {
		return nil, ""
	}
	if name := call.Args[0].Lit(); slices.Contains(words, name) {
		return call, name
	}
	return nil, ""
}

// harmless are redirections that mean the same here as in the container.
func harmless(redirect *syntax.Redirect) bool {
	if redirect.Op == syntax.DplOut || redirect.Op == syntax.DplIn {
		return true
	}
	return redirect.Word != nil && redirect.Word.Lit() == "/dev/null"
}

// pattern tells whether the shell would compare a word with names of files.
func pattern(word *syntax.Word) bool {
	for _, part := range word.Parts {
		if literal, ok := part.(*syntax.Lit); ok && strings.ContainsAny(strings.NewReplacer(`\*`, "", `\?`, "", `\[`, "").Replace(literal.Value), "*?[") {
			return true
		}
	}
	return false
}

// source is a line of the script, counted from 1.
func (s *script) source(line int) string {
	if line < 1 || line > len(s.lines) {
		return ""
	}
	return strings.TrimSpace(s.lines[line-1])
}
