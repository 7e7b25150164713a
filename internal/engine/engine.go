// Package engine says what keeps containers running. Callers know no engine by
// name: they ask its Features.
package engine

import (
	"context"
	"fmt"
	"io"
	"time"

	"devhost/internal/registry"
)

// Status is a container's state as the engine sees it.
type Status string

// The states that a container can be in.
const (
	Stopped  Status = "stopped"
	Starting Status = "starting"
	Running  Status = "running"
	Stopping Status = "stopping"
	// Failed says that it ended by itself, with an error.
	Failed Status = "failed"
)

// Features are what an engine can do, for callers to ask instead of its name.
type Features struct {
	// Name is for people.
	Name string
	// Limits says that memory, cpu and task limits are enforced.
	Limits bool
	// StartsOnBoot says that enabled containers start with the host.
	StartsOnBoot bool
	// Journal says that what containers write to their consoles is in the
	// host's journal, and that the engine is a Journal.
	Journal bool
	// IOWeight says that this host's disks heed weights.
	IOWeight bool
	// Freezes says that the engine is a Freezer on this host.
	Freezes bool
}

// State is what an engine knows of one container.
type State struct {
	Status Status
	// SupervisorPID and LeaderPID are host pids, 0 when there is none. The
	// leader is PID 1 of the guest.
	SupervisorPID, LeaderPID int
	// StartedAt is when the guest's PID 1 was started last.
	StartedAt time.Time
	// Detail says why, when Status is Failed, and what is amiss with a
	// container that runs, such as a supervisor that was killed.
	Detail string
}

// Engine keeps containers running. All calls are safe for use by several
// processes at once; the caller holds the container's lock for Start and Stop.
type Engine interface {
	Features() Features
	// Start starts the container from its record and returns when the guest's
	// PID 1 runs and its network is connected; what it starts takes longer. Starting a running container does nothing.
	Start(ctx context.Context, name string) error
	// Stop asks the guest to power off, waits up to timeout, then kills. Where
	// nothing runs it clears what a killed supervisor left.
	Stop(ctx context.Context, name string, timeout time.Duration) error
	// State costs no process and no waiting.
	State(name string) (State, error)
}

// Limiter is an engine that can change the limits of a running container.
type Limiter interface {
	SetLimits(ctx context.Context, name string, limits registry.Limits) error
}

// Freezer is an engine that can hold a running container, so that nothing in it
// changes: Features.Freezes says whether this host lets it. Stop works on a held
// container too.
type Freezer interface {
	// Freeze holds all processes of the container, what exec started too, and
	// returns when they stand still. When that fails none is held.
	Freeze(ctx context.Context, name string) error
	// Thaw lets them go on. One that is not held is left alone.
	Thaw(name string) error
}

// ConsoleOptions say what to show of a console.
type ConsoleOptions struct {
	// Lines is how many of the last lines, 0 for all.
	Lines int
	// Follow goes on with what is written from now on, until the context ends.
	Follow bool
}

// Journal is an engine that keeps no file of what containers write to their
// consoles: Features.Journal says so.
type Journal interface {
	// Console writes lines of a container's console to out, as the guest wrote
	// them: they are not fit for a terminal.
	Console(ctx context.Context, name string, options ConsoleOptions, out io.Writer) error
}

// Preparer is an engine that keeps something on the host for all containers of
// the state folder together.
type Preparer interface {
	// Prepare makes it, for when the host has started; Start does so too.
	Prepare(ctx context.Context) error
	// Tidy removes it, when no container is left.
	Tidy(ctx context.Context) error
}

// StartError says that a container did not come up.
type StartError struct {
	Name string
	// Reason is what the supervisor or nspawn said.
	Reason string
	// LogPath is where all of it is, a file or a command that shows it; Tail
	// holds its last lines.
	LogPath string
	Tail    []string
}

func (s *StartError) Error() string {
	text := fmt.Sprintf("container %s did not start: %s (log: %s)", s.Name, s.Reason, s.LogPath)
	for _, line := range s.Tail {
		text += "\n  " + line
	}
	return text
}
