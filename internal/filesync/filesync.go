// Package filesync makes folders in a container equal to folders of the
// workstation, once or continuously.
//
// What is to be done is decided here, by comparing two listings: that of the
// folder, without what git ignores, and that of the container, by find(1).
// rsync sends what differs; what is too much is removed by name. So nothing is
// removed that an exclude protects, also where it exists in the container only,
// and nothing that the listing has not shown.
package filesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"devhost/internal/execx"
	"devhost/internal/sshlink"
)

// Pair is a folder (or file) and where it goes.
type Pair struct {
	// Source is an absolute path on the workstation.
	Source string
	// Destination is an absolute path in the container. A folder's files come
	// directly below it.
	Destination string
}

func (p Pair) String() string { return filepath.Base(p.Source) + " -> " + p.Destination }

// refusal is why a destination is not taken, "" where it is.
func (p Pair) refusal() string {
	switch {
	case !path.IsAbs(p.Destination):
		return "it is no absolute path"
	case path.Clean(p.Destination) == "/":
		return rootRefused
	}
	return ""
}

const rootRefused = "the root folder of a container is not synced to"

// Options are the same for all pairs.
type Options struct {
	// User is who owns the files in the container; "" is the login itself.
	User string
	// Exclude has lines of gitignore(5), relative to each source. They come
	// before those of all files.
	Exclude []string
	// KeepExtra removes nothing in the container.
	KeepExtra bool
	// DryRun only says what would be done.
	DryRun bool
	// Say gets a line for each thing that was done, and warnings.
	Say func(line string)
}

// MissingSource says that there is nothing to sync.
type MissingSource struct {
	Path string
	Err  error
}

func (m *MissingSource) Error() string {
	if errors.Is(m.Err, fs.ErrNotExist) {
		return fmt.Sprintf("there is no %s; nothing was changed in the container", m.Path)
	}
	return fmt.Sprintf("cannot read %s: %v; nothing was changed in the container. What is not needed there can be left out by .gitignore or --exclude", m.Path, m.Err)
}

func (m *MissingSource) Unwrap() error { return m.Err }

// EmptySource says that a folder holds nothing that could be synced.
type EmptySource struct {
	Pair Pair
	// Extra is how many files and folders would have been removed.
	Extra int
}

func (e *EmptySource) Error() string {
	return fmt.Sprintf("%s has no files, and %s in the container has %s: that looks like a mistake, and nothing was removed; if it is none, remove them in the container",
		e.Pair.Source, e.Pair.Destination, count(e.Extra, "file or folder", "files and folders"))
}

// BadDestination says that a folder of the container is not synced to.
type BadDestination struct {
	Pair   Pair
	Reason string
}

func (b *BadDestination) Error() string {
	return fmt.Sprintf("cannot sync %s to %s in the container: %s", b.Pair.Source, b.Pair.Destination, b.Reason)
}

// NoProgram says that the workstation or the container lacks a program.
type NoProgram struct{ Name, Where, Remedy string }

func (n *NoProgram) Error() string {
	return fmt.Sprintf("there is no %s %s; %s", n.Name, n.Where, n.Remedy)
}

// syncer syncs all pairs.
type syncer struct {
	runner  execx.Runner
	options Options
	folders []*folder
}

func newSyncer(runner execx.Runner, pairs []Pair, options Options) (*syncer, error) {
	if len(pairs) == 0 {
		return nil, errors.New("there is nothing to sync")
	}
	s := &syncer{runner: runner, options: options}
	for _, pair := range pairs {
		if reason := pair.refusal(); reason != "" {
			return nil, &BadDestination{pair, reason}
		}
		f, err := newFolder(s, pair)
		if err != nil {
			return nil, err
		}
		s.folders = append(s.folders, f)
	}
	return s, nil
}

// Run syncs once.
func Run(ctx context.Context, runner execx.Runner, host sshlink.Host, link sshlink.Options, pairs []Pair, options Options) error {
	s, err := newSyncer(runner, pairs, options)
	if err != nil {
		return err
	}
	// Reading our side does not wait for the connection, and what is missing
	// here is said before anything is asked for there.
	connecting := make(chan error, 1)
	var connection *sshlink.Connection
	connectingContext, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var err error
		connection, err = sshlink.Open(connectingContext, runner, host, link)
		connecting <- err
	}()
	err = s.scan(ctx)
	if err != nil {
		cancel()
	}
	connectErr := <-connecting
	if connection != nil {
		defer connection.Close()
	}
	switch {
	case err != nil:
		return err
	case connectErr != nil:
		return connectErr
	}
	err = s.full(ctx, connection)
	if err != nil && ctx.Err() == nil && connection.Lost(err) {
		return connection.Err()
	}
	return err
}

// scan reads the sources.
func (s *syncer) scan(ctx context.Context) error {
	for _, f := range s.folders {
		if err := f.scan(ctx); err != nil {
			return err
		}
	}
	return nil
}

// full compares all folders with the container and makes them equal. The
// sources have been scanned.
func (s *syncer) full(ctx context.Context, connection *sshlink.Connection) error {
	for _, f := range s.folders {
		if err := f.list(ctx, connection); err != nil {
			return err
		}
	}
	if err := s.nest(); err != nil {
		return err
	}
	var problems []error
	for _, f := range s.folders {
		if err := f.apply(ctx, connection); err != nil {
			problems = append(problems, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	return errors.Join(problems...)
}

// nest protects the destination of a pair from the other pairs, and refuses
// what would not end well.
func (s *syncer) nest() error {
	for i, f := range s.folders {
		f.foreign = nil
		if f.single {
			continue
		}
		if f.remote == "/" {
			return &BadDestination{f.pair, rootRefused}
		}
		for j, other := range s.folders {
			below, inside := within(f.remote, other.remote)
			if other.single {
				below, inside = within(f.remote, path.Join(other.remote, path.Base(other.pair.Destination)))
			}
			switch {
			case i == j || !inside:
			case below == "":
				return &BadDestination{f.pair, "it is the destination of " + other.pair.Source + ", too"}
			default:
				f.foreign = append(f.foreign, below)
			}
		}
	}
	return nil
}

// within tells whether a path is the folder or below it, and where.
func within(folder, name string) (below string, inside bool) {
	if folder == name {
		return "", true
	}
	return strings.CutPrefix(name, strings.TrimSuffix(folder, "/")+"/")
}

// sourceOf follows links, so that a link to a folder is that folder.
func sourceOf(name string) (resolved string, folder bool, err error) {
	resolved, err = filepath.EvalSymlinks(name)
	if err != nil {
		return "", false, err
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return "", false, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return "", false, errors.New("it is neither a file nor a folder")
	}
	return resolved, info.IsDir(), nil
}
