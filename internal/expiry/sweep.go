package expiry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"devhost/internal/container"
	"devhost/internal/engine"
	"devhost/internal/engine/enter"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Outcomes of a sweep that are no actions.
const (
	// Busy says that another command works on the container.
	Busy Action = "busy"
	// Broken says that the record cannot be read: nothing is done then.
	Broken Action = "broken"
	// DropArchive says that an archive's time is over.
	DropArchive Action = "drop-archive"
)

// Event is one thing that a sweep did, or would do.
type Event struct {
	Name   string `json:"name"`
	Action Action `json:"action"`
	// At is when what was warned of happens; for a deletion, until when the
	// archive is kept; zero where there is none.
	At time.Time `json:"at,omitzero"`
	// Text says it in words.
	Text string `json:"text"`
	// Error says why it was not done, "" if it was.
	Error string `json:"error,omitempty"`
	// Err is the same for callers.
	Err error `json:"-"`
	// Began is when it was begun.
	Began time.Time `json:"-"`
}

// Sweep goes over all containers and does what is due. All fields but DryRun
// and OnEvent are required.
type Sweep struct {
	Manager  *container.Manager
	Settings settings.Expiry
	Now      func() time.Time
	// Use finds out who is in a running container.
	Use func(name string) (enter.Use, error)
	// DryRun changes nothing.
	DryRun bool
	// OnEvent is told at once.
	OnEvent func(Event)
}

// Failed says that some of what was due could not be done.
type Failed struct{ Errors []error }

func (f *Failed) Error() string {
	if len(f.Errors) == 1 {
		return fmt.Sprintf("one thing could not be done; it is tried again next time: %v", f.Errors[0])
	}
	return fmt.Sprintf("%d things could not be done; they are tried again next time: %v", len(f.Errors), errors.Join(f.Errors...))
}

// Unwrap gives the causes.
func (f *Failed) Unwrap() []error { return f.Errors }

// Run sweeps once. What goes wrong with one container does not keep it from the
// others; the error is then a *Failed.
func (s *Sweep) Run(ctx context.Context) ([]Event, error) {
	entries, err := s.Manager.Registry.List()
	if err != nil {
		return nil, err
	}
	run := &run{Sweep: s, events: []Event{}}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return run.events, ctx.Err()
		}
		run.container(ctx, entry)
	}
	if err := run.archives(ctx); err != nil {
		run.failed = append(run.failed, err)
	}
	if ctx.Err() != nil {
		return run.events, ctx.Err()
	}
	if len(run.failed) > 0 {
		return run.events, &Failed{Errors: run.failed}
	}
	return run.events, nil
}

type run struct {
	*Sweep
	events []Event
	failed []error
}

func (r *run) event(event Event) {
	if event.Err != nil {
		event.Error = event.Err.Error()
		r.failed = append(r.failed, fmt.Errorf("%s: %w", event.Name, event.Err))
	}
	r.events = append(r.events, event)
	if r.OnEvent != nil {
		r.OnEvent(event)
	}
}

func (r *run) container(ctx context.Context, entry registry.Entry) {
	name := entry.Name
	began := r.Now()
	if entry.Err != nil {
		r.event(Event{Name: name, Action: Broken, Began: began, Text: "is left alone, because its state cannot be read", Error: entry.Err.Error()})
		return
	}
	state, err := r.Manager.Engine.State(name)
	if err != nil {
		r.event(Event{Name: name, Action: Broken, Began: began, Text: "is left alone, because its state cannot be found out", Err: err})
		return
	}
	running := runs(state)
	if Decide(entry.Container, r.Settings, Situation{Running: running}, began) == Nothing &&
		r.Manager.Notice(name) == notice(entry.Container, r.Settings, running, began) {
		return
	}
	if r.DryRun {
		copied := *entry.Container
		r.steps(ctx, &trial{record: &copied}, running)
		return
	}
	err = r.Manager.Visit(ctx, name, "expire", 0, func(visit *container.Visit) error {
		r.steps(ctx, visiting{visit}, runs(visit.State))
		return nil
	})
	var (
		locked *registry.Locked
		gone   *registry.NotRegistered
	)
	switch {
	case errors.As(err, &locked):
		r.event(Event{Name: name, Action: Busy, Began: began, Text: "is in use by another command; it is looked at again next time"})
	case errors.As(err, &gone):
		// Somebody destroyed it meanwhile.
	case err != nil && ctx.Err() == nil:
		r.event(Event{Name: name, Action: Broken, Began: began, Text: "is left alone", Err: err})
	}
}

func runs(state engine.State) bool {
	return state.Status == engine.Running || state.Status == engine.Starting || state.Status == engine.Stopping
}

// handle is a container that things are done with.
type handle interface {
	Container() *registry.Container
	Save() error
	Notice(text string) error
	Stop(ctx context.Context) error
	Archive(ctx context.Context, reason string) (*registry.Archive, error)
	Destroy(ctx context.Context) error
}

type visiting struct{ *container.Visit }

func (v visiting) Container() *registry.Container { return v.Record }

// trial is a container with which nothing is done.
type trial struct{ record *registry.Container }

func (t *trial) Container() *registry.Container { return t.record }
func (*trial) Save() error                      { return nil }
func (*trial) Notice(string) error              { return nil }
func (*trial) Stop(context.Context) error       { return nil }
func (*trial) Archive(context.Context, string) (*registry.Archive, error) {
	return &registry.Archive{}, nil
}
func (*trial) Destroy(context.Context) error { return nil }

// mostSteps bounds what is done with one container in one sweep: a warning of
// each kind, a stop and a deletion.
const mostSteps = 4

// steps does what is due with a container whose lock is held.
func (r *run) steps(ctx context.Context, handle handle, running bool) {
	record := handle.Container()
	for range mostSteps {
		now := r.Now()
		action := Decide(record, r.Settings, Situation{Running: running}, now)
		if action == Nothing {
			break
		}
		event := Event{Name: record.Name, Action: action, Began: now}
		var use enter.Use
		if running && (action == Stop || action == Delete) {
			var err error
			if use, err = r.Use(record.Name); err != nil {
				event.Text, event.Err = "is not stopped, because it is not known whether it is in use", err
				r.event(event)
				break
			}
			event.Action = Decide(record, r.Settings, Situation{Running: true, InUse: use.Busy()}, now)
		}
		r.act(ctx, handle, &event, use, action)
		r.event(event)
		if event.Err != nil || event.Action == Tell {
			break
		}
		if event.Action == Delete {
			return
		}
		if event.Action == Stop {
			running = false
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err := handle.Notice(notice(record, r.Settings, running, r.Now())); err != nil {
		r.event(Event{Name: record.Name, Action: WarnStop, Began: r.Now(), Text: "cannot be told about it at login", Err: err})
	}
}

// act does one action and says so in the event. due is what is due, where the
// action is Tell.
func (r *run) act(ctx context.Context, handle handle, event *Event, use enter.Use, due Action) {
	record, now := handle.Container(), event.Began
	deadlines := DeadlinesOf(record, r.Settings)
	switch event.Action {
	case WarnStop:
		record.Expiry.StopWarnedAt = now.UTC()
		event.At = deadlines.Stop.Effective(now, now)
		event.Text = fmt.Sprintf("will be stopped on %s (%s)", Format(event.At), Reason(record, now))
		event.Err = handle.Save()
	case WarnDelete:
		record.Expiry.DeleteWarnedAt = now.UTC()
		event.At = deadlines.Delete.Effective(now, now)
		event.Text = fmt.Sprintf("will be deleted on %s (%s)", Format(event.At), Reason(record, now))
		event.Err = handle.Save()
	case Stop:
		record.Expiry.StoppedAt = now.UTC()
		event.Text = fmt.Sprintf("stopped (%s)", Reason(record, now))
		event.Err = handle.Stop(ctx)
	case Delete:
		event.Text = fmt.Sprintf("archived and deleted (%s)", Reason(record, now))
		event.At, event.Err = r.delete(ctx, handle)
	case Tell:
		event.Text = fmt.Sprintf("is due and in use (%s); it is tried again next time", use)
		if !r.DryRun {
			r.tell(ctx, record.Name, due)
		}
	}
}

func (r *run) delete(ctx context.Context, handle handle) (kept time.Time, err error) {
	if err := handle.Stop(ctx); err != nil {
		return kept, err
	}
	archive, err := handle.Archive(ctx, "expired: "+Reason(handle.Container(), r.Now()))
	if err != nil {
		return kept, fmt.Errorf("without an archive it is not deleted: %w", err)
	}
	if r.Settings.ArchiveFor > 0 {
		kept = r.Now().Add(time.Duration(r.Settings.ArchiveFor))
	}
	if err := handle.Destroy(ctx); err != nil {
		return kept, fmt.Errorf("it is archived (%s), but not wholly deleted: %w", archive.ID, err)
	}
	return kept, nil
}

// archives removes those whose time is over, unless all of expiry is off.
func (r *run) archives(ctx context.Context) error {
	if !r.Settings.Enable {
		return nil
	}
	removed, err := r.Manager.DropArchives(ctx, time.Duration(r.Settings.ArchiveFor), r.DryRun)
	for _, archive := range removed {
		r.event(Event{Name: archive.Name, Action: DropArchive, Began: r.Now(), Text: fmt.Sprintf("its archive of %s is deleted, as its time is over", Format(archive.ArchivedAt))})
	}
	return err
}

const (
	// tellTimeout bounds how long a guest may take to show a message.
	tellTimeout = 20 * time.Second
	// tellScript writes its first argument to all terminals. One that takes
	// nothing (Ctrl-S) holds up nobody.
	tellScript = `for terminal in /dev/pts/[0-9]*; do
  [ -c "$terminal" ] && printf '%s' "$0" | dd of="$terminal" oflag=nonblock,noctty conv=notrunc status=none 2>/dev/null
done
exit 0`
)

// tell writes to the terminals in a container. Sessions without one cannot be
// told, and a guest that does not show it is no reason to fail.
func (r *run) tell(ctx context.Context, name string, due Action) {
	what := "stopped"
	if due == Delete {
		what = "archived and deleted"
	}
	text := fmt.Sprintf("\r\n*** devhost: container %s is to be %s, and waits for you to log out. To have it longer, on the dev host: devhost keep %s --for 14d\r\n", name, what, name)
	limited, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if _, err := r.Manager.Guest.Run(limited, name, nil, nil, "/bin/sh", "-c", tellScript, text); err != nil {
		r.Manager.Logger.Warn("cannot tell the people in the container", "container", name, "error", err)
	}
}
