package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devhost/internal/archive"
	"devhost/internal/disk"
	"devhost/internal/names"
	"devhost/internal/nix"
	"devhost/internal/registry"
)

// PruneRequest says what is still of use.
type PruneRequest struct {
	// Generations is how many generations a container keeps beside its current
	// one.
	Generations int
	// ArchiveFor is how long archives are kept; zero means for good.
	ArchiveFor time.Duration
	// DryRun removes nothing.
	DryRun bool
}

// Pruned is one thing that nothing used.
type Pruned struct {
	// Kind is "generation", "archive", "root" (of the garbage collector) or
	// "leftover" (of an interrupted command).
	Kind string `json:"kind"`
	// Name is the container's, "" where it belongs to none.
	Name string `json:"name,omitempty"`
	// Text says in words what it was.
	Text string `json:"text"`
	// Bytes is what that gave back at once. What generations and roots kept in
	// the store is given back by the next garbage collection.
	Bytes int64 `json:"bytes,omitempty"`
}

// oldLeftover is the age from which on something in the temporary folder that
// belongs to no container is a leftover.
const oldLeftover = 24 * time.Hour

// Prune removes what nothing uses. What belongs to a container on which another
// command works stays; what cannot be removed does not keep it from the rest.
func (m *Manager) Prune(ctx context.Context, request PruneRequest) ([]Pruned, error) {
	if _, err := os.Lstat(m.Registry.Marker()); errors.Is(err, fs.ErrNotExist) {
		// There was never a container.
		return nil, nil
	}
	p := &pruning{Manager: m, request: request}
	p.generations(ctx)
	p.archives(ctx)
	p.roots(ctx)
	p.leftovers(ctx)
	if ctx.Err() != nil {
		return p.pruned, ctx.Err()
	}
	return p.pruned, errors.Join(p.problems...)
}

type pruning struct {
	*Manager
	request  PruneRequest
	pruned   []Pruned
	problems []error
}

// remove does one removal, if it is meant, and remembers it.
func (p *pruning) remove(pruned Pruned, remove func() error) {
	if !p.request.DryRun {
		if err := remove(); err != nil {
			p.problems = append(p.problems, err)
			return
		}
	}
	p.pruned = append(p.pruned, pruned)
}

// whenIdle calls do under the lock of a name. Where another command holds it,
// there is nothing to remove yet.
func (p *pruning) whenIdle(ctx context.Context, name string, do func()) {
	unlock, err := p.Registry.Lock(ctx, name, "prune", 0)
	var locked *registry.Locked
	switch {
	case errors.As(err, &locked):
		return
	case err != nil:
		p.problems = append(p.problems, err)
		return
	}
	defer unlock()
	// What goes by the old name of a container is still needed to finish its
	// renaming.
	if p.Registry.RenamedFrom(name) == "" {
		do()
	}
}

func (p *pruning) generations(ctx context.Context) {
	entries, err := p.Registry.List()
	if err != nil {
		p.problems = append(p.problems, err)
		return
	}
	for _, entry := range entries {
		p.whenIdle(ctx, entry.Name, func() {
			// What a killed command left is repaired first, by the generation
			// that it knows.
			if journal, err := p.Registry.ReadJournal(entry.Name); err != nil || journal != nil {
				return
			}
			profile := p.Registry.Profile(entry.Name)
			generations, err := p.Profiles.Generations(profile)
			if err != nil {
				p.problems = append(p.problems, err)
				return
			}
			for _, generation := range unneeded(generations, p.request.Generations) {
				text := fmt.Sprintf("generation %d of %s", generation.Number, generation.Time.Local().Format(time.DateTime))
				p.remove(Pruned{Kind: "generation", Name: entry.Name, Text: text}, func() error {
					return p.Profiles.DeleteGenerations(profile, generation.Number)
				})
			}
		})
	}
}

// unneeded are all generations but the current one and the newest others.
// Without a current one all are kept.
func unneeded(generations []nix.Generation, others int) []nix.Generation {
	if !slices.ContainsFunc(generations, func(one nix.Generation) bool { return one.Current }) {
		return nil
	}
	var old []nix.Generation
	for _, generation := range slices.Backward(generations) {
		switch {
		case generation.Current:
		case others > 0:
			others--
		default:
			old = append(old, generation)
		}
	}
	slices.Reverse(old)
	return old
}

func (p *pruning) archives(ctx context.Context) {
	dropped, err := p.DropArchives(ctx, p.request.ArchiveFor, p.request.DryRun)
	for _, one := range dropped {
		text := "archive of " + one.ArchivedAt.Local().Format(time.DateTime)
		p.pruned = append(p.pruned, Pruned{Kind: "archive", Name: one.Name, Text: text, Bytes: one.Bytes})
	}
	if err != nil {
		p.problems = append(p.problems, err)
	}
	folders, err := os.ReadDir(p.Registry.Archives())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problems = append(p.problems, err)
	}
	for _, folder := range folders {
		name := folder.Name()
		if names.Container(name) != nil || len(p.Registry.UnfinishedArchives(name)) == 0 {
			continue
		}
		p.whenIdle(ctx, name, func() {
			for _, unfinished := range p.Registry.UnfinishedArchives(name) {
				p.remove(Pruned{Kind: "leftover", Name: name, Text: "unfinished archive", Bytes: archive.Size(unfinished)}, func() error {
					return errors.Join(disk.RemoveFolder(unfinished), p.dropEmpty(name))
				})
			}
		})
	}
}

// DropArchives removes the archives whose time is over, and returns them.
// keepFor is how long they are kept; zero means for good. One that cannot be
// read is kept.
func (m *Manager) DropArchives(ctx context.Context, keepFor time.Duration, dryRun bool) ([]registry.Archive, error) {
	if keepFor <= 0 {
		return nil, nil
	}
	entries, err := m.Registry.ListArchives("")
	if err != nil {
		return nil, err
	}
	var dropped []registry.Archive
	var problems []error
	for _, entry := range entries {
		if entry.Err != nil || m.Now().Before(entry.Archive.ArchivedAt.Add(keepFor)) {
			continue
		}
		if !dryRun {
			unlock, err := m.Registry.Lock(ctx, entry.Name, "remove an archive", 0)
			var locked *registry.Locked
			if errors.As(err, &locked) {
				// Maybe it is brought back at this moment.
				continue
			}
			if err == nil {
				err = m.removeArchive(entry.Name, entry.ID)
				unlock()
			}
			if err != nil {
				problems = append(problems, err)
				continue
			}
		}
		dropped = append(dropped, *entry.Archive)
	}
	return dropped, errors.Join(problems...)
}

// roots removes garbage collector roots and profiles of what is gone.
func (p *pruning) roots(ctx context.Context) {
	for _, folder := range []struct{ path, what string }{
		{p.Registry.GCRoots(), "garbage collector roots"}, {p.Registry.Profiles(), "profile"},
	} {
		entries, err := os.ReadDir(folder.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.problems = append(p.problems, err)
		}
		for _, entry := range entries {
			name, id, ofArchive := registry.ArchiveOfRoots(entry.Name())
			of := p.Registry.Archive(name, id)
			if !ofArchive {
				name, of = entry.Name(), p.Registry.Container(entry.Name())
			}
			if names.Container(name) != nil || exists(of) {
				continue
			}
			p.whenIdle(ctx, name, func() {
				if exists(of) {
					return
				}
				p.remove(Pruned{Kind: "root", Name: name, Text: folder.what + " of what is gone"}, func() error {
					return disk.RemoveFolder(filepath.Join(folder.path, entry.Name()))
				})
			})
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// leftovers empties the temporary folder of what killed commands left: of
// containers (KIND.NAME.NUMBER), and old ones of no container.
func (p *pruning) leftovers(ctx context.Context) {
	entries, err := os.ReadDir(p.Registry.Temporary())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.problems = append(p.problems, err)
	}
	for _, entry := range entries {
		path := filepath.Join(p.Registry.Temporary(), entry.Name())
		parts := strings.Split(entry.Name(), ".")
		const ofContainer = 3
		if len(parts) == ofContainer && names.Container(parts[1]) == nil {
			p.whenIdle(ctx, parts[1], func() { p.leftover(parts[1], path) })
			continue
		}
		info, err := entry.Info()
		if err == nil && p.Now().Sub(info.ModTime()) > oldLeftover {
			p.leftover("", path)
		}
	}
}

func (p *pruning) leftover(name, path string) {
	size := archive.Size(path)
	p.remove(Pruned{Kind: "leftover", Name: name, Text: "what an interrupted command left", Bytes: size}, func() error { return p.removeTree(path) })
}
