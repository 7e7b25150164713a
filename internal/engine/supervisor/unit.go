package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"devhost/internal/engine"
	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// Unit is a container that runs as a unit of systemd: systemd is the parent
// then, and what a supervisor does around nspawn is done by three processes of
// the unit: Become before it, Started when the guest's PID 1 runs, and Ended
// when all of its processes are gone. See systemd.service(5).
type Unit struct {
	Layout  registry.Layout
	Name    string
	Load    func(name string) (*registry.Container, error)
	Network Network
	Runner  execx.Runner
	Logger  hclog.Logger
	// SetLimits gives the unit the container's limits.
	SetLimits func(ctx context.Context, limits registry.Limits) error
	// LastWords is what nspawn said last since a time, "" for nothing.
	LastWords func(ctx context.Context, since time.Time) string
	// ForgetLimits takes back what SetLimits left, when the guest has powered off.
	ForgetLimits func() error
	// Unregister has machined forget the container that a killed nspawn had
	// registered.
	Unregister func(ctx context.Context) error
	// Nspawn is the program to run in place of the one on PATH.
	Nspawn string
}

// Become prepares the container and becomes nspawn; it returns only when that
// fails. nspawn keeps the container's lock, so that no supervisor starts beside
// it.
func (u *Unit) Become(ctx context.Context) error {
	held, err := lockFile(u.Layout, u.Name)
	if err != nil {
		return err
	}
	err = u.become(ctx, held)
	failed := Record{Name: u.Name, Status: engine.Failed, Detail: err.Error(), StartedAt: time.Now().UTC()}
	return errors.Join(&Failure{Name: u.Name, Reason: err.Error(), Err: err}, failed.write(u.Layout), releaseLock(u.Layout, u.Name, held))
}

func (u *Unit) become(ctx context.Context, held *os.File) error {
	own, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	record := Record{Name: u.Name, Status: engine.Starting, Supervisor: own, Nspawn: own}
	container, err := u.Load(u.Name)
	if err != nil {
		return err
	}
	// Ended clears up, and leaves a record only of a failure or a reboot.
	old, err := ReadRecord(u.Layout, u.Name)
	if old != nil {
		record.UIDBase, record.QuickReboots = old.UIDBase, old.QuickReboots
	}
	if old != nil || err != nil {
		if err := u.clear(ctx, container.Address, record.UIDBase); err != nil {
			return err
		}
	}
	if err := raiseKernelLimits("/proc/sys"); err != nil {
		u.Logger.Warn("limits of the kernel cannot be raised: with many containers, the next one may not start", "error", err)
	}
	if err := u.SetLimits(ctx, container.Limits); err != nil {
		return err
	}
	config, fallback, err := configure(u.Layout, container)
	if err != nil {
		return err
	}
	if fallback != nil {
		u.Logger.Warn("the host's own system takes the place of the guest's", "reason", fallback)
	}
	ids, err := makeBinds(ctx, u.Layout, container, u.Runner, &config)
	if err != nil {
		return err
	}
	config.Unit = true
	program := u.Nspawn
	if program == "" {
		if program, err = exec.LookPath(nspawn.Program); err != nil {
			return err
		}
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	if err := u.pause(ctx, record.QuickReboots); err != nil {
		return err
	}
	record.System, record.StartedAt = config.System, time.Now().UTC()
	if err := record.write(u.Layout); err != nil {
		return err
	}
	u.Logger.Info("starting", "system", config.System)
	for _, lock := range []*os.File{held, ids} {
		if lock == nil {
			continue
		}
		if _, err := unix.FcntlInt(lock.Fd(), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	err = syscall.Exec(program, append([]string{program}, nspawn.Arguments(config)...), unitEnvironment(tree.Unified()))
	runtime.KeepAlive(held)
	runtime.KeepAlive(ids)
	return fmt.Errorf("cannot become %s: %w", program, err)
}

// unitEnvironment is nspawn's environment with what systemd tells its main
// process: where to report, and which journal its words go to.
func unitEnvironment(unified bool) []string {
	environment := append(nspawn.Environment(os.Getenv("NOTIFY_SOCKET"), unified),
		// Its own words go another way than what the guest says, which cannot
		// feign them then.
		"SYSTEMD_LOG_TARGET=journal")
	for _, name := range []string{"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID"} {
		if value, set := os.LookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// pause slows down a guest that does nothing but reboot.
func (u *Unit) pause(ctx context.Context, quick int) error {
	if quick < quickReboots {
		return nil
	}
	u.Logger.Warn("the guest reboots again and again", "pause", rebootPause)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rebootPause):
		return nil
	}
}

// clear removes what an earlier life left that was killed. The caller holds the
// lock.
func (u *Unit) clear(ctx context.Context, address registry.Address, uidBase int) error {
	problems := []error{
		clearNspawn(u.Layout, u.Name, uidBase),
		removeIfThere(notifySocket(u.Layout, u.Name)), removeIfThere(consolePipe(u.Layout, u.Name)),
		u.Unregister(ctx),
	}
	if address.HostInterface != "" {
		problems = append(problems, u.Network.Detach(ctx, u.Name, address))
	}
	return errors.Join(problems...)
}

// startedTimeout bounds Started: the guest runs by then, so all of it is quick.
const startedTimeout = time.Minute

// errEnded says that the guest ended before it was connected; Ended says why.
var errEnded = errors.New("the guest ended before its network was connected")

// Started connects the guest's network and records that it runs. nspawnPID is
// systemd's MAINPID.
func (u *Unit) Started(ctx context.Context, nspawnPID int) error {
	record, err := ReadRecord(u.Layout, u.Name)
	if err != nil {
		return err
	}
	if record == nil || record.Nspawn.PID != nspawnPID || !record.Nspawn.Alive() {
		return errEnded
	}
	ctx, cancel := context.WithTimeout(ctx, startedTimeout)
	defer cancel()
	go func() {
		// Without nspawn there is nothing to wait for.
		_ = record.Nspawn.Wait(ctx)
		cancel()
	}()
	err = u.connect(ctx, record)
	if err == nil {
		return record.write(u.Layout)
	}
	if !record.Nspawn.Alive() {
		return errEnded
	}
	record.Status, record.Detail = engine.Failed, err.Error()
	return errors.Join(err, record.write(u.Layout))
}

func (u *Unit) connect(ctx context.Context, record *Record) error {
	container, err := u.Load(u.Name)
	if err != nil {
		return err
	}
	leader, err := leaderOf(ctx, record.Nspawn)
	if err != nil {
		return err
	}
	if err := u.Network.Attach(ctx, u.Name, container.Address); err != nil {
		return fmt.Errorf("its network cannot be connected: %w", err)
	}
	record.Leader, record.UIDBase, record.Status = leader, uidBase(leader.PID), engine.Running
	return nil
}

// leaderPoll is how often it is looked for the guest's PID 1.
const leaderPoll = 5 * time.Millisecond

// leaderOf is the guest's PID 1: the child of nspawn that has the pid 1 in its
// own pid namespace. Nothing in the guest can be that but PID 1.
func leaderOf(ctx context.Context, nspawnID process.ID) (process.ID, error) {
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawnID.PID, nspawnID.PID))
		if err != nil {
			return process.ID{}, fmt.Errorf("cannot find the guest's first process: %w", err)
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil || !isFirst(pid) {
				continue
			}
			if stat, err := process.Read(pid); err == nil && stat.Parent == nspawnID.PID {
				return stat.ID, nil
			}
		}
		select {
		case <-ctx.Done():
			return process.ID{}, fmt.Errorf("cannot find the guest's first process: %w", ctx.Err())
		case <-time.After(leaderPoll):
		}
	}
}

// isFirst says whether a process is PID 1 of a namespace below this one, see
// NSpid in proc_pid_status(5).
func isFirst(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "NSpid:"); found {
			pids := strings.Fields(value)
			return len(pids) > 1 && pids[len(pids)-1] == "1"
		}
	}
	return false
}

// Ending is how systemd says that the main process of a unit ended: the
// variables SERVICE_RESULT, EXIT_CODE and EXIT_STATUS of systemd.exec(5).
type Ending struct{ Result, Code, Status string }

// lockPatience is how long the container's lock may still be held by a helper
// of nspawn that is about to end.
const lockPatience = 30 * time.Second

// Ended clears what nspawn left and records how it ended: nothing when the guest
// powered off, that it starts when it reboots, and why when it failed.
func (u *Unit) Ended(ctx context.Context, ending Ending) error {
	unlock, err := u.lockSoon(ctx)
	if err != nil {
		return err
	}
	defer removeRuntime(u.Layout)
	defer unlock()
	record, err := ReadRecord(u.Layout, u.Name)
	if err != nil || record == nil {
		if err != nil {
			u.Logger.Warn("the record is lost", "error", err)
		}
		record = &Record{Name: u.Name, Status: engine.Running}
	}
	var address registry.Address
	// A broken record is not in the way of clearing up.
	if container, err := u.Load(u.Name); err == nil {
		address = container.Address
	}
	err = u.clear(ctx, address, record.UIDBase)
	next := u.next(ctx, record, ending)
	if next == nil {
		return errors.Join(err, u.ForgetLimits(), removeRecord(u.Layout, u.Name))
	}
	return errors.Join(err, next.write(u.Layout))
}

func (u *Unit) lockSoon(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		unlock, err := lock(u.Layout, u.Name)
		var busy *Busy
		if !errors.As(err, &busy) || ctx.Err() != nil {
			return unlock, err
		}
		time.Sleep(leaderPoll)
	}
}

// next is the record that stays, nil for none.
func (u *Unit) next(ctx context.Context, record *Record, ending Ending) *Record {
	last := *record
	last.Supervisor, last.Nspawn, last.Leader = process.ID{}, process.ID{}, process.ID{}
	exited := ending.Code == "exited"
	switch {
	case record.Status == engine.Failed:
		// Become or Started said why.
		return &last
	case exited && ending.Status == strconv.Itoa(nspawn.RebootStatus):
		last.Status = engine.Starting
		last.QuickReboots++
		if time.Since(record.StartedAt) > quickLife {
			last.QuickReboots = 0
		}
		return &last
	case exited && ending.Status == "0" && record.Status == engine.Starting:
		last.Detail = "the guest powered off before it was up"
	case ending.Result == "success":
		return nil
	case ending.Result == "timeout":
		last.Detail = "it did not power off in time and was killed"
	case exited:
		last.Detail = "systemd-nspawn ended with exit code " + ending.Status
	default:
		last.Detail = fmt.Sprintf("systemd-nspawn was ended by signal %s (%s)", ending.Status, ending.Result)
	}
	if said := u.LastWords(ctx, record.StartedAt); said != "" && ending.Status != "0" {
		last.Detail += ": " + said
	}
	last.Status = engine.Failed
	u.Logger.Warn("ended", "reason", last.Detail)
	return &last
}

// MarkStopping records that a container was asked to power off. Where nothing
// runs, nothing is recorded.
func MarkStopping(layout registry.Layout, name string) error {
	record, err := ReadRecord(layout, name)
	if err != nil || record == nil || record.Status != engine.Running {
		return nil
	}
	record.Status = engine.Stopping
	return record.write(layout)
}
