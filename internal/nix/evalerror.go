package nix

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"devhost/internal/execx"
)

// EvalError says why an evaluation failed.
type EvalError struct {
	// Message is Nix' own text after "error: ", without trace. It may have
	// several lines.
	Message string
	// Position is FILE:LINE:COLUMN (or FILE alone), "" where Nix names none.
	Position string
	// Log is the file with everything that Nix said, or "".
	Log string
	// Err is how the process ended.
	Err error
}

func (e *EvalError) Error() string {
	var text strings.Builder
	text.WriteString("the configuration does not evaluate:\nerror: ")
	text.WriteString(strings.ReplaceAll(e.Message, "\n", "\n       "))
	if e.Position != "" {
		text.WriteString("\n       at " + e.Position)
	}
	if e.Log != "" {
		text.WriteString("\nThe full trace is in " + e.Log)
	}
	return text.String()
}

func (e *EvalError) Unwrap() error { return e.Err }

// evalFailure makes an EvalError of how nix-instantiate ended and what it
// wrote.
func evalFailure(ctx context.Context, err error, output string, request EvalRequest) error {
	var failure *execx.Error
	if !errors.As(err, &failure) || failure.NotFound || ctx.Err() != nil {
		return explain(err)
	}
	const noSuchProgram = 127 // of prlimit(1), as of a shell
	if failure.ExitCode == noSuchProgram {
		return &NotInstalled{Err: err}
	}
	result := &EvalError{Log: request.Log, Err: err}
	timeout, memory := orDefault(request.Timeout, DefaultEvalTimeout), orDefault(request.Memory, DefaultEvalMemory)
	switch lower := strings.ToLower(output); {
	case failure.TimedOut:
		result.Message = fmt.Sprintf("the evaluation took longer than %s and was stopped; does it recurse without end?", timeout.Round(time.Second))
	case failure.ExitCode != 1 && (strings.Contains(lower, "out of memory") || strings.Contains(lower, "failed to expand heap") || strings.Contains(lower, "bad_alloc")),
		strings.Contains(lower, "error: out of memory"), strings.Contains(lower, "std::bad_alloc"):
		result.Message = fmt.Sprintf("the evaluation needed more than %d MiB of memory and was stopped; does it recurse without end?", memory>>20)
	default:
		result.Message, result.Position = parseEvalOutput(output, request.Names)
		if result.Message == "" {
			result.Message = failure.Reason()
			if len(failure.Tail) > 0 {
				result.Message += ": " + failure.Tail[len(failure.Tail)-1]
			}
		}
	}
	for _, name := range request.Names {
		result.Message = strings.ReplaceAll(result.Message, name.Path, name.Name)
		result.Position = strings.ReplaceAll(result.Position, name.Path, name.Name)
	}
	return result
}

var (
	ansiEscape    = regexp.MustCompile("\x1b\\[[0-9;]*m")
	errorLine     = regexp.MustCompile(`^ {0,7}error:(?: (.*))?$`)
	positionLine  = regexp.MustCompile(`^\s*at (.+:[0-9]+:[0-9]+):$`)
	definitionsOf = regexp.MustCompile("^\\s*… while evaluating definitions from `(.*)':$")
	frameLine     = regexp.MustCompile(`^ {7}… `)
)

// parseEvalOutput finds Nix' message and the position worth showing in what
// nix-instantiate --show-trace wrote.
//
// Two layouts are known (captures of both are in testdata). Up to 2.18 or so:
// "error: MESSAGE", its position, then the frames, the innermost first. Later:
// "error:", the frames, the innermost last, then "       error: MESSAGE" and
// its position.
func parseEvalOutput(output string, names []PathName) (message, position string) {
	lines := strings.Split(ansiEscape.ReplaceAllString(output, ""), "\n")
	start, newer := findError(lines)
	if start < 0 {
		return "", ""
	}
	message, rest := messageAt(lines, start)
	position, hint := afterMessage(lines[rest:])
	if hint != "" {
		message += "\n" + hint
	}
	if own := ownPosition(lines, names, newer); own != "" && !below(position, names) {
		position = own
	}
	if strings.HasPrefix(position, "«") {
		// The expression is ours: its position helps nobody.
		position = ""
	}
	return message, position
}

// findError gives the line of the message, and whether the frames come first.
func findError(lines []string) (index int, newer bool) {
	first, lastFrame := -1, -1
	for i, line := range lines {
		if first < 0 && strings.HasPrefix(line, "error:") {
			first = i
		}
		if frameLine.MatchString(line) {
			lastFrame = i
		}
	}
	if first < 0 {
		return -1, false
	}
	// The newer layout has nothing after "error:" but frames.
	if lines[first] != "error:" || first+1 >= len(lines) || !frameLine.MatchString(lines[first+1]) {
		return first, false
	}
	for i := lastFrame; i < len(lines); i++ {
		if errorLine.MatchString(lines[i]) {
			return i, true
		}
	}
	return first, true
}

// messageAt reads the message that starts in a line, and gives the index of
// the first line behind it.
func messageAt(lines []string, start int) (string, int) {
	var text []string
	if match := errorLine.FindStringSubmatch(lines[start]); match != nil && match[1] != "" {
		text = append(text, match[1])
	}
	i := start + 1
	for ; i < len(lines); i++ {
		line := lines[i]
		if frameLine.MatchString(line) || positionLine.MatchString(line) ||
			strings.HasPrefix(line, "(use '--show-trace'") || strings.HasPrefix(strings.TrimSpace(line), "(stack trace truncated") {
			break
		}
		text = append(text, strings.TrimPrefix(line, "       "))
	}
	return strings.TrimSpace(strings.Join(text, "\n")), i
}

// afterMessage reads what follows a message: its position, the lines of source
// there, and at times a hint.
func afterMessage(lines []string) (position, hint string) {
	for i, line := range lines {
		if match := positionLine.FindStringSubmatch(line); match != nil && position == "" && onlyBlank(lines[:i]) {
			position = match[1]
		}
		if frameLine.MatchString(line) {
			break
		}
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "Did you mean ") {
			hint = trimmed
		}
	}
	return position, hint
}

func onlyBlank(lines []string) bool {
	for _, line := range lines {
		if strings.TrimSpace(line) != "" {
			return false
		}
	}
	return true
}

// ownPosition is the innermost frame in one of the person's own files.
func ownPosition(lines []string, names []PathName, newer bool) string {
	var found, file string
	for _, line := range lines {
		if match := positionLine.FindStringSubmatch(line); match != nil && below(match[1], names) {
			found = match[1]
		}
		if match := definitionsOf.FindStringSubmatch(line); match != nil && below(match[1], names) {
			file = match[1]
		}
		if !newer && found != "" {
			break
		}
	}
	if found != "" {
		return found
	}
	return file
}

func below(position string, names []PathName) bool {
	for _, name := range names {
		if strings.HasPrefix(position, name.Path) {
			return true
		}
	}
	return false
}
