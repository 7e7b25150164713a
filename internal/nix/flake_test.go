package nix

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/execx"
)

// noPrograms is a machine without any program.
type noPrograms struct{ execx.Runner }

func (noPrograms) Output(_ context.Context, command execx.Command) ([]byte, error) {
	return nil, &execx.Error{Argv: append([]string{command.Name}, command.Args...), NotFound: true}
}

func TestEvaluateFlakeWithoutNix(t *testing.T) {
	own := Own{Runner: noPrograms{}}
	err := own.EvaluateFlake(t.Context(), ".#x", "a long function", filepath.Join(t.TempDir(), "log"), nil)
	var missing *NotInstalled
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "install it with: ") || strings.Contains(err.Error(), "a long function") {
		t.Errorf("error: %v", err)
	}
}
