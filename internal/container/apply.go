package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"devhost/internal/engine"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

// DeclaredElsewhere says that the host's configuration decides about a
// container.
type DeclaredElsewhere struct{ Name, File string }

func (d *DeclaredElsewhere) Error() string {
	return fmt.Sprintf("container %s is declared by the configuration of this host, which decides about it (%s; on NixOS, services.devhost.containers.%[1]s makes that); an admin changes it there, and then applies it with a switch of the host or: devhost host apply",
		d.Name, d.File)
}

// NotDeclared says that people made a container of a name that the host's
// configuration declares.
type NotDeclared struct{ Name, Owner string }

func (n *NotDeclared) Error() string {
	return fmt.Sprintf("container %s was made by %s, and is left as it is; give the declared one another name, or move that one away first: devhost rename %[1]s OTHER, or devhost destroy %[1]s", n.Name, n.Owner)
}

// checkDeclared refuses what only the host's configuration may ask for. The
// error is *DeclaredElsewhere.
func checkDeclared(record *registry.Container) error {
	if record.Declared == nil {
		return nil
	}
	return &DeclaredElsewhere{Name: record.Name, File: record.Declared.File}
}

// fitsDeclared refuses a request of people for a declared container, and one of
// the host's configuration for a container of theirs.
func fitsDeclared(request EnsureRequest, old *registry.Container) error {
	switch {
	case request.Declared != nil && old.Declared == nil:
		return &NotDeclared{Name: old.Name, Owner: old.Owner}
	case request.Declared == nil:
		return checkDeclared(old)
	}
	return nil
}

// takeSystem makes a record one whose system is built already: the one of the
// request, or that which it has.
func (m *Manager) takeSystem(request EnsureRequest, record *registry.Container) error {
	if request.System == "" {
		if request.UpdateChannel || (request.Provision != nil && *request.Provision != "") {
			return fmt.Errorf("the system of container %s was built elsewhere, so it has no channel to build one with; give --channel", record.Name)
		}
		return nil
	}
	if record.Pin.Reference != request.System {
		record.Pin = registry.Pin{Reference: request.System, Kind: registry.PinSystem, StorePath: request.System, Time: m.Now().UTC()}
	}
	record.Inputs = "system:" + request.System
	return nil
}

// declaredOwner is whose declared containers are, whoever applies them: those of
// one environment reach each other.
const declaredOwner = "root"

// ApplyResult is what Apply did with a container.
type ApplyResult string

// What Apply does with containers.
const (
	// Untouched is a container whose declaration is the one of the last time.
	Untouched  ApplyResult = "unchanged"
	ApplyMade  ApplyResult = "created"
	ApplyGone  ApplyResult = "removed, and archived"
	ApplyNewer ApplyResult = "switched to its new system"
	ApplySame  ApplyResult = "updated"
	// ApplyStarted is a container that did not run.
	ApplyStarted ApplyResult = "started"
	ApplyFailed  ApplyResult = "failed"
)

// Applied is what became of one container.
type Applied struct {
	Name   string
	Result ApplyResult
	// Units are those that failed or still start.
	Units    []Unit
	Warnings []string
	Began    time.Time
	// Err says why, with ApplyFailed.
	Err error
}

// ApplyRequest is what the host's configuration declares.
type ApplyRequest struct {
	Declarations settings.Declarations
	// File is where that stands.
	File string
	// Timeout bounds the start of each container, and then the wait for its
	// start-up queue.
	Timeout time.Duration
	// OnApplied is told at once.
	OnApplied func(Applied)
}

// Apply makes the declared containers what they are declared to be, and archives
// and removes those that are not declared any more. One that fails keeps no other
// from that, and one whose declaration did not change is left alone while it is
// as it was left: running, or stopped by somebody.
func (m *Manager) Apply(ctx context.Context, request ApplyRequest) ([]Applied, error) {
	if err := m.Registry.Prepare(); err != nil {
		return nil, err
	}
	entries, err := m.Registry.List()
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, declared := range request.Declarations.Containers {
		wanted[declared.Name] = true
	}
	var results []Applied
	add := func(applied Applied, err error) {
		if err != nil {
			applied.Result, applied.Err = ApplyFailed, err
		}
		results = append(results, applied)
		if request.OnApplied != nil {
			request.OnApplied(applied)
		}
	}
	// First: what they have may be another one's now.
	for _, entry := range entries {
		if entry.Err == nil && entry.Container.Declared != nil && !wanted[entry.Name] && ctx.Err() == nil {
			began := m.Now()
			add(Applied{Name: entry.Name, Result: ApplyGone, Began: began}, m.removeDeclared(ctx, entry.Name))
		}
	}
	for _, declared := range request.Declarations.Containers {
		if ctx.Err() == nil {
			add(m.applyOne(ctx, declared, request))
		}
	}
	return results, ctx.Err()
}

// removeDeclared archives and removes a container that is not declared any more.
func (m *Manager) removeDeclared(ctx context.Context, name string) error {
	err := m.Visit(ctx, name, "remove", m.lockTimeout(), func(visit *Visit) error {
		if visit.Record.Declared == nil {
			return nil
		}
		if err := visit.Stop(ctx); err != nil {
			return err
		}
		if _, err := visit.Archive(ctx, "it is not declared any more"); err != nil {
			return &Failure{Name: name, Err: err, Now: fmt.Sprintf("container %s is stopped and keeps its files", name)}
		}
		return visit.Destroy(ctx)
	})
	var gone *registry.NotRegistered
	if errors.As(err, &gone) {
		// An earlier removal was killed, and its repair has just finished it.
		return nil
	}
	return err
}

func (m *Manager) applyOne(ctx context.Context, declared settings.Declaration, request ApplyRequest) (Applied, error) {
	applied := Applied{Name: declared.Name, Began: m.Now()}
	ensure, err := m.requestOf(declared, request)
	if err != nil {
		return applied, err
	}
	record, err := m.Registry.Load(declared.Name)
	var missing *registry.NotRegistered
	if err != nil && !errors.As(err, &missing) {
		return applied, err
	}
	running := false
	if record != nil {
		state, err := m.Engine.State(declared.Name)
		if err != nil {
			return applied, err
		}
		running = state.Status == engine.Running
		if record.Declared != nil && record.Declared.Hash == ensure.Declared.Hash && running == record.Enabled && !m.interrupted(declared.Name) {
			applied.Result = Untouched
			return applied, nil
		}
	}
	stoppedByPeople := record != nil && record.Declared != nil && record.Declared.AutoStart && !record.Enabled
	ensure.NoStart = !running && (!declared.Starts() || stoppedByPeople)
	result, err := m.Ensure(ctx, *ensure)
	if err != nil {
		return applied, err
	}
	applied.Result = ApplySame
	switch {
	case result.Created:
		applied.Result = ApplyMade
	case result.Switched:
		applied.Result = ApplyNewer
	case result.Started:
		applied.Result = ApplyStarted
	}
	applied.Units, applied.Warnings = result.Units, result.Warnings
	if old := record; running && old.Declared != nil && (old.Declared.Ephemeral != declared.Ephemeral || old.Address.OnHost() != declared.OnHost() || !slices.Equal(old.Declared.Binds, ensure.Declared.Binds)) {
		applied.Warnings = append(applied.Warnings, fmt.Sprintf("container %s runs; whether it is ephemeral, its network and its bind mounts change when it is started next: devhost restart %[1]s", declared.Name))
	}
	return applied, nil
}

// interrupted tells whether a change of the container was cut short.
func (m *Manager) interrupted(name string) bool {
	entry, err := m.Registry.ReadJournal(name)
	return err != nil || entry != nil
}

// requestOf is what a declaration asks for: all that can be said, so that nothing
// of an older declaration stays.
func (m *Manager) requestOf(declared settings.Declaration, request ApplyRequest) (*EnsureRequest, error) {
	limits := limitsOf(declared.Limits.Over(settings.Clamped(m.Settings.Defaults, m.Settings.Maximum)))
	// Other defaults of the host make it another one, where it names no limits.
	text, err := json.Marshal(struct {
		Declaration settings.Declaration
		Limits      registry.Limits
	}{declared, limits})
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(text)
	ports := make([]registry.ForwardPort, len(declared.ForwardPorts))
	for i, port := range declared.ForwardPorts {
		ports[i] = registry.ForwardPort(port)
	}
	var binds []registry.Bind
	for _, mount := range declared.BindMounts {
		binds = append(binds, registry.Bind{GuestPath: mount.GuestPath, HostPath: mount.HostPath, ReadOnly: mount.ReadOnly(), OwnerUID: mount.Owner})
	}
	ensure := &EnsureRequest{
		Name: declared.Name, System: declared.System, Provision: &declared.Provision,
		Aliases: &declared.Aliases, Environment: &declared.Environment, AuthorizedKeys: &declared.AuthorizedKeys,
		MemoryBytes: &limits.MemoryBytes, CPUs: &limits.CPUs, Tasks: &limits.Tasks, IOWeight: &limits.IOWeight, DiskBytes: &limits.DiskBytes,
		Nesting: &declared.Nesting, ForwardPorts: &ports,
		Declared: &registry.Declared{
			File: request.File, Hash: hex.EncodeToString(hash[:]),
			AutoStart: declared.Starts(), Ephemeral: declared.Ephemeral, HostNetwork: declared.OnHost(), Expires: declared.Expiry, Binds: binds,
		},
		Caller: m.Caller, Owner: declaredOwner, Timeout: request.Timeout, LockTimeout: m.lockTimeout(),
	}
	if declared.Channel != "" {
		ensure.Channel = &declared.Channel
	}
	return ensure, nil
}
