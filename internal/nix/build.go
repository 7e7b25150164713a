package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"devhost/internal/execx"
)

// BuildOptions say how to build.
type BuildOptions struct {
	// SandboxPaths are folders of the host that builders see, as "PATH" or
	// "INSIDE=OUTSIDE". They REPLACE the host's sandbox-paths for this build;
	// nil leaves those alone.
	SandboxPaths []string
	// GCRoot is a symbolic link that is made to the result by the build
	// itself, so that no garbage collector comes between. Required.
	GCRoot string
	// Log is a file that receives the readable log, nothing is kept if empty.
	Log string
	// Progress receives events, in the goroutine of Build; may be nil.
	Progress func(Event)
}

// BuildError says which derivation failed, and how.
type BuildError struct {
	// DrvPath is the derivation whose own builder failed, or the one asked for
	// where Nix names none.
	DrvPath string
	// Reason is a phrase such as "failed with exit code 3".
	Reason string
	// Lines are the last lines of the builder.
	Lines []string
	// Log is the log of the whole build, or "".
	Log string
	Err error
}

func (e *BuildError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "the build of %s %s", DerivationName(e.DrvPath), e.Reason)
	if len(e.Lines) > 0 {
		text.WriteString("; its last lines:")
		for _, line := range e.Lines {
			text.WriteString("\n  > " + line)
		}
		text.WriteString("\nAll of its log: " + e.LogCommand())
	}
	if e.Log != "" {
		text.WriteString("\nThe log of the whole build is in " + e.Log)
	}
	return text.String()
}

// LogCommand prints the failed builder's log.
func (e *BuildError) LogCommand() string {
	// Not `nix log`: that asks the binary caches first, and needs a feature
	// turned on.
	return execx.Quote([]string{"nix-store", "--read-log", e.DrvPath})
}

func (e *BuildError) Unwrap() error { return e.Err }

// Build builds a derivation that is in the store, through the daemon, always
// sandboxed, and returns the path of its first output. No evaluation takes
// place. The error is *BuildError, *NotInstalled, or one of this host.
func (c *Client) Build(ctx context.Context, drvPath string, options BuildOptions) (string, error) {
	if err := CheckStorePath(drvPath); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(options.GCRoot), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the folder for garbage collector roots: %w", err)
	}
	log, closeLog, err := logFile(options.Log)
	if err != nil {
		return "", err
	}
	parser := newLogParser(options.Progress, func(line string) { fmt.Fprintln(log, line) })
	lines := &execx.LineWriter{Line: parser.Line}
	command := c.command("nix-store", buildArguments(drvPath, options)...)
	command.Stderr = lines
	err = c.Runner.Run(ctx, command)
	if closeErr := errors.Join(lines.Close(), closeLog()); err == nil && closeErr != nil {
		return "", fmt.Errorf("cannot write %s: %w", options.Log, closeErr)
	}
	if err != nil {
		return "", buildFailure(ctx, err, drvPath, parser, options)
	}
	result, err := os.Readlink(options.GCRoot)
	if err != nil {
		return "", fmt.Errorf("the build ended well and yet left no result: %w", err)
	}
	return result, CheckStorePath(result)
}

// buildArguments are the arguments of nix-store.
func buildArguments(drvPath string, options BuildOptions) []string {
	arguments := []string{
		"--realise", drvPath, "--add-root", options.GCRoot,
		"--log-format", "internal-json", "-v",
		// What people hand in is built: never without the sandbox, whatever
		// the host's own settings allow.
		"--option", "sandbox", "true", "--option", "sandbox-fallback", "false",
	}
	if options.SandboxPaths != nil {
		// Not extra-sandbox-paths: Nix builds with a /bin/sh in their default
		// sandbox-paths. With /bin bound beside it, the daemon would make that
		// file's mount point inside of the bound folder, and so empty the
		// host's own /bin/sh (tried with other files).
		arguments = append(arguments, "--option", "sandbox-paths", strings.Join(options.SandboxPaths, " "))
	}
	return arguments
}

// The sentences by which Nix says whose builder failed: 2.8 to 2.30, and later.
var failedBuilders = []*regexp.Regexp{
	regexp.MustCompile(`builder for '([^']+\.drv)' (failed [^;\n]*)`),
	regexp.MustCompile(`(?s)Cannot build '([^']+\.drv)'\.\s+Reason: builder (failed [^.\n]*)`),
	regexp.MustCompile(`build of '([^']+\.drv)' (failed)`),
	regexp.MustCompile(`(?:in|for) fixed-output derivation '([^']+\.drv)'(:?)`),
}

func buildFailure(ctx context.Context, err error, drvPath string, parser *logParser, options BuildOptions) error {
	var failure *execx.Error
	if !errors.As(err, &failure) || failure.NotFound || ctx.Err() != nil {
		return explain(err)
	}
	result := &BuildError{DrvPath: drvPath, Reason: "failed", Log: options.Log, Err: err}
	for _, message := range parser.messages {
		for _, pattern := range failedBuilders {
			if match := pattern.FindStringSubmatch(message); match != nil && CheckStorePath(match[1]) == nil {
				result.DrvPath = match[1]
				result.Reason = match[2]
				if !strings.HasPrefix(match[2], "failed") {
					result.Reason = reasonOf(message)
				}
				result.Lines = parser.tails[match[1]]
				return result
			}
		}
	}
	// No builder failed: it is Nix itself that says why.
	if len(parser.messages) > 0 {
		result.Reason = reasonOf(parser.messages[0])
	} else {
		result.Reason = "failed: nix-store " + failure.Reason()
	}
	return result
}

// reasonOf is a phrase of Nix' own message.
func reasonOf(message string) string {
	_, text, _ := strings.Cut(message, "error:")
	return "failed: " + strings.TrimSpace(text)
}
