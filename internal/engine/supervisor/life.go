package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"devhost/internal/engine"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/process"
)

// life is the guest from one start of nspawn to its end.
type life struct {
	// ended gets how nspawn ended, once.
	ended chan ending
	// attached gets whether the network is connected, once; nil when it is
	// connected from before.
	attached <-chan error
	detach   context.CancelFunc
	// words are nspawn's own.
	words *lastLine
}

// ending is how nspawn ended.
type ending struct {
	// status is its exit status, or -1.
	status int
	// reason says it in words.
	reason string
}

// start starts nspawn for the container as its record is now.
func (s *supervisor) start(ctx context.Context) (*life, error) {
	container, err := s.Load(s.Name)
	if err != nil {
		return nil, err
	}
	s.address = container.Address
	// Cgroups that an earlier life of the guest made belong to its ids of then.
	if err := errors.Join(s.clearProcesses(ctx), s.removeGroup(ctx)); err != nil {
		return nil, err
	}
	// The interface of an earlier life may still be there for a moment.
	if err := s.Network.Detach(ctx, s.Name, container.Address); err != nil {
		return nil, err
	}
	if err := raiseKernelLimits("/proc/sys"); err != nil {
		s.Logger.Warn("limits of the kernel cannot be raised: with many containers, the next one may not start", "error", err)
	}
	prepared, err := Prepare(ctx, s.Layout, container, s.Runner, s.notify.path, s.Nspawn)
	if err != nil {
		return nil, err
	}
	s.ids = prepared.IDs
	console, consoleEnd, err := makeConsole(consolePipe(s.Layout, s.Name))
	if err != nil {
		return nil, err
	}
	words, wordsEnd, err := os.Pipe()
	if err != nil {
		_, _ = console.Close(), consoleEnd.Close()
		return nil, err
	}
	s.notify.reset()
	if prepared.Fallback != nil {
		s.log.note("%v; the host's own takes its place", prepared.Fallback)
	}
	s.log.note("starting %s", prepared.System)
	nspawnProcess, err := prepared.Group.Top().Start(s.Runner, execx.Command{
		Name: prepared.Argv[0], Args: prepared.Argv[1:], Env: prepared.Environment,
		Dir: "/", Stdout: consoleEnd, Stderr: wordsEnd,
	})
	_, _ = consoleEnd.Close(), wordsEnd.Close()
	if err != nil {
		_, _ = console.Close(), words.Close()
		return nil, err
	}
	current := &life{ended: make(chan ending, 1), words: &lastLine{}}
	drained := make(chan struct{}, 2)
	go s.log.drain(console, s.log.write, drained)
	go s.log.drain(words, s.log.keeping(current.words), drained)
	go func() {
		err := nspawnProcess.Wait()
		waitDrained(drained)
		current.ended <- endingOf(err)
	}()

	id, err := process.Of(nspawnProcess.Pid())
	if err != nil {
		s.Logger.Debug("nspawn ended at once", "error", err)
	}
	s.record.Status, s.record.Nspawn, s.record.Leader = engine.Starting, id, process.ID{}
	s.record.System, s.record.StartedAt, s.record.Detail = prepared.System, time.Now().UTC(), ""
	attaching, cancel := context.WithCancel(ctx)
	attached := make(chan error, 1)
	current.attached, current.detach = attached, cancel
	go func() { attached <- s.Network.Attach(attaching, s.Name, container.Address) }()
	return current, s.record.write(s.Layout)
}

func endingOf(err error) ending {
	var failed *execx.Error
	switch {
	case err == nil:
		return ending{reason: "ended"}
	case errors.As(err, &failed) && failed.Signal != 0:
		return ending{status: -1, reason: fmt.Sprintf("systemd-nspawn was ended by signal %d (%s)", int(failed.Signal), failed.Signal)}
	case errors.As(err, &failed):
		return ending{status: failed.ExitCode, reason: fmt.Sprintf("systemd-nspawn ended with exit code %d", failed.ExitCode)}
	default:
		return ending{status: -1, reason: err.Error()}
	}
}

// waitDrained waits until all that nspawn wrote is in the log. A helper of
// nspawn that outlives it could hold a pipe.
func waitDrained(drained <-chan struct{}) {
	const longest = 5 * time.Second
	patience := time.After(longest)
	for range cap(drained) {
		select {
		case <-drained:
		case <-patience:
			return
		}
	}
}

// takeOver continues with a guest whose supervisor was killed.
func (s *supervisor) takeOver(ctx context.Context) (*life, error) {
	container, err := s.Load(s.Name)
	if err != nil {
		return nil, err
	}
	s.address = container.Address
	current := &life{ended: make(chan ending, 1), detach: func() {}, words: &lastLine{}}
	nspawnID := s.record.Nspawn
	descriptor, err := nspawnID.Open()
	if err != nil {
		return nil, err
	}
	drained := make(chan struct{}, 1)
	console, err := openConsole(consolePipe(s.Layout, s.Name))
	if err != nil {
		s.log.note("the guest's console is lost: %v", err)
		drained <- struct{}{}
	} else {
		go s.log.drain(console, s.log.write, drained)
	}
	go func() {
		defer syscall.Close(descriptor)
		if err := nspawnID.Wait(ctx); err != nil {
			s.Logger.Error("lost nspawn", "error", err)
		}
		status := exitStatus(nspawnID, descriptor)
		waitDrained(drained)
		current.ended <- ending{status: status, reason: fmt.Sprintf("systemd-nspawn ended with exit code %d", status)}
	}()
	s.log.note("a new supervisor took over")
	if err := s.record.write(s.Layout); err != nil {
		return nil, err
	}
	s.starter.up()
	return current, nil
}

const (
	// killPatience is how long nspawn may take to notice that the guest was
	// killed, before everything in the cgroup is.
	killPatience = 3 * time.Second
	// killAgain is how long it takes until that is done once more.
	killAgain = 100 * time.Millisecond
)

// watch follows a life to its end, and says whether the guest rebooted.
func (s *supervisor) watch(ctx context.Context, current *life) (rebooted bool, err error) {
	defer current.detach()
	var deadline <-chan time.Time
	connected := current.attached == nil
	var again <-chan time.Time
	attached := current.attached
	var failure error
	// kill ends the guest, by its PID 1 first: then nspawn clears up itself. It
	// goes on until nspawn has ended, which may not even have entered its cgroup.
	kills := 0
	kill := func() {
		if kills++; kills == 1 && s.record.Leader.Signal(syscall.SIGKILL) == nil {
			deadline = time.After(killPatience)
			return
		}
		if err := s.clearProcesses(ctx); err != nil {
			s.Logger.Error("cannot kill the container", "error", err)
		}
		deadline = time.After(killAgain)
	}
	stop := func() {
		s.stopping++
		if s.stopping == 1 && s.record.Status == engine.Running && s.record.Leader.Signal(nspawn.PowerOffSignal) == nil {
			deadline = time.After(s.StopTimeout)
			again = time.After(s.record.powerOffAgain())
			s.setStatus(engine.Stopping)
			return
		}
		kill()
	}
	for {
		select {
		case <-s.notify.changed:
			news := s.notify.news()
			if news.leader != 0 && s.record.Leader.PID == 0 {
				s.setLeader(news.leader)
			}
		case err := <-attached:
			attached = nil
			if err != nil && failure == nil && s.stopping == 0 {
				failure = &Failure{Name: s.Name, Reason: "its network cannot be connected: " + err.Error(), Err: err}
				kill()
			}
			connected = err == nil
		case end := <-current.ended:
			if attached != nil {
				current.detach()
				<-attached
			}
			return s.conclude(current, end, failure)
		case <-s.signals:
			stop()
		case <-again:
			if kills == 0 {
				again = time.After(s.record.PowerOff())
			}
		case <-deadline:
			if kills == 0 {
				s.log.note("the guest did not power off within %s and is killed", s.StopTimeout)
			}
			kill()
		}
		// Whether the guest got all its units up is not for the supervisor to
		// wait for: one slow unit must not make a start fail.
		if s.record.Leader.PID != 0 && connected && s.record.Status == engine.Starting && s.stopping == 0 && failure == nil {
			s.setStatus(engine.Running)
			s.starter.up()
			debug.FreeOSMemory()
		}
	}
}

// conclude says what the end of nspawn means.
func (s *supervisor) conclude(current *life, end ending, failure error) (rebooted bool, err error) {
	switch {
	case failure != nil:
		return false, failure
	case s.stopping > 0:
		return false, nil
	case end.status == nspawn.RebootStatus:
		s.log.note("the guest reboots")
		return true, nil
	case end.status == 0 && s.record.Status != engine.Starting:
		s.log.note("the guest powered off")
		return false, nil
	}
	reason := end.reason
	if end.status == 0 {
		reason = "the guest powered off before it was up"
	}
	if said := current.words.String(); said != "" {
		reason += ": " + said
	}
	s.log.note("%s", reason)
	return false, &Failure{Name: s.Name, Reason: reason}
}

func (s *supervisor) setStatus(status engine.Status) {
	s.record.Status = status
	if err := s.record.write(s.Layout); err != nil {
		s.Logger.Error("cannot write the record", "error", err)
	}
}

// setLeader records the guest's PID 1 after looking whether it can be it: it
// is a child of nspawn.
func (s *supervisor) setLeader(pid int) {
	stat, err := process.Read(pid)
	if err != nil || stat.Parent != s.record.Nspawn.PID {
		s.Logger.Warn("nspawn named a leader that is not its child", "pid", pid, "error", err)
		return
	}
	s.record.Leader = stat.ID
	s.record.UIDBase = uidBase(pid)
	if err := s.record.write(s.Layout); err != nil {
		s.Logger.Error("cannot write the record", "error", err)
	}
}

// uidBase is the host's uid of uid 0 in the process' user namespace, 0 when
// that cannot be told.
func uidBase(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/uid_map")
	if err != nil {
		return 0
	}
	base, err := process.RootID(string(text))
	if err != nil {
		return 0
	}
	return base
}
