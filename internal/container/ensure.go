package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"devhost/internal/channel"
	"devhost/internal/names"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

// EnsureRequest says what a container shall be. A nil field means: as it was
// (for a new container: the default).
type EnsureRequest struct {
	Name string
	// Channel is a folder, a flake reference or the URL of a nixexprs tarball.
	Channel *string
	// Provision is a folder, a file, "-" for a tar archive on Stdin, or "" for
	// none.
	Provision *string
	Stdin     io.Reader
	Aliases   *[]string
	// Environment is what the container belongs to, "" for none.
	Environment *string
	// MemoryBytes, CPUs and Tasks are limits; 0 means none.
	MemoryBytes *int64
	CPUs        *float64
	Tasks       *int64
	// IOWeight is the share of the disks' time, 1 to 10000; 0 means the usual.
	IOWeight *int64
	// DiskBytes bounds what the root folder holds.
	DiskBytes *int64
	// Nesting lets container engines work inside, from the next start on.
	Nesting *bool
	// ForwardPorts are ports of the host that lead to the container.
	ForwardPorts *[]registry.ForwardPort
	// Keep keeps it from expiring from now on for this long; zero takes keeping
	// back.
	Keep *time.Duration
	// AuthorizedKeys are public keys of members, one each.
	AuthorizedKeys *[]string
	// AccountKeys are the keys of the caller's account on this host, by the
	// caller's login.
	AccountKeys   []string
	UpdateChannel bool
	// Declared says that the host's configuration asks, and System is then the
	// store path of a system that it has built, "" for one of the channel.
	Declared *registry.Declared
	System   string
	// NoStart leaves a container stopped that does not run.
	NoStart bool
	// Dialect is the command of batou's that asks, "" for none of them.
	Dialect string
	// Caller is the person on whose behalf files are read.
	Caller person.Person
	Owner  string
	// Timeout bounds the start, and then the wait for the guest's start-up
	// queue.
	Timeout     time.Duration
	LockTimeout time.Duration
}

// NoChannel says that a new container was asked for without a channel.
type NoChannel struct{ Name string }

func (n *NoChannel) Error() string {
	return fmt.Sprintf("container %s does not exist yet, so say where its NixOS comes from: devhost ensure %[1]s --channel FOLDER|FLAKE|URL", n.Name)
}

// EnsureResult says what was done.
type EnsureResult struct {
	Container *registry.Container `json:"container"`
	// Created, Switched, Started and Unchanged say what happened.
	Created   bool `json:"created"`
	Switched  bool `json:"switched"`
	Started   bool `json:"started"`
	Unchanged bool `json:"unchanged"`
	// Units are those that failed or still start.
	Units []Unit `json:"units"`
	// Warnings are for the person.
	Warnings []string `json:"warnings"`
}

// Validate checks all that can be checked without looking at the host.
func (r *EnsureRequest) Validate() error {
	if err := names.Container(r.Name); err != nil {
		return err
	}
	if r.Channel != nil {
		if _, err := channel.Parse(*r.Channel); err != nil {
			return err
		}
	}
	if r.Aliases != nil {
		seen := map[string]bool{}
		for _, alias := range *r.Aliases {
			if err := names.Alias(alias); err != nil {
				return err
			}
			if seen[alias] {
				return fmt.Errorf("alias %s is given twice", alias)
			}
			seen[alias] = true
		}
	}
	if r.Environment != nil && *r.Environment != "" {
		if err := names.Alias(*r.Environment); err != nil {
			return fmt.Errorf("environment: %w", err)
		}
	}
	if r.ForwardPorts != nil {
		if err := validateForwardPorts(*r.ForwardPorts); err != nil {
			return err
		}
	}
	if r.AuthorizedKeys != nil {
		for _, key := range *r.AuthorizedKeys {
			if _, err := sshaccess.ParseKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// asksForSystem tells whether the request is about the system: it names a
// channel or a provision, or nothing at all.
func (r *EnsureRequest) asksForSystem() bool {
	settings := r.Aliases != nil || r.Environment != nil || r.MemoryBytes != nil || r.CPUs != nil || r.Tasks != nil || r.IOWeight != nil || r.DiskBytes != nil || r.Nesting != nil || r.ForwardPorts != nil || r.AuthorizedKeys != nil || r.Keep != nil
	return r.Channel != nil || r.Provision != nil || r.UpdateChannel || !settings
}

// Ensure makes the container what the request says. When nothing changed, no
// process is started.
func (m *Manager) Ensure(ctx context.Context, request EnsureRequest) (*EnsureResult, error) {
	if err := errors.Join(request.Validate(), m.checkSettings(request)); err != nil {
		return nil, err
	}
	var result *EnsureResult
	err := m.locked(ctx, request.Name, "ensure", request.LockTimeout, func() (err error) {
		result, err = m.ensure(ctx, request)
		return err
	})
	return result, err
}

func (m *Manager) ensure(ctx context.Context, request EnsureRequest) (*EnsureResult, error) {
	record, err := m.Registry.Load(request.Name)
	var missing *registry.NotRegistered
	switch {
	case errors.As(err, &missing):
		if request.Channel == nil && request.System == "" {
			return nil, &NoChannel{Name: request.Name}
		}
		reason, err := m.Network.NameInUse(request.Name)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			return nil, &names.Invalid{What: "a container's name", Name: request.Name, Reason: reason, Example: request.Name + "-dev"}
		}
		if err := m.checkPortsEarly(request, nil); err != nil {
			return nil, err
		}
		return m.create(ctx, request)
	case err != nil:
		return nil, err
	}
	if err := errors.Join(fitsDialect(request, record), fitsDeclared(request, record)); err != nil {
		return nil, err
	}
	if err := m.checkPortsEarly(request, record); err != nil {
		return nil, err
	}
	return m.update(ctx, request, record)
}

// nextChannel is the gc root of a pin that no deployment uses yet.
const nextChannel = "channel-next"

// wanted is what a request asks for, resolved.
type wanted struct {
	record registry.Container
	// provisionDir is a new snapshot in the temporary folder, or the recorded
	// one, or "".
	provisionDir string
	newSnapshot  bool
	// provisionName is how the person knows the provision.
	provisionName string
	warnings      []string
}

func (w *wanted) discard() {
	if w.newSnapshot {
		_ = os.RemoveAll(w.provisionDir)
	}
}

// resolve reads the provision, resolves the channel and computes the inputs.
// It writes only below the temporary folder and to the gc roots.
func (m *Manager) resolve(ctx context.Context, request EnsureRequest, old *registry.Container) (*wanted, error) {
	want := &wanted{}
	if old != nil {
		want.record = *old
	} else {
		want.record = registry.Container{Name: request.Name, Owner: request.Owner, CreatedAt: m.Now().UTC(), Aliases: []string{}, Enabled: true, Dialect: request.Dialect, Limits: limitsOf(m.Settings.Defaults),
			Nesting: m.Settings.DefaultNesting && m.Settings.AllowNesting}
	}
	record := &want.record
	if err := m.resolveProvision(ctx, request, want); err != nil {
		return nil, err
	}
	reference := record.Pin.Reference
	if request.Channel != nil {
		parsed, err := channel.Parse(*request.Channel)
		if err != nil {
			want.discard()
			return nil, err
		}
		// A relative folder is another one from another working folder.
		reference = parsed.Text
	}
	if request.System != "" || (record.Pin.Kind == registry.PinSystem && request.Channel == nil) {
		if err := m.takeSystem(request, record); err != nil {
			want.discard()
			return nil, err
		}
		m.applyRequest(request, want)
		return want, nil
	}
	if old == nil || request.UpdateChannel || reference != record.Pin.Reference {
		if err := m.channelAllowed(reference); err != nil && request.Declared == nil {
			want.discard()
			return nil, err
		}
		m.Reporter.Phase(progress.Resolve)
		var oldPin *registry.Pin
		if old != nil && old.Pin.Kind != registry.PinSystem {
			oldPin = &old.Pin
		}
		pin, err := m.Systems.Resolve(ctx, reference, request.Caller, oldPin, filepath.Join(m.gcRoots(request.Name), nextChannel))
		if err != nil {
			want.discard()
			return nil, err
		}
		record.Pin = pin
	}
	// What was rolled back stays so while only settings change, and where
	// fc-manage decides, the host's own system is what it was at first.
	if old == nil || (old.Dialect == "" && (old.Inputs != "" || request.asksForSystem())) {
		inputs, err := m.Systems.Inputs(record.Pin, record.ProvisionHash)
		if err != nil {
			want.discard()
			return nil, err
		}
		record.Inputs = inputs
	}
	m.applyRequest(request, want)
	return want, nil
}

// applyRequest is what a request says besides of the system.
func (m *Manager) applyRequest(request EnsureRequest, want *wanted) {
	record := &want.record
	record.Enabled = !request.NoStart
	m.applySettings(request, record)
	want.warnings = append(append(want.warnings, m.keepToSettings(record)...), m.notEnforced(request)...)
}

func (m *Manager) applySettings(request EnsureRequest, record *registry.Container) {
	if request.Aliases != nil {
		record.Aliases = append([]string{}, *request.Aliases...)
	}
	if request.Environment != nil {
		record.Environment = *request.Environment
	}
	if request.MemoryBytes != nil {
		record.Limits.MemoryBytes = *request.MemoryBytes
	}
	if request.CPUs != nil {
		record.Limits.CPUs = *request.CPUs
	}
	if request.Tasks != nil {
		record.Limits.Tasks = *request.Tasks
	}
	if request.IOWeight != nil {
		record.Limits.IOWeight = *request.IOWeight
	}
	if request.DiskBytes != nil {
		record.Limits.DiskBytes = *request.DiskBytes
	}
	if request.Nesting != nil {
		record.Nesting = *request.Nesting
	}
	if request.ForwardPorts != nil {
		record.ForwardPorts = slices.Clone(*request.ForwardPorts)
	}
	if request.Keep != nil {
		record.Expiry.KeepUntil = time.Time{}
		if *request.Keep > 0 {
			record.Expiry.KeepUntil = m.Now().Add(*request.Keep).UTC()
		}
	}
	if request.Declared != nil {
		record.Declared, record.Expiry.Off = request.Declared, !request.Declared.Expires
	}
	if request.Caller.Login != "" {
		accounts := maps.Clone(record.AccountKeys)
		delete(accounts, request.Caller.Login)
		if len(request.AccountKeys) > 0 {
			if accounts == nil {
				accounts = map[string][]string{}
			}
			accounts[request.Caller.Login] = request.AccountKeys
		}
		record.AccountKeys = accounts
	}
	if request.AuthorizedKeys != nil {
		record.AuthorizedKeys = nil
		for _, key := range *request.AuthorizedKeys {
			// Validate has parsed it before.
			line, _ := sshaccess.ParseKey(key)
			if !slices.Contains(record.AuthorizedKeys, line) {
				record.AuthorizedKeys = append(record.AuthorizedKeys, line)
			}
		}
	}
}

// system finds or builds the system of the inputs.
func (m *Manager) system(ctx context.Context, want *wanted) (string, error) {
	root := filepath.Join(m.gcRoots(want.record.Name), "system")
	if want.record.Pin.Kind == registry.PinSystem {
		return want.record.Pin.StorePath, m.Systems.Keep(ctx, root, want.record.Pin.StorePath)
	}
	if system, ok := m.Systems.Known(ctx, want.record.Inputs, root); ok {
		return system, nil
	}
	// An evaluation of NixOS takes a gigabyte: twenty of the same at once are
	// too many.
	m.Reporter.Phase(progress.Evaluate)
	unlock, err := m.Registry.LockBuild(ctx, want.record.Inputs)
	if err != nil {
		return "", err
	}
	defer unlock()
	if system, ok := m.Systems.Known(ctx, want.record.Inputs, root); ok {
		return system, nil
	}
	if err := m.prepareNetwork(ctx); err != nil {
		return "", err
	}
	return m.Systems.Build(ctx, Build{
		Name: want.record.Name, Pin: want.record.Pin, Inputs: want.record.Inputs, ProvisionDir: want.provisionDir, ProvisionName: want.provisionName, Root: root, Reporter: m.Reporter,
	})
}

func (m *Manager) create(ctx context.Context, request EnsureRequest) (*EnsureResult, error) {
	if err := os.MkdirAll(m.Registry.Container(request.Name), 0o700); err != nil {
		return nil, err
	}
	change := m.begin(request.Name, registry.Create, nil)
	result, err := m.createSteps(ctx, change, request)
	if err == nil {
		return result, change.done()
	}
	if undoErr := change.undo(ctx); undoErr != nil {
		return nil, &Failure{Name: request.Name, Err: err, Now: fmt.Sprintf("container %s is half made, and removing it failed (%v); remove it with: devhost destroy %s", request.Name, undoErr, request.Name)}
	}
	return nil, &Failure{Name: request.Name, Err: err, Now: fmt.Sprintf("container %s was not made; nothing of it is left", request.Name)}
}

func (m *Manager) createSteps(ctx context.Context, change *change, request EnsureRequest) (*EnsureResult, error) {
	if err := change.step(ctx, StepResolve); err != nil {
		return nil, err
	}
	want, err := m.resolve(ctx, request, nil)
	if err != nil {
		return nil, err
	}
	defer want.discard()
	record := &want.record
	if err := change.step(ctx, StepBuild); err != nil {
		return nil, err
	}
	if record.System, err = m.system(ctx, want); err != nil {
		return nil, err
	}
	if err := change.step(ctx, StepAllocate); err != nil {
		return nil, err
	}
	if err := m.allocate(ctx, record); err != nil {
		return nil, err
	}
	if err := m.install(ctx, change, want); err != nil {
		return nil, err
	}
	// Of a container that had been there before, starting it only warns.
	if err := m.handOver(ctx, record); err != nil {
		return nil, err
	}
	if request.NoStart {
		if err := change.step(ctx, StepPublish); err != nil {
			return nil, err
		}
		result := &EnsureResult{Container: record, Created: true, Units: []Unit{}, Warnings: want.warnings}
		return result, m.deployed(ctx, record, true)
	}
	if err := change.step(ctx, StepStart); err != nil {
		return nil, err
	}
	if err := m.startAndWait(ctx, record, request.Timeout); err != nil {
		return nil, err
	}
	result := &EnsureResult{Container: record, Created: true, Started: true, Warnings: want.warnings}
	return result, m.finish(ctx, change, result, request.Timeout)
}

// install puts what a container is made of in its place: snapshot, guest files
// and the system's generation.
func (m *Manager) install(ctx context.Context, change *change, want *wanted) error {
	record := &want.record
	if err := change.step(ctx, StepFiles); err != nil {
		return err
	}
	if err := errors.Join(m.keepProvision(want), m.writeGuestFiles(record)); err != nil {
		return err
	}
	if err := change.step(ctx, StepProfile); err != nil {
		return err
	}
	_, err := m.Profiles.SetProfile(ctx, m.Registry.Profile(record.Name), record.System)
	return err
}

// finish is the end of a change: the guest runs its system, so wait until it
// has started everything, and publish it.
func (m *Manager) finish(ctx context.Context, change *change, result *EnsureResult, timeout time.Duration) (err error) {
	if err := change.step(ctx, StepReady); err != nil {
		return err
	}
	if result.Units, err = m.settle(ctx, result.Container, timeout); err != nil {
		return err
	}
	if err := change.step(ctx, StepPublish); err != nil {
		return err
	}
	return m.deployed(ctx, result.Container, true)
}

// settle waits for the guest's start-up queue, and notes in the record whether
// all units are up.
func (m *Manager) settle(ctx context.Context, record *registry.Container, timeout time.Duration) ([]Unit, error) {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m.Reporter.Phase(progress.Services)
	units, err := m.waitForUnits(waiting, record.Name)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	record.Degraded = len(units) > 0
	return units, err
}

// deployed records a successful deployment and publishes it.
func (m *Manager) deployed(ctx context.Context, record *registry.Container, publish bool) error {
	record.LastDeployment = m.Now().UTC()
	record.Expiry.StopWarnedAt, record.Expiry.DeleteWarnedAt, record.Expiry.StoppedAt = time.Time{}, time.Time{}, time.Time{}
	if err := m.Registry.Save(record); err != nil {
		return err
	}
	if err := m.setNotice(record.Name, ""); err != nil {
		return err
	}
	if publish {
		if err := m.publish(ctx); err != nil {
			return err
		}
	}
	// Last: until here, a killed deployment goes back to the old pin.
	next := filepath.Join(m.gcRoots(record.Name), nextChannel)
	if err := os.Rename(next, filepath.Join(m.gcRoots(record.Name), "channel")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
