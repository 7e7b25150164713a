package container

import (
	"io"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// TestIdleForgetsTheDaemon: who removes the last container and makes the next one,
// as "host apply" does, asks for a daemon again.
func TestIdleForgetsTheDaemon(t *testing.T) {
	systems := NewNixSystems(registry.Layout{State: t.TempDir()}, nix.New(execx.New(), nil), progress.Quiet(io.Discard), nil)
	systems.daemonAnswers = true
	if err := systems.Idle(t.Context()); err != nil || systems.daemonAnswers {
		t.Errorf("the daemon that was stopped answers: %v, %v", systems.daemonAnswers, err)
	}
}
