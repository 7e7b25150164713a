package filesync

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"devhost/internal/sshlink"
)

// folder is one pair at work.
type folder struct {
	s    *syncer
	pair Pair
	// root is the source without links, or for a single file the folder that it
	// is in.
	root string
	// single is whether the source is a file.
	single bool

	filter *filter
	here   *listing
	there  *listing
	// remote is the destination without links in it, as the container told.
	remote string
	// foreign are paths below the destination that belong to other pairs.
	foreign []string
	// enter is what the scanner calls for each folder; may be nil.
	enter func(name string) error
	// told are warnings that were given.
	told map[string]bool
}

func newFolder(s *syncer, pair Pair) (*folder, error) {
	f := &folder{s: s, pair: pair, told: map[string]bool{}}
	return f, f.resolve()
}

// resolve finds the source.
func (f *folder) resolve() error {
	resolved, isFolder, err := sourceOf(f.pair.Source)
	if err != nil {
		return &MissingSource{f.pair.Source, err}
	}
	f.root, f.single = resolved, !isFolder
	if f.single {
		f.root = filepath.Dir(resolved)
	}
	return nil
}

// scan reads the source.
func (f *folder) scan(ctx context.Context) error {
	if err := f.resolve(); err != nil {
		return err
	}
	f.here = newListing()
	if f.single {
		return f.scanFile()
	}
	var err error
	if f.filter, err = newFilter(ctx, f.s.runner, f.root, f.s.options.Exclude); err != nil {
		return &MissingSource{f.pair.Source, err}
	}
	scanner := f.scanner(f.here)
	if err := scanner.folder(ctx, ""); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &MissingSource{f.pair.Source, err}
	}
	f.tellSkipped(scanner)
	return nil
}

func (f *folder) scanner(into *listing) *scanner {
	return &scanner{root: f.root, filter: f.filter, found: into, enter: f.enter}
}

// name is that of a single file.
func (f *folder) name() string { return filepath.Base(f.pair.Source) }

// scanFile reads a single file. The ignore files do not matter: who names a
// file means it.
func (f *folder) scanFile() error {
	if f.enter != nil {
		if err := f.enter(""); err != nil {
			return err
		}
	}
	resolved, _, err := sourceOf(f.pair.Source)
	if err == nil {
		_, err = (&scanner{root: f.root, found: f.here}).one(filepath.Base(resolved))
	}
	if err != nil {
		return &MissingSource{f.pair.Source, err}
	}
	return nil
}

func (f *folder) tellSkipped(s *scanner) {
	for _, name := range s.skipped {
		f.tellOnce(fmt.Sprintf("%s is neither file, folder nor link, and is not synced", shown(name)))
	}
}

func (f *folder) tellOnce(line string) {
	if !f.told[line] {
		f.told[line] = true
		f.say(line)
	}
}

func (f *folder) say(line string) { f.s.options.Say(f.pair.String() + ": " + line) }

// list reads what the container has.
func (f *folder) list(ctx context.Context, connection *sshlink.Connection) error {
	destination, home, prune := f.pair.Destination, "", []string{"-name", "*"}
	if f.single {
		destination = f.container()
	} else {
		prune = f.filter.pruned()
	}
	if f.single || f.s.options.KeepExtra {
		home = "home"
	}
	at, there, err := list(ctx, f.s.runner, connection, f.s.options.User, destination, home, prune)
	if errors.Is(err, errHome) {
		return &BadDestination{f.pair, "it is the user's home, and all that is not in the source would be removed there; take a folder below it, or --no-delete"}
	}
	if err != nil {
		return f.wrap(err)
	}
	f.remote, f.there = at, there
	return nil
}

// container is the folder that a single file goes to.
func (f *folder) container() string {
	if strings.HasSuffix(f.pair.Destination, "/") {
		return f.pair.Destination
	}
	return path.Dir(f.pair.Destination)
}

// target is the name of a single file in the container.
func (f *folder) target() string {
	if strings.HasSuffix(f.pair.Destination, "/") {
		return f.name()
	}
	return path.Base(f.pair.Destination)
}

func (f *folder) wrap(err error) error {
	return fmt.Errorf("%s: %w", f.pair, err)
}

// kept tells whether the container's path is not to be touched.
func (f *folder) kept(name string, isFolder bool) bool {
	if f.filter.excluded(name, isFolder) || insideAny(name, f.foreign) {
		return true
	}
	for _, foreign := range f.foreign {
		if strings.HasPrefix(foreign, name+"/") {
			return true
		}
	}
	_, here := f.here.entries[name]
	return f.s.options.KeepExtra && !here
}
