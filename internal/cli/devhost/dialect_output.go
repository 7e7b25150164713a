package devhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"devhost/internal/cli/cliargs"
	"devhost/internal/execx"
)

// defectSign is what batou looks for in the output to tell that fc-manage
// failed. A builder or a guest could print it, too.
const (
	defectSign   = "__FC_MANAGE_DEFECT_INDICATOR__"
	defectInText = "(fc-manage defect indicator)"
)

// withoutDefects runs something with batou's sign taken out of all output.
func (a *app) withoutDefects(run func() int) int {
	streams := a.streams
	out, outEnd, err := filtered(streams.Out)
	if err != nil {
		fmt.Fprintf(streams.Err, "%s: %v\n", a.programName(), err)
		return cliargs.ExitFailed
	}
	problem, problemEnd, err := filtered(streams.Err)
	if err != nil {
		_ = errors.Join(out.Close(), <-outEnd)
		fmt.Fprintf(streams.Err, "%s: %v\n", a.programName(), err)
		return cliargs.ExitFailed
	}
	a.streams.Out, a.streams.Err = out, problem
	status := run()
	a.streams = streams
	_ = errors.Join(out.Close(), problem.Close(), <-outEnd, <-problemEnd)
	return status
}

// filtered is a file whose lines arrive at another one without the sign. The
// channel gets a value when all of them have.
func filtered(to *os.File) (*os.File, <-chan error, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() {
		lines := &execx.LineWriter{Line: func(line string) {
			// A line is as long as a line may be: the sign is never cut in two.
			fmt.Fprintln(to, strings.ReplaceAll(line, defectSign, defectInText))
		}}
		_, err := io.Copy(lines, reader)
		done <- errors.Join(err, lines.Close(), reader.Close())
	}()
	return writer, done, nil
}
