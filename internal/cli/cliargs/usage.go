package cliargs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"devhost/internal/execx"
	"devhost/internal/names"
)

// UsageError is wrong input.
type UsageError struct {
	// Command has the help for it, "" for none; Help is that of all.
	Command string
	Help    bool
	Err     error
}

func (u *UsageError) Error() string { return u.Err.Error() }

// Unwrap serves errors.Is and errors.As.
func (u *UsageError) Unwrap() error { return u.Err }

// See writes where the help for wrong input is, if that is what an error is about.
func See(out io.Writer, program string, err error) {
	var usage *UsageError
	switch {
	case !errors.As(err, &usage):
	case usage.Command != "":
		fmt.Fprintf(out, "See: %s %s --help\n", program, usage.Command)
	case usage.Help:
		fmt.Fprintf(out, "See: %s --help\n", program)
	}
}

// HostError says that the machine lacks something.
type HostError struct{ Err error }

func (h *HostError) Error() string { return h.Err.Error() }

// Unwrap serves errors.Is and errors.As.
func (h *HostError) Unwrap() error { return h.Err }

// StatusError ends the program with the status of a command that it ran. It
// prints nothing.
type StatusError struct{ Status int }

func (s *StatusError) Error() string { return fmt.Sprintf("exit status %d", s.Status) }

// PassStatus ends the program as a command that it ran for the person has ended,
// which said itself what is wrong.
func PassStatus(err error) error {
	var failed *execx.Error
	if errors.As(err, &failed) && !failed.NotFound && failed.Err == nil {
		if failed.Signal != 0 {
			return &StatusError{Status: 128 + int(failed.Signal)}
		}
		return &StatusError{Status: failed.ExitCode}
	}
	return err
}

// NoReader tells whether somebody closed the pipe that output goes to, as head
// does.
func NoReader(err error) bool {
	var write *fs.PathError
	return errors.As(err, &write) && errors.Is(err, syscall.EPIPE) && (write.Path == os.Stdout.Name() || write.Path == os.Stderr.Name())
}

// CommandName is the name of a command without that of the program, two words
// where it is in a group.
func CommandName(c *cli.Context) string {
	_, name, _ := strings.Cut(c.Command.HelpName, " ")
	return name
}

// OnUsageError is for cli.App and cli.Command: it says what is wrong with a flag.
func OnUsageError(c *cli.Context, err error, isSubcommand bool) error {
	command := ""
	if isSubcommand {
		command = CommandName(c)
	}
	return &UsageError{Command: command, Help: command == "", Err: ExplainFlag(c, err, command)}
}

// UnknownCommand says that the first argument is none of the commands, which are
// those of a group, or with "" those of the program.
func UnknownCommand(c *cli.Context, commands []*cli.Command, group string) error {
	name := c.Args().First()
	var known []string
	for _, command := range commands {
		known = append(known, command.Names()...)
	}
	text := fmt.Sprintf("there is no command %q", strings.TrimSpace(group+" "+name))
	if meant := names.Closest(name, known); meant != "" {
		text += fmt.Sprintf("; did you mean %q?", strings.TrimSpace(group+" "+meant))
	}
	return &UsageError{Command: group, Help: group == "", Err: errors.New(text)}
}
