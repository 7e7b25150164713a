// Package direct is the engine that keeps containers running by supervisor
// processes of its own. It needs nothing of the host's PID 1.
package direct

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"devhost/internal/engine"
	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/nspawn"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/registry"
	"devhost/internal/terminal"
)

// Engine implements engine.Engine, engine.Limiter and engine.Freezer. All fields are required.
type Engine struct {
	Layout registry.Layout
	// Load reads a container's record.
	Load   func(name string) (*registry.Container, error)
	Runner execx.Runner
	// Network is asked only to clear what a killed supervisor left.
	Network supervisor.Network
	// Supervise is the argument vector that runs supervisor.Run for a
	// container: the devhost program, --state-dir, supervise, the name.
	Supervise func(name string) []string
}

// Features says what this engine can do.
func (e *Engine) Features() engine.Features {
	tree, err := cgroup.Discover()
	return engine.Features{Name: "direct", Limits: true, Freezes: err == nil && tree.Freezes(), IOWeight: err == nil && tree.IOWeight()}
}

// State reads the supervisor's record and looks whether its processes live.
// A guest that lives without its supervisor is running, and Detail says so.
func (e *Engine) State(name string) (engine.State, error) {
	record, state, settled := supervisor.Look(e.Layout, name)
	if settled {
		return state, nil
	}
	supervised := state.SupervisorPID != 0
	switch {
	case supervised && state.LeaderPID == 0 && record.Status == engine.Running:
		// It has ended, and the supervisor is about to say how.
		state.Status = engine.Stopping
	case supervised:
	case state.LeaderPID != 0 && record.Status == engine.Running && record.Nspawn.Alive():
		state.Detail = fmt.Sprintf("its supervisor was killed; a new one takes over with: devhost start %s", name)
	default:
		state.Status = engine.Failed
		state.Detail = fmt.Sprintf("its supervisor was killed while it was %s; start it again with: devhost start %s", record.Status, name)
	}
	return state, nil
}

// Start starts the container and returns when the guest is up. Where a guest
// runs whose supervisor was killed, a new supervisor takes over. When the
// context ends, what was started is ended.
func (e *Engine) Start(ctx context.Context, name string) error {
	for {
		state, err := e.State(name)
		if err != nil {
			return err
		}
		if state.SupervisorPID == 0 {
			return e.startSupervisor(ctx, name)
		}
		if state.Status == engine.Running {
			return nil
		}
		// Another command started it and was killed, or it is on its way down:
		// wait until it is one or the other.
		if err := sleep(ctx, statePoll); err != nil {
			return &interrupted{cause: err, StartError: &engine.StartError{
				Name: name, Reason: fmt.Sprintf("it was still %s when the command ended", state.Status), LogPath: e.Layout.Log(name),
			}}
		}
	}
}

// statePoll is how often a state is looked at that somebody else changes.
const statePoll = 20 * time.Millisecond

func sleep(ctx context.Context, duration time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(duration):
		return nil
	}
}

// killPatience is how long a supervisor may take to clear up after it was told
// to kill.
const killPatience = 2 * time.Minute

func (e *Engine) startSupervisor(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	log, err := e.openSupervisorLog(name)
	if err != nil {
		return err
	}
	defer log.Close()
	reports, reportsEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reports.Close()
	consoleBefore := size(e.Layout.Log(name))
	argv := e.Supervise(name)
	const firstExtraFile = 3
	process, err := e.Runner.Start(execx.Command{
		Name: argv[0], Args: argv[1:],
		Env: []string{
			"PATH=" + os.Getenv("PATH"),
			fmt.Sprintf("%s=%d", supervisor.ReadyVariable, firstExtraFile),
		},
		Dir: "/", Stdout: log, Stderr: log, ExtraFiles: []*os.File{reportsEnd},
		// A session of its own: no terminal's signal reaches it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	_ = reportsEnd.Close()
	if err != nil {
		return &engine.StartError{Name: name, Reason: "its supervisor cannot be started: " + err.Error(), LogPath: e.Layout.SupervisorLog(name)}
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	reported := make(chan supervisor.Report, 1)
	go func() {
		var report supervisor.Report
		if json.NewDecoder(reports).Decode(&report) != nil {
			report.Reason = "its supervisor ended without a word; see " + e.Layout.SupervisorLog(name)
		}
		reported <- report
	}()
	select {
	case report := <-reported:
		if report.Up {
			return nil
		}
		// Its last steps are its own locks.
		<-ended
		return &engine.StartError{
			Name: name, Reason: terminal.Line(report.Reason), LogPath: e.Layout.Log(name),
			Tail: tail(e.Layout.Log(name), consoleBefore),
		}
	case <-ctx.Done():
	}
	// It was not up: the supervisor kills it and clears up.
	_ = process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(killPatience):
		_ = process.Signal(syscall.SIGKILL)
		<-ended
	}
	if err := e.clear(context.WithoutCancel(ctx), name); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return &interrupted{cause: ctx.Err(), StartError: &engine.StartError{
		Name: name, Reason: "it was not up when the command ended", LogPath: e.Layout.Log(name),
		Tail: tail(e.Layout.Log(name), consoleBefore),
	}}
}

// interrupted is the StartError of a start whose context ended.
type interrupted struct {
	*engine.StartError
	cause error
}

// Unwrap gives both, so that errors.Is finds context.Canceled.
func (i *interrupted) Unwrap() []error { return []error{i.StartError, i.cause} }

// openSupervisorLog opens the supervisor's log; it starts anew when it is long.
func (e *Engine) openSupervisorLog(name string) (*os.File, error) {
	const longest = 1 << 20
	path := e.Layout.SupervisorLog(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the container's logs: %w", err)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if size(path) > longest {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags, 0o600)
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Stop powers the guest off, and kills it when it is not off within timeout.
// Whatever a killed supervisor or nspawn left is cleared.
func (e *Engine) Stop(ctx context.Context, name string, timeout time.Duration) error {
	// A guest that is held cannot power off.
	if err := e.Thaw(name); err != nil {
		return err
	}
	record, _ := supervisor.ReadRecord(e.Layout, name)
	if holder := supervisor.Holder(e.Layout, name); record == nil && holder.PID != 0 {
		// The record is damaged, and the supervisor knows what it runs.
		record = &supervisor.Record{Name: name, Status: engine.Running, Supervisor: holder}
	}
	// The supervisor of a guest that has failed is about to end.
	if record != nil && (record.Status != engine.Failed || record.Supervisor.Alive()) {
		limited, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if record.Supervisor.Alive() {
			if err := e.stopSupervisor(ctx, limited, record); err != nil {
				return err
			}
		} else if record.Leader.Signal(nspawn.PowerOffSignal) == nil {
			// The guest lives on when nspawn alone was killed.
			_ = errors.Join(record.Nspawn.Wait(limited), record.Leader.Wait(limited))
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("container %s is still stopping: %w", name, err)
	}
	if err := e.clear(ctx, name); err != nil {
		return fmt.Errorf("container %s is not wholly stopped: %w; try again with: devhost stop %s", name, err, name)
	}
	return nil
}

// stopSupervisor asks twice: the first signal powers off, the second kills.
func (e *Engine) stopSupervisor(ctx, limited context.Context, record *supervisor.Record) error {
	for _, waiting := range []context.Context{limited, nil} {
		if err := record.Supervisor.Signal(syscall.SIGTERM); err != nil {
			if errors.Is(err, os.ErrProcessDone) {
				return nil
			}
			return err
		}
		if waiting == nil {
			patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
			defer cancel()
			waiting = patient
		}
		err := record.Supervisor.Wait(waiting)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("container %s is still stopping: %w", record.Name, ctx.Err())
		}
	}
	if err := record.Supervisor.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return record.Supervisor.Wait(context.WithoutCancel(ctx))
}

// clear removes what is left of a container without supervisor.
func (e *Engine) clear(ctx context.Context, name string) error {
	var address registry.Address
	// A broken record is not in the way of stopping.
	if container, err := e.Load(name); err == nil {
		address = container.Address
	}
	return supervisor.Clear(ctx, e.Layout, name, address, e.Network)
}

// SetLimits changes the limits of a running container; one that does not run
// gets them from its record when it starts.
func (e *Engine) SetLimits(_ context.Context, name string, limits registry.Limits) error {
	state, err := e.State(name)
	if err != nil || state.LeaderPID == 0 {
		return err
	}
	group, err := e.group(name)
	if err != nil {
		return err
	}
	return group.SetLimits(limits)
}

// Freeze holds all processes of a running container.
func (e *Engine) Freeze(ctx context.Context, name string) error {
	group, err := e.group(name)
	if err != nil {
		return err
	}
	return group.Freeze(ctx)
}

// Thaw lets the processes of a container go on.
func (e *Engine) Thaw(name string) error {
	group, err := e.group(name)
	if err != nil {
		return err
	}
	return group.Thaw()
}

func (e *Engine) group(name string) (*cgroup.Group, error) {
	tree, err := cgroup.Discover()
	if err != nil {
		return nil, err
	}
	return tree.Group(e.Layout.Instance(), name), nil
}

// Guest is where commands are run inside of a running container. The error is
// *enter.NotRunning when it does not run.
func (e *Engine) Guest(name string) (enter.Guest, error) {
	record, err := supervisor.ReadRecord(e.Layout, name)
	if err != nil {
		return enter.Guest{}, err
	}
	if record == nil || !record.Leader.Alive() {
		return enter.Guest{}, &enter.NotRunning{Name: name}
	}
	group, err := e.group(name)
	if err != nil {
		return enter.Guest{}, err
	}
	return enter.Guest{Name: name, Leader: record.Leader, Group: group}, nil
}
