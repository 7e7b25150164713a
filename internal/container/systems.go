package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	assets "devhost"
	"devhost/internal/channel"
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/provision"
	"devhost/internal/registry"
)

// NixSystems implements Systems with Nix.
type NixSystems struct {
	Layout registry.Layout
	Client *nix.Client
	// Reporter is told about downloads and copies.
	Reporter progress.Reporter
	// AllowedURIs are what evaluations may fetch.
	AllowedURIs []string
	// daemonAnswers says that a daemon was seen to answer.
	daemonAnswers bool
	// guestHash is computed once.
	guestHash func() (string, error)
}

// NewNixSystems returns the Systems of a state folder.
func NewNixSystems(layout registry.Layout, client *nix.Client, reporter progress.Reporter, allowedURIs []string) *NixSystems {
	return &NixSystems{Layout: layout, Client: client, Reporter: reporter, AllowedURIs: allowedURIs, guestHash: sync.OnceValues(hashOfGuestModule)}
}

// guestModule is the folder of the guest module in the embedded files.
const guestModule = "modules/container-guest"

// hashOfGuestModule tells apart guest modules of different builds of devhost.
func hashOfGuestModule() (string, error) {
	hash := sha256.New()
	err := fs.WalkDir(assets.ContainerGuest, guestModule, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := assets.ContainerGuest.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(hash, "%s\x00%d\x00", path, len(content))
		hash.Write(content)
		return nil
	})
	return hex.EncodeToString(hash.Sum(nil)), err
}

// Snapshot implements Systems.
func (s *NixSystems) Snapshot(ctx context.Context, source string, stdin io.Reader, caller person.Person, destination string) (provision.Snapshot, error) {
	return provision.Take(ctx, source, stdin, caller, destination)
}

// Resolve implements Systems.
func (s *NixSystems) Resolve(ctx context.Context, reference string, caller person.Person, old *registry.Pin, root string) (registry.Pin, error) {
	parsed, err := channel.Parse(reference)
	if err != nil {
		return registry.Pin{}, err
	}
	if err := s.prepare(ctx, root); err != nil {
		return registry.Pin{}, err
	}
	if old != nil && s.Client.Root(ctx, root, old.StorePath) != nil {
		// Its source was collected: it is copied again.
		old = nil
	}
	work := ""
	if parsed.Kind == channel.Folder {
		work = workTree(caller, parsed.Folder)
		if old == nil {
			old = s.recallPin(ctx, caller, parsed, root)
		}
	}
	resolver := channel.Resolver{Nix: s.Client, Logger: s.Client.Logger}
	pin, err := resolver.Resolve(ctx, parsed, channel.ResolveOptions{
		Caller: caller, Old: old, GCRoot: root, Progress: nix.Report(s.Reporter),
	})
	if err != nil || (old != nil && pin == *old) {
		return pin, err
	}
	// It only saves time: the container can be made without it.
	if err := s.pins().remember(caller, parsed, work, pin); err != nil {
		s.Reporter.Warn(fmt.Sprintf("cannot remember the channel for the next container: %v", err))
	}
	return pin, nil
}

// prepare sees to a daemon and to the folder of a gc root.
func (s *NixSystems) prepare(ctx context.Context, root string) error {
	// Asking costs the daemon a process each time.
	if !s.daemonAnswers {
		if err := s.Client.EnsureDaemon(ctx, s.Layout.Daemon()); err != nil {
			return err
		}
		s.daemonAnswers = true
	}
	return os.MkdirAll(filepath.Dir(root), 0o755)
}

// Inputs implements Systems.
func (s *NixSystems) Inputs(pin registry.Pin, provisionHash string) (string, error) {
	guest, err := s.guestHash()
	if err != nil {
		return "", err
	}
	return channel.BuildInputsHash(pin, provisionHash, guest), nil
}

func (s *NixSystems) cache() channel.SystemCache {
	return channel.SystemCache{Dir: s.Layout.Systems()}
}

// Known implements Systems.
func (s *NixSystems) Known(ctx context.Context, inputs, root string) (string, bool) {
	system, ok := s.cache().Lookup(inputs)
	if !ok || s.prepare(ctx, root) != nil || s.Client.Root(ctx, root, system.Path) != nil {
		return "", false
	}
	return system.Path, true
}

// Keep implements Systems.
func (s *NixSystems) Keep(ctx context.Context, root, storePath string) error {
	if err := s.prepare(ctx, root); err != nil {
		return err
	}
	return s.Client.Root(ctx, root, storePath)
}

// Build implements Systems.
func (s *NixSystems) Build(ctx context.Context, build Build) (string, error) {
	if err := s.prepare(ctx, build.Root); err != nil {
		return "", err
	}
	build.Reporter.Phase(progress.Evaluate)
	guest, err := s.addGuestModule(ctx)
	if err != nil {
		return "", err
	}
	request := channel.SystemRequest{
		Pin: build.Pin, GuestPath: guest, GCRoot: build.Root, Reporter: build.Reporter, ProvisionName: build.ProvisionName, AllowedURIs: s.AllowedURIs,
		EvalLog: s.Layout.EvaluationLog(build.Name), BuildLog: s.Layout.BuildLog(build.Name),
	}
	if err := os.MkdirAll(filepath.Dir(request.EvalLog), 0o700); err != nil {
		return "", err
	}
	if build.ProvisionDir != "" {
		if request.ProvisionModule, err = provision.Module(build.ProvisionDir); err != nil {
			return "", err
		}
		if request.ProvisionPath, err = s.Client.AddPath(ctx, build.ProvisionDir, "provision"); err != nil {
			return "", err
		}
	}
	system, err := channel.BuildSystem(ctx, s.Client, request)
	if err != nil {
		return "", err
	}
	// The cache only saves time: the container can be made without it.
	if err := s.cache().Store(build.Inputs, system); err != nil {
		build.Reporter.Warn(fmt.Sprintf("cannot remember the system for the next container: %v", err))
	}
	return system.Path, nil
}

// Idle implements Systems: a daemon that was started for this state folder
// ends.
func (s *NixSystems) Idle(ctx context.Context) error {
	// One command can remove the last container and make the next one.
	s.daemonAnswers = false
	return s.Client.StopDaemon(ctx, s.Layout.Daemon())
}

// addGuestModule writes the embedded guest module to the store.
func (s *NixSystems) addGuestModule(ctx context.Context) (string, error) {
	folder, err := os.MkdirTemp(s.Layout.Temporary(), "guest-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	module, err := fs.Sub(assets.ContainerGuest, guestModule)
	if err != nil {
		return "", err
	}
	copied := filepath.Join(folder, "container-guest")
	if err := os.CopyFS(copied, module); err != nil {
		return "", err
	}
	return s.Client.AddPath(ctx, copied, "container-guest")
}

// GuestModule implements Systems.
func (s *NixSystems) GuestModule(ctx context.Context, gcRoots string) (string, error) {
	hash, err := s.guestHash()
	if err != nil {
		return "", err
	}
	const prefix = "guest-module-"
	root := filepath.Join(gcRoots, prefix+hash[:16])
	if err := s.prepare(ctx, root); err != nil {
		return "", err
	}
	if path, err := os.Readlink(root); err == nil && nix.CheckStorePath(path) == nil {
		if _, err := os.Lstat(path); err == nil {
			return path, nil
		}
	}
	path, err := s.addGuestModule(ctx)
	if err != nil {
		return "", err
	}
	if err := s.Client.Root(ctx, root, path); err != nil {
		return "", err
	}
	// Those of other builds of devhost.
	others, err := filepath.Glob(filepath.Join(gcRoots, prefix+"*"))
	for _, other := range others {
		if other != root {
			err = errors.Join(err, removeIfThere(other))
		}
	}
	return path, err
}

// NixProfiles implements Profiles.
type NixProfiles struct{ *nix.Client }

// SetProfile implements Profiles.
func (p NixProfiles) SetProfile(ctx context.Context, profile, system string) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(profile), 0o755); err != nil {
		return false, err
	}
	return p.Client.SetProfile(ctx, profile, system)
}

// Generations implements Profiles.
func (NixProfiles) Generations(profile string) ([]nix.Generation, error) {
	return nix.Generations(profile)
}

// DeleteGenerations implements Profiles.
func (NixProfiles) DeleteGenerations(profile string, numbers ...int) error {
	return nix.DeleteGenerations(profile, numbers...)
}

// DeleteProfile implements Profiles.
func (NixProfiles) DeleteProfile(profile string) error { return nix.DeleteProfile(profile) }
