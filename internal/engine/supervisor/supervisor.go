// Package supervisor is the parent of a running container: it prepares cgroup
// and network, starts nspawn, keeps the console log, starts the guest again
// when it reboots, and clears everything when it ends.
package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
	"devhost/internal/engine/cgroup"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// Network is the host's side of a container's network.
type Network interface {
	// Attach waits for the container's host interface, which nspawn makes, and
	// connects it.
	Attach(ctx context.Context, name string, address registry.Address) error
	// Detach takes back what Attach did, and removes the interface where it is
	// still there. Nothing to take back is no error.
	Detach(ctx context.Context, name string, address registry.Address) error
}

// DefaultStopTimeout is how long a guest may take to power off when the
// supervisor is asked to end, before it is killed.
const DefaultStopTimeout = 90 * time.Second

// Options are what a supervisor needs. All fields without a default are
// required.
type Options struct {
	Layout registry.Layout
	Name   string
	// Load reads the container's record; it is read before every start of the
	// guest, so that a reboot boots the system of that time.
	Load    func(name string) (*registry.Container, error)
	Runner  execx.Runner
	Network Network
	Logger  hclog.Logger
	// Nspawn is the program to run in place of the one on PATH.
	Nspawn string
	// Refresh brings up to date what the guest is told about the host, such as
	// the resolvers. It is called every RefreshEvery (ten seconds if that is
	// zero) while the guest runs, and must be cheap; may be nil.
	Refresh      func() error
	RefreshEvery time.Duration
	// StopTimeout replaces DefaultStopTimeout.
	StopTimeout time.Duration
	// LogMegabytes replaces the size at which the console log is rotated,
	// which is 10.
	LogMegabytes int
}

// Failure says that a guest did not come up, or ended by itself.
type Failure struct {
	Name   string
	Reason string
	Err    error
}

func (f *Failure) Error() string { return fmt.Sprintf("container %s: %s", f.Name, f.Reason) }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Run supervises one container until it ends. It is the whole of a process:
// it closes descriptors that were inherited by accident. SIGTERM or SIGINT powers
// the guest off; a second one kills it. The end of the context means nothing: it
// comes with the first signal, and clearing up takes longer.
//
// It returns nil when the guest powered off or was asked to. The error is
// *Busy, or *Failure when the guest did not come up or ended by itself.
func Run(ctx context.Context, options Options) error {
	// Most of the time a supervisor does nothing; it should also weigh nothing.
	debug.SetGCPercent(10)
	pipe := readyPipe()
	closeInherited(pipe)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	// Its terminal may go away; nspawn inherits both, and must not end because
	// its supervisor was killed.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	return supervise(context.WithoutCancel(ctx), options, signals, &starter{pipe: pipe})
}

// supervisor is one run.
type supervisor struct {
	Options
	record Record
	// ids is the lock on the guest's ids, nil where nspawn holds it.
	ids     *os.File
	signals <-chan os.Signal
	starter *starter
	notify  *notifyReader
	log     *consoleLog
	group   *cgroup.Group
	// address is that of the container as it was started last.
	address registry.Address
	// stopping counts how often it was asked to stop.
	stopping int
}

func supervise(ctx context.Context, options Options, signals <-chan os.Signal, starter *starter) error {
	if options.StopTimeout == 0 {
		options.StopTimeout = DefaultStopTimeout
	}
	s := &supervisor{Options: options, signals: signals, starter: starter}
	unlock, err := lock(s.Layout, s.Name)
	if err != nil {
		starter.failed(err)
		return err
	}
	err = s.run(ctx)
	var failure *Failure
	if s.stopping > 0 {
		err = nil
	} else if err != nil && !errors.As(err, &failure) {
		err = &Failure{Name: s.Name, Reason: err.Error(), Err: err}
	}
	err = errors.Join(err, s.end(ctx, err))
	unlock()
	removeRuntime(s.Layout)
	if err != nil {
		s.Logger.Error("ended", "error", err)
	} else {
		s.Logger.Info("ended")
	}
	// Last, so that whoever hears it finds everything cleared.
	starter.failed(err)
	return err
}

func (s *supervisor) run(ctx context.Context) error {
	own, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	s.record.Supervisor = own
	// For who finds a damaged record.
	if text, err := json.Marshal(own); err == nil {
		_ = os.WriteFile(lockPath(s.Layout, s.Name), text, 0o600)
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	s.group = tree.Group(s.Layout.Instance(), s.Name)
	old, err := ReadRecord(s.Layout, s.Name)
	if err != nil {
		// Whatever it said, this supervisor starts from nothing.
		s.Logger.Warn("the last record is lost", "error", err)
	}
	s.log = openLog(s.Layout.Log(s.Name), s.LogMegabytes)
	defer s.log.Close()
	s.notify, err = listen(notifySocket(s.Layout, s.Name))
	if err != nil {
		return err
	}
	defer s.notify.Close()

	refreshing, endRefresh := context.WithCancel(ctx)
	defer endRefresh()
	go s.refresh(refreshing)
	var life *life
	if old != nil && old.Status == engine.Running && old.Nspawn.Alive() && old.Leader.Alive() {
		s.record = *old
		s.record.Supervisor = own
		life, err = s.takeOver(ctx)
	} else {
		s.record.Name, s.record.Supervisor = s.Name, own
		if old != nil {
			s.record.UIDBase = old.UIDBase
		}
		life, err = s.start(ctx)
	}
	for quick := 0; err == nil; {
		rebooted, watchErr := s.watch(ctx, life)
		if watchErr != nil || !rebooted || s.stopping > 0 {
			return watchErr
		}
		if quick = s.pause(quick); s.stopping > 0 {
			return nil
		}
		life, err = s.start(ctx)
	}
	return err
}

// refreshEvery is how soon a guest learns what changed on the host.
const refreshEvery = 10 * time.Second

func (s *supervisor) refresh(ctx context.Context) {
	if s.Refresh == nil {
		return
	}
	every := s.RefreshEvery
	if every == 0 {
		every = refreshEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.Refresh(); err != nil {
				s.Logger.Warn("cannot refresh what the guest knows of the host", "error", err)
			}
		}
	}
}

// A guest that reboots again and again right after its start gets a pause, so
// that it does not eat the host.
const (
	quickLife    = 5 * time.Second
	quickReboots = 3
	rebootPause  = 2 * time.Second
)

// pause waits before a start where it must, and returns the number of quick
// reboots in a row.
func (s *supervisor) pause(quick int) int {
	if time.Since(s.record.StartedAt) > quickLife {
		return 0
	}
	if quick++; quick < quickReboots {
		return quick
	}
	s.log.note("the guest reboots again and again; the next start waits %s", rebootPause)
	select {
	case <-time.After(rebootPause):
	case <-s.signals:
		s.stopping++
	}
	return quick
}

// end clears everything and leaves a record only of a failure.
func (s *supervisor) end(ctx context.Context, failure error) error {
	problems := []error{s.clearProcesses(ctx), s.removeGroup(ctx), removeIfThere(consolePipe(s.Layout, s.Name))}
	if s.address.HostInterface != "" {
		problems = append(problems, s.Network.Detach(ctx, s.Name, s.address))
	}
	if failure == nil {
		return errors.Join(append(problems, removeRecord(s.Layout, s.Name))...)
	}
	detail := failure.Error()
	var known *Failure
	if errors.As(failure, &known) {
		detail = known.Reason
	}
	failed := Record{Name: s.Name, Status: engine.Failed, Supervisor: s.record.Supervisor, Detail: detail, System: s.record.System, StartedAt: s.record.StartedAt}
	return errors.Join(append(problems, failed.write(s.Layout))...)
}
