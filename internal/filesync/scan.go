package filesync

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"devhost/internal/gitignore"
)

// listing is all entries below a folder, by their paths with slashes; parents
// come before what is in them.
type listing struct {
	entries map[string]entry
	// order has the paths in the order in which they were read.
	order []string
}

func newListing() *listing { return &listing{entries: map[string]entry{}} }

func (l *listing) add(name string, e entry) {
	if _, known := l.entries[name]; !known {
		l.order = append(l.order, name)
	}
	l.entries[name] = e
}

// scanner reads folders of the workstation.
type scanner struct {
	root   string
	filter *filter
	found  *listing
	// enter is called before a folder is read; "" is the source. It may be nil.
	enter func(name string) error
	// skipped are paths of devices, sockets and pipes.
	skipped []string
	// ignoreFiles is whether a folder but the first one had an ignore file.
	ignoreFiles bool
}

// folder reads all below a folder that is not excluded itself.
func (s *scanner) folder(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.enter != nil {
		if err := s.enter(name); err != nil {
			return err
		}
	}
	full := filepath.Join(s.root, filepath.FromSlash(name))
	children, err := os.ReadDir(full)
	if err != nil {
		if name != "" && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, child := range children {
		if child.Name() == gitignore.File && child.Type().IsRegular() {
			text, err := os.ReadFile(filepath.Join(full, gitignore.File))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			s.filter.add(name, string(text))
			s.ignoreFiles = true
		}
	}
	prefix := name
	if prefix != "" {
		prefix += "/"
	}
	for _, child := range children {
		below := prefix + child.Name()
		if s.filter.excluded(below, child.IsDir()) {
			continue
		}
		found, err := s.one(below)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if found.kind == dir {
			if err := s.folder(ctx, below); err != nil {
				return err
			}
		}
	}
	return nil
}

// one reads one path that is not excluded.
func (s *scanner) one(name string) (entry, error) {
	full := filepath.Join(s.root, filepath.FromSlash(name))
	info, err := os.Lstat(full)
	if err != nil {
		return entry{}, err
	}
	found := entry{mode: modeOf(info.Mode()), changed: info.ModTime().UnixNano()}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		found.kind, found.size = file, info.Size()
	case mode.IsDir():
		found.kind = dir
	case mode&fs.ModeSymlink != 0:
		found.kind = link
		if found.target, err = os.Readlink(full); err != nil {
			return entry{}, err
		}
	default:
		found.kind = others
		s.skipped = append(s.skipped, name)
		return found, nil
	}
	s.found.add(name, found)
	return found, nil
}

// peek is what is at a path, nil for nothing.
func (s *scanner) peek(name string) (fs.FileInfo, error) {
	info, err := os.Lstat(filepath.Join(s.root, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return info, err
}
