package install

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"devhost/internal/execx"
)

// explain writes an error for the person at the host, with what to do where
// that is not told by it.
func explain(err error) string {
	text := err.Error()
	switch {
	case isFull(err):
		text += "\nThe disk is full: raise devbox.vm.diskGB, and install again"
	case errors.Is(err, context.Canceled):
		text += "\nIt was interrupted; install again to go on with it"
	}
	return text
}

// noReport is a report that cannot be written. It does not wrap why: a seed
// disk that is full is not the disk which is installed to.
func noReport(err error) error {
	return errors.New("cannot write the report to the seed disk: " + err.Error() + "; devbox-cli init makes a new seed disk")
}

// step is a failure of a program whose arguments say nothing to a person.
type step struct {
	what string
	err  error
}

func (s *step) Error() string {
	text := s.what + ": " + s.err.Error()
	var failed *execx.Error
	if errors.As(s.err, &failed) {
		text = strings.Join(append([]string{s.what + " " + failed.Reason()}, failed.Tail...), "\n  ")
	}
	return text
}

func (s *step) Unwrap() error { return s.err }

// isFull says whether something failed for want of space. Programs say it in
// words.
func isFull(err error) bool {
	if errors.Is(err, syscall.ENOSPC) {
		return true
	}
	var failed *execx.Error
	if errors.As(err, &failed) {
		for _, line := range failed.Tail {
			if strings.Contains(line, "No space left on device") {
				return true
			}
		}
	}
	return false
}
