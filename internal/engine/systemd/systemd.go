// Package systemd is the engine that keeps containers running as units of
// systemd, which it talks to over D-Bus. It is for hosts whose PID 1 is systemd.
//
// A container is an instance of the template unit devhost@.service. For another
// state folder than the usual one, and where that unit is not installed, the
// engine writes a template of its own below /run. What the unit's processes do is
// in supervisor.Unit; what they record there costs State no call of D-Bus.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"devhost/internal/engine"
	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/enter"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/registry"
	"devhost/internal/terminal"
)

// Booted says whether PID 1 is systemd, see sd_booted(3).
func Booted() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// Engine implements engine.Engine and its further interfaces. All fields are
// required.
type Engine struct {
	Layout registry.Layout
	// Load reads a container's record.
	Load func(name string) (*registry.Container, error)
	// Runner runs journalctl.
	Runner execx.Runner
	// Network is asked only to clear what a killed unit left.
	Network supervisor.Network
	// Program is the absolute path of the program whose command supervise calls
	// the methods of supervisor.Unit. It is given --state-dir.
	Program string
}

// Features says what this engine can do.
func (e *Engine) Features() engine.Features {
	tree, err := cgroup.Discover()
	return engine.Features{
		Name: "systemd", Limits: true, Journal: true, StartsOnBoot: e.startsOnBoot(),
		Freezes: err == nil && tree.Freezes(), IOWeight: err == nil && tree.IOWeight(),
	}
}

// connect opens a connection to systemd. Its own socket needs no bus and is the
// faster one.
func connect(ctx context.Context) (*dbus.Conn, error) {
	connection, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		return connection, nil
	}
	connection, busErr := dbus.NewSystemConnectionContext(ctx)
	if busErr != nil {
		return nil, fmt.Errorf("cannot talk to systemd: %w", errors.Join(err, busErr))
	}
	return connection, nil
}

// activeStates are systemd's states of a unit.
var activeStates = map[string]engine.Status{
	"active": engine.Running, "reloading": engine.Running, "activating": engine.Starting,
	"deactivating": engine.Stopping, "inactive": engine.Stopped, "failed": engine.Failed,
}

// stateTimeout bounds the question for a unit's state.
const stateTimeout = 30 * time.Second

// State reads what the unit's processes recorded and looks whether they live.
// Only for a container that has just ended it asks systemd.
func (e *Engine) State(name string) (engine.State, error) {
	record, state, settled := supervisor.Look(e.Layout, name)
	if settled {
		return state, nil
	}
	switch {
	case state.SupervisorPID == 0:
		// It reboots, or systemd is about to record how it ended.
		return e.ask(name, state)
	case state.LeaderPID == 0 && record.Status == engine.Running:
		state.Status = engine.Stopping
	}
	return state, nil
}

// ask takes the status of a container from systemd.
func (e *Engine) ask(name string, state engine.State) (engine.State, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	connection, err := connect(ctx)
	if err != nil {
		return state, err
	}
	defer connection.Close()
	active, err := e.active(ctx, connection, name)
	if err != nil {
		return state, err
	}
	// What it recorded while systemd was asked is better.
	if record, err := supervisor.ReadRecord(e.Layout, name); err == nil && (record == nil || record.Status == engine.Failed || record.Supervisor.Alive()) {
		if record != nil {
			return e.State(name)
		}
		return engine.State{Status: engine.Stopped}, nil
	}
	switch state.Status = active; active {
	case engine.Stopped:
		return engine.State{Status: engine.Stopped}, nil
	case engine.Running:
		// nspawn has ended, and systemd has not noticed yet.
		state.Status = engine.Stopping
	case engine.Failed:
		state.Detail = fmt.Sprintf("its unit failed; see: journalctl --unit=%s; start it again with: devhost start %s", e.unit(name), name)
	}
	return state, nil
}

// active is the state of a container's unit.
func (e *Engine) active(ctx context.Context, connection *dbus.Conn, name string) (engine.Status, error) {
	property, err := connection.GetUnitPropertyContext(ctx, e.unit(name), "ActiveState")
	if err != nil {
		return "", fmt.Errorf("cannot ask systemd for unit %s: %w", e.unit(name), err)
	}
	text, _ := property.Value.Value().(string)
	status, known := activeStates[text]
	if !known {
		return "", fmt.Errorf("unit %s is %q, which devhost does not know", e.unit(name), text)
	}
	return status, nil
}

// How to look on at what a unit does.
func (e *Engine) journalCommand(name string) string { return "journalctl --unit=" + e.unit(name) }

// jobDone is systemd's result of a job that did what it should.
const jobDone = "done"

// Start starts the container's unit and returns when the guest is up. When the
// context ends, what was started is ended.
func (e *Engine) Start(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if state, err := e.State(name); err != nil || state.Status == engine.Running {
		return err
	}
	// It is still needed when the context has ended.
	connection, err := connect(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer connection.Close()
	began := time.Now()
	done, err := e.startJob(ctx, connection, name)
	if err != nil {
		return e.startError(ctx, name, "systemd does not start it: "+err.Error(), began)
	}
	select {
	case result := <-done:
		return e.started(ctx, name, result, began)
	case <-ctx.Done():
	}
	failure := e.startError(context.WithoutCancel(ctx), name, "it was not up when the command ended", began)
	// What is not up has nothing to power off.
	if err := e.Stop(context.WithoutCancel(ctx), name, 0); err != nil {
		return errors.Join(ctx.Err(), failure, err)
	}
	return &interrupted{StartError: failure, cause: ctx.Err()}
}

// startJob makes sure that the unit is there, and starts it.
func (e *Engine) startJob(ctx context.Context, connection *dbus.Conn, name string) (<-chan string, error) {
	if err := e.writeUnits(ctx, connection); err != nil {
		return nil, err
	}
	done := make(chan string, 1)
	_, err := connection.StartUnitContext(ctx, e.unit(name), "replace", done)
	if isMissing(err) {
		// The last container of this state folder went away and took it along.
		if err := e.writeUnits(ctx, connection); err != nil {
			return nil, err
		}
		_, err = connection.StartUnitContext(ctx, e.unit(name), "replace", done)
	}
	return done, err
}

// started says what the end of a start job means.
func (e *Engine) started(ctx context.Context, name, result string, began time.Time) error {
	state, err := e.State(name)
	if err != nil {
		return err
	}
	switch {
	case state.Status == engine.Failed:
		return e.startError(ctx, name, state.Detail, began)
	case result == jobDone:
		// It may have powered off since: then it was up.
		return nil
	case result == "canceled":
		return e.startError(ctx, name, "another command stopped it while it started", began)
	}
	return e.startError(ctx, name, fmt.Sprintf("systemd says %q of its unit %s", result, e.unit(name)), began)
}

func (e *Engine) startError(ctx context.Context, name, reason string, began time.Time) *engine.StartError {
	return &engine.StartError{
		Name: name, Reason: terminal.Line(reason), LogPath: e.journalCommand(name), Tail: e.tail(ctx, name, began),
	}
}

// interrupted is the StartError of a start whose context ended.
type interrupted struct {
	*engine.StartError
	cause error
}

// Unwrap gives both, so that errors.Is finds context.Canceled.
func (i *interrupted) Unwrap() []error { return []error{i.StartError, i.cause} }

// ForeignSupervisor says that a container is not run by a unit of systemd but by
// a supervisor of the engine direct.
type ForeignSupervisor struct {
	Name string
	PID  int
}

func (f *ForeignSupervisor) Error() string {
	return fmt.Sprintf("container %s is run by a supervisor of its own (process %d), not by systemd; stop it as root with: DEVHOST_ENGINE=direct devhost stop %s", f.Name, f.PID, f.Name)
}

// killPatience is how long systemd may take to clear up what was killed.
const killPatience = 2 * time.Minute

// Stop powers the guest off, and kills it when it is not off within timeout.
// Whatever a killed unit left is cleared.
func (e *Engine) Stop(ctx context.Context, name string, timeout time.Duration) error {
	// A guest that is held cannot power off.
	if err := e.Thaw(name); err != nil {
		return err
	}
	record, _ := supervisor.ReadRecord(e.Layout, name)
	if record != nil && record.Supervisor != record.Nspawn && record.Supervisor.Alive() {
		return &ForeignSupervisor{Name: name, PID: record.Supervisor.PID}
	}
	connection, err := connect(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer connection.Close()
	active, err := e.active(ctx, connection, name)
	if err != nil {
		return err
	}
	if active != engine.Stopped && active != engine.Failed {
		if err := e.stopUnit(ctx, connection, name, record, timeout); err != nil {
			return err
		}
	}
	// A failure that was seen to is none any more; what never failed cannot be reset.
	_ = connection.ResetFailedUnitContext(ctx, e.unit(name))
	if err := e.clear(ctx, name); err != nil {
		return fmt.Errorf("container %s is not wholly stopped: %w; try again with: devhost stop %s", name, err, name)
	}
	return nil
}

func (e *Engine) stopUnit(ctx context.Context, connection *dbus.Conn, name string, record *supervisor.Record, timeout time.Duration) error {
	if err := supervisor.MarkStopping(e.Layout, name); err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := connection.StopUnitContext(ctx, e.unit(name), "replace", done); err != nil {
		return fmt.Errorf("systemd does not stop unit %s: %w", e.unit(name), err)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if record != nil {
		go powerOff(limited, record)
	}
	result, err := waitForJob(limited, done)
	if ctx.Err() != nil {
		return fmt.Errorf("container %s is still stopping: %w", name, ctx.Err())
	}
	if err != nil {
		// Everything in the unit; it may have ended at this moment.
		killErr := connection.KillUnitWithTarget(ctx, e.unit(name), dbus.All, int32(syscall.SIGKILL))
		patient, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		if result, err = waitForJob(patient, done); err != nil {
			return fmt.Errorf("container %s cannot be killed: unit %s did not stop within %s: %w", name, e.unit(name), killPatience, errors.Join(killErr, err))
		}
	}
	if result != jobDone {
		return fmt.Errorf("container %s is not stopped: systemd says %q of its unit %s; another command may have started it; try again with: devhost stop %s", name, result, e.unit(name), name)
	}
	return nil
}

func waitForJob(ctx context.Context, done <-chan string) (string, error) {
	select {
	case result := <-done:
		return result, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// powerOff tells the guest to power off until it does: nspawn says it once, and
// the guest's first process may not be systemd yet, which ignores it then.
func powerOff(ctx context.Context, record *supervisor.Record) {
	for record.Leader.Alive() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(record.PowerOff()):
		}
	}
}

// clear removes what is left of a container whose unit does not run.
func (e *Engine) clear(ctx context.Context, name string) error {
	var address registry.Address
	// A broken record is not in the way of stopping.
	if container, err := e.Load(name); err == nil {
		address = container.Address
	}
	return errors.Join(supervisor.Clear(ctx, e.Layout, name, address, e.Network), e.Unregister(ctx, name), e.ForgetLimits(name))
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
	group, err := e.group(name, record)
	if err != nil {
		return enter.Guest{}, err
	}
	return enter.Guest{Name: name, Leader: record.Leader, Group: group}, nil
}

// Freeze holds all processes of a running container.
func (e *Engine) Freeze(ctx context.Context, name string) error {
	guest, err := e.Guest(name)
	if err != nil {
		return err
	}
	return guest.Group.Freeze(ctx)
}

// Thaw lets the processes of a container go on.
func (e *Engine) Thaw(name string) error {
	guest, err := e.Guest(name)
	if err != nil {
		// What does not run is not held.
		return nil
	}
	return guest.Group.Thaw()
}
