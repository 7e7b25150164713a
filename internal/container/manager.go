// Package container is the life of a container: ensure, start, stop, roll
// back, destroy, and the repair of what a killed process left. It knows no
// engine by name and starts no process itself.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/engine"
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/provision"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// Steps of a change, in their order, as they stand in the journal.
const (
	StepResolve  = "resolve"
	StepBuild    = "build"
	StepAllocate = "allocate"
	StepFiles    = "files"
	StepProfile  = "profile"
	StepRecord   = "record"
	StepStart    = "start"
	StepSwitch   = "switch"
	StepReady    = "ready"
	StepPublish  = "publish"
	StepStop     = "stop"
	StepRemove   = "remove"
)

// Systems turns channels and provisions into systems.
type Systems interface {
	// Snapshot reads the provision once, with the caller's rights, into
	// destination.
	Snapshot(ctx context.Context, source string, stdin io.Reader, caller person.Person, destination string) (provision.Snapshot, error)
	// Resolve turns a channel reference into a pin. A pin that is still right
	// is returned as it is.
	Resolve(ctx context.Context, reference string, caller person.Person, old *registry.Pin, root string) (registry.Pin, error)
	// Inputs is the hash over everything that a system is built from.
	Inputs(pin registry.Pin, provisionHash string) (string, error)
	// Known returns the system that was built from the inputs before, if it
	// is still in the store, and keeps it there by the gc root.
	Known(ctx context.Context, inputs, root string) (system string, ok bool)
	// Build evaluates and builds; the result is kept by the gc root.
	Build(ctx context.Context, build Build) (system string, err error)
	// Keep makes a gc root of a store path that is there.
	Keep(ctx context.Context, root, storePath string) error
	// GuestModule adds the guest module to the store, keeps it there by a root
	// in the folder of gc roots, and sees to a Nix daemon.
	GuestModule(ctx context.Context, gcRoots string) (path string, err error)
	// Idle ends what was started for building. It is called when no container
	// is left.
	Idle(ctx context.Context) error
}

// Build is one system to build.
type Build struct {
	// Name is the container's, for logs; it is no input of the system.
	Name   string
	Pin    registry.Pin
	Inputs string
	// ProvisionDir is the snapshot's folder, "" for none.
	ProvisionDir string
	// ProvisionName is how the person knows the provision, for messages.
	ProvisionName string
	// Root is the path of the gc root that keeps the result.
	Root     string
	Reporter progress.Reporter
}

// Profiles are the generations of systems.
type Profiles interface {
	SetProfile(ctx context.Context, profile, system string) (changed bool, err error)
	Generations(profile string) ([]nix.Generation, error)
	SwitchGeneration(ctx context.Context, profile string, number int) (nix.Generation, error)
	// DeleteGenerations deletes generations that are not the current one.
	DeleteGenerations(profile string, numbers ...int) error
	DeleteProfile(profile string) error
}

// Network is what containers need of the host's network.
type Network interface {
	// NameInUse says what else of this host's has a name that a new container
	// is to have, "" for nothing.
	NameInUse(name string) (string, error)
	// Allocate finds free addresses. The caller holds the shared lock until
	// they are recorded.
	Allocate(name string, used []registry.Address) (registry.Address, error)
	// AllocateOnHost is Allocate for a container in the host's network; others are
	// all other containers.
	AllocateOnHost(ctx context.Context, name string, others []*registry.Container) (registry.Address, error)
	// FreeOnHost tells whether a sshd could listen at an address of AllocateOnHost
	// now.
	FreeOnHost(ctx context.Context, address registry.Address) bool
	// GuestFiles are the files of the guest's folder about its network, by their
	// path in it.
	GuestFiles(name string, address registry.Address, peers []Host) (map[string]string, error)
	// PortInUse tells whether a program of the host has the port of the host.
	PortInUse(port registry.ForwardPort) (bool, error)
	// Current tells cheaply whether bridge and packet filter are there as they
	// shall be. Publish repairs what is not.
	Current(ctx context.Context) (bool, error)
	// Prepare makes bridge and packet filter, also before there is a container;
	// Remove takes them back. The caller holds the shared lock.
	Prepare(ctx context.Context) error
	// Publish makes the names of all containers resolve on the host, lets those
	// of one group reach each other, and opens the forwarded ports.
	Publish(ctx context.Context, records []*registry.Container) error
	// Remove removes bridge, rules and published names of this instance.
	Remove(ctx context.Context) error
}

// Host is a name with its addresses.
type Host struct{ Name, IPv4, IPv6 string }

// Guest runs commands inside a running container as root, without a terminal.
type Guest interface {
	Run(ctx context.Context, name string, stdout, stderr io.Writer, argv ...string) (exitStatus int, err error)
}

// Manager carries out changes. All exported fields but Caller, Force, LockTimeout,
// Program and OnStep are required.
type Manager struct {
	Registry *registry.Registry
	Engine   engine.Engine
	Systems  Systems
	Profiles Profiles
	Network  Network
	Guest    Guest
	Archiver Archiver
	Disk     Disk
	// Watch sees to it that a container is repaired when this process is killed
	// before it calls done; may be nil.
	Watch  func(name string) (done func(), err error)
	Logger hclog.Logger
	// Settings are the host's.
	Settings settings.Settings
	// Caller is the person who asks; the zero Person is the host itself. Force
	// says that they insist on doing away with what belongs to somebody else.
	Caller person.Person
	Force  bool
	Now    func() time.Time
	// Reporter gets what a person sees while waiting.
	Reporter progress.Reporter
	// LockTimeout replaces LockTimeout, the constant, for all but Ensure.
	LockTimeout time.Duration
	// Program is devhost's own file, which containers are given; "" gives none.
	Program string
	// OnStep is called when a step is in the journal and before it is done.
	OnStep func(step string)
	// sshPort is the port of the guests' sshd, "" for 22.
	sshPort string
}

// LockTimeout is how long a command waits for another one of the same
// container, unless told otherwise.
const LockTimeout = 30 * time.Second

// lockShared takes the lock for what all containers share. Each holds that for a
// moment only, but there may be many of them at once.
func (m *Manager) lockShared(ctx context.Context, purpose string) (unlock func(), err error) {
	const timeout = 2 * time.Minute
	return m.Registry.LockShared(ctx, purpose, timeout)
}

// goBackTimeout bounds each step of going back to a previous system.
const goBackTimeout = 2 * time.Minute

// stopTimeout is how long a guest may take to power off before it is killed.
const stopTimeout = 30 * time.Second

// Failure says that a change did not happen, and what holds now.
type Failure struct {
	Name string
	Err  error
	// Now says what is true after the failure.
	Now string
}

func (f *Failure) Error() string { return fmt.Sprintf("%v\n%s", f.Err, f.Now) }
func (f *Failure) Unwrap() error { return f.Err }

// locked runs a change of one container under its lock, after repairing what
// a killed process left.
func (m *Manager) locked(ctx context.Context, name, purpose string, timeout time.Duration, change func() error) error {
	return m.lockedAll(ctx, []string{name}, purpose, timeout, change)
}

// lockedAll is locked for several containers, whose locks are taken in the order
// of their names, so that no two commands wait for each other.
func (m *Manager) lockedAll(ctx context.Context, names []string, purpose string, timeout time.Duration, change func() error) error {
	if err := m.Registry.Prepare(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		unlock, err := m.take(ctx, name, purpose, timeout)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := change(); err != nil {
		m.Reporter.Failed()
		return err
	}
	m.Reporter.Done("")
	return nil
}

// purposeDestroy is the one purpose of a lock that needs no repair before.
const purposeDestroy = "destroy"

// provisionPrefix begins the names of snapshots that are being made for a
// container. No name of a container holds a dot.
func provisionPrefix(name string) string { return "provision." + name + "." }

// removeStaleProvisions removes snapshots that a killed process left. The
// caller holds the container's lock.
func (m *Manager) removeStaleProvisions(name string) {
	stale, _ := filepath.Glob(filepath.Join(m.Registry.Temporary(), provisionPrefix(name)+"*"))
	for _, folder := range stale {
		if err := os.RemoveAll(folder); err != nil {
			m.Logger.Warn("cannot remove", "folder", folder, "error", err)
		}
	}
}

// change is one journalled change.
type change struct {
	manager *Manager
	name    string
	entry   registry.JournalEntry
}

func (m *Manager) begin(name string, operation registry.Operation, previous *registry.Container) *change {
	entry := registry.JournalEntry{Operation: operation, StartedAt: m.Now().UTC(), Previous: previous}
	if previous != nil {
		entry.PreviousGeneration = m.currentGeneration(name)
	}
	return &change{manager: m, name: name, entry: entry}
}

// step journals that a step begins.
func (c *change) step(ctx context.Context, step string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.entry.Step = step
	if err := c.manager.Registry.WriteJournal(c.name, &c.entry); err != nil {
		return err
	}
	c.manager.Logger.Debug("step", "container", c.name, "operation", c.entry.Operation, "step", step)
	if c.manager.OnStep != nil {
		c.manager.OnStep(step)
	}
	return nil
}

func (c *change) done() error { return c.manager.Registry.RemoveJournal(c.name) }

// undo takes a failed change back. It is not cancelled with the command.
func (c *change) undo(ctx context.Context) error {
	return c.manager.undo(context.WithoutCancel(ctx), c.name, &c.entry)
}

// repair finishes or takes back what a killed process left.
func (m *Manager) repair(ctx context.Context, name string) error {
	entry, err := m.Registry.ReadJournal(name)
	if err != nil || entry == nil {
		return err
	}
	m.Reporter.Note(fmt.Sprintf("an earlier command was interrupted while it worked on container %s (%s, step %s); repairing", name, entry.Operation, entry.Step))
	return m.undo(ctx, name, entry)
}

func (m *Manager) undo(ctx context.Context, name string, entry *registry.JournalEntry) error {
	switch entry.Operation {
	case registry.Create:
		return m.remove(ctx, name)
	case registry.Destroy:
		return m.remove(ctx, name)
	case registry.Hold:
		return m.orWarned(ctx, m.letGo(ctx, name, entry))
	case registry.Restore:
		return m.mendRestore(ctx, name, entry)
	case registry.Rename:
		return m.mendRename(ctx, name, entry)
	default:
		if freezer, ok := m.Engine.(engine.Freezer); ok && entry.Previous == nil {
			// The journal was lost; it may have said so.
			if err := freezer.Thaw(name); err != nil {
				return err
			}
		}
		return m.goBack(ctx, name, entry)
	}
}

// goBack restores the record, the generation and the running system of before
// an update.
func (m *Manager) goBack(ctx context.Context, name string, entry *registry.JournalEntry) error {
	previous := entry.Previous
	if previous == nil {
		record, err := m.Registry.Load(name)
		if err != nil {
			return err
		}
		previous = record
	}
	limited := false
	if changed, err := m.Registry.Load(name); err == nil {
		limited = changed.Limits != previous.Limits
	}
	var problems []error
	if entry.PreviousGeneration > 0 && entry.PreviousGeneration != m.currentGeneration(name) {
		_, err := m.Profiles.SwitchGeneration(ctx, m.Registry.Profile(name), entry.PreviousGeneration)
		problems = append(problems, err)
	}
	problems = append(problems, m.Registry.Save(previous), m.writeGuestFiles(previous))
	if entry.Started {
		problems = append(problems, m.Engine.Stop(ctx, name, stopTimeout))
	}
	state, err := m.Engine.State(name)
	problems = append(problems, err)
	if limited {
		problems = append(problems, m.boundDisk(ctx, name, previous.Limits.DiskBytes))
	}
	if limiter, ok := m.Engine.(engine.Limiter); ok && limited && state.Status == engine.Running {
		if err := limiter.SetLimits(ctx, name, previous.Limits); err != nil {
			m.Reporter.Warn(fmt.Sprintf("the previous limits of container %s hold from its next start on: %v", name, err))
		}
	}
	if entry.Switched && state.Status != engine.Running && previous.Enabled {
		// It ended while it switched.
		problems = append(problems, m.startAndWait(ctx, previous, goBackTimeout))
	} else if entry.Switched {
		err := m.switchTo(ctx, name, previous.System, goBackTimeout)
		var units *SwitchError
		if errors.As(err, &units) && units.TimedOut == 0 {
			// The system is the previous one; its units may have failed
			// before, and trying again would not change that.
			m.Reporter.Warn("going back was not smooth: " + units.Error())
		} else if err != nil {
			problems = append(problems, fmt.Errorf("cannot switch back to the previous system: %w", err))
		}
	}
	problems = append(problems, m.publish(ctx), m.dropProvisions(previous))
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return m.Registry.RemoveJournal(name)
}

func (m *Manager) currentGeneration(name string) int {
	generations, err := m.Profiles.Generations(m.Registry.Profile(name))
	if err != nil {
		return 0
	}
	for _, generation := range generations {
		if generation.Current {
			return generation.Number
		}
	}
	return 0
}
