package hostinstall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/execx"
)

// commandTimeout is far more than these commands take.
const commandTimeout = time.Minute

// file is one that is made as a whole.
type file struct {
	installer *Installer
	// path is on the host.
	path    string
	content []byte
	mode    fs.FileMode
	// what says it for people, "" for the path.
	what string
	// theirs says that people change it: what is there stays.
	theirs bool
}

func (f *file) String() string { return f.path }

func (f *file) look(context.Context) (State, string, error) {
	path := f.installer.path(f.path)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Absent, "", nil
	}
	if err != nil {
		return "", "", err
	}
	if f.theirs {
		return Present, "", nil
	}
	if !info.Mode().IsRegular() {
		return Differs, "is no regular file", nil
	}
	content, err := os.ReadFile(path)
	switch {
	case err != nil:
		return "", "", err
	case !bytes.Equal(content, f.content):
		return Differs, "has other content", nil
	case info.Mode().Perm() != f.mode:
		return Differs, fmt.Sprintf("has mode %04o, not %04o", info.Mode().Perm(), f.mode), nil
	}
	return Present, "", nil
}

func (f *file) put(context.Context) error {
	path := f.installer.path(f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if f.theirs {
		if err := f.installer.note(f.version(f.content)); err != nil {
			return err
		}
	}
	return replace(path, f.content, f.mode)
}

// replace writes a whole file, whatever mode an earlier one of that name has.
func replace(path string, content []byte, mode fs.FileMode) error {
	pending, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer pending.Cleanup()
	if _, err := pending.Write(content); err != nil {
		return err
	}
	return pending.CloseAtomicallyReplace()
}

// version tells what is made from what people make of it.
func (f *file) version(content []byte) string {
	return fmt.Sprintf("%s sha256:%x", f.path, sha256.Sum256(content))
}

func (f *file) take(context.Context) (string, error) {
	path := f.installer.path(f.path)
	if f.theirs {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		made, err := f.installer.noted()
		if err != nil {
			return "", err
		}
		if !slices.Contains(made.Made, f.version(content)) {
			return "it is not as it was made", nil
		}
	}
	return "", os.Remove(path)
}

// sudoRules is a file that locks everybody out of sudo if it is wrong: it is
// put in place when visudo(8) has read it.
type sudoRules struct{ file }

func (s *sudoRules) folderMissing() bool {
	_, err := os.Stat(filepath.Dir(s.installer.path(s.path)))
	return errors.Is(err, fs.ErrNotExist)
}

func (s *sudoRules) look(ctx context.Context) (State, string, error) {
	if s.folderMissing() {
		return Present, "left out: this host has no sudo", nil
	}
	return s.file.look(ctx)
}

func (s *sudoRules) put(ctx context.Context) error {
	checked, err := os.CreateTemp("", "devhost-sudoers-")
	if err != nil {
		return err
	}
	defer os.Remove(checked.Name())
	_, err = checked.Write(s.content)
	if err := errors.Join(err, checked.Close()); err != nil {
		return err
	}
	if err := s.installer.Runner.Run(ctx, execx.Command{Name: "visudo", Args: []string{"--check", "--quiet", "--file=" + checked.Name()}, Timeout: commandTimeout}); err != nil {
		return fmt.Errorf("sudo would not understand it, so nothing was changed: %w", err)
	}
	return s.file.put(ctx)
}

func (s *sudoRules) take(ctx context.Context) (string, error) {
	if s.folderMissing() {
		return "", nil
	}
	return s.file.take(ctx)
}

// link is another name of the program.
type link struct {
	installer    *Installer
	path, target string
}

func (l *link) String() string { return l.path }

func (l *link) look(context.Context) (State, string, error) {
	target, err := os.Readlink(l.installer.path(l.path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Absent, "", nil
	case err == nil && target == l.target:
		return Present, "", nil
	}
	// Another program of that name, and no earlier link of ours: it stays.
	return Present, "left out: another program has that name", nil
}

func (l *link) put(context.Context) error {
	return renameio.Symlink(l.target, l.installer.path(l.path))
}

func (l *link) take(context.Context) (string, error) {
	if target, err := os.Readlink(l.installer.path(l.path)); err != nil || target != l.target {
		return "another program has that name", nil
	}
	return "", os.Remove(l.installer.path(l.path))
}

// account is a user or group. One that was there before is not removed.
type account struct {
	installer *Installer
	// kind is the database of getent(1), "passwd" or "group".
	kind, name   string
	make, remove []string
}

func (a *account) String() string {
	if a.kind == "group" {
		return "the group " + a.name
	}
	return "the user " + a.name
}

func (a *account) look(ctx context.Context) (State, string, error) {
	_, err := a.installer.Runner.Output(ctx, execx.Command{Name: "getent", Args: []string{a.kind, a.name}, Timeout: commandTimeout})
	const notFound = 2
	var failure *execx.Error
	switch {
	case err == nil:
		return Present, "", nil
	case errors.As(err, &failure) && failure.ExitCode == notFound:
		return Absent, "", nil
	}
	return "", "", err
}

func (a *account) run(ctx context.Context, argv []string) error {
	return a.installer.Runner.Run(ctx, execx.Command{Name: argv[0], Args: argv[1:], Timeout: commandTimeout})
}

func (a *account) put(ctx context.Context) error {
	// Noted before it is made: what is noted and not there is no loss.
	if err := a.installer.note(a.String()); err != nil {
		return err
	}
	return a.run(ctx, a.make)
}

func (a *account) take(ctx context.Context) (string, error) {
	made, err := a.installer.noted()
	if err != nil {
		return "", err
	}
	if !slices.Contains(made.Made, a.String()) {
		return "it was there before devhost", nil
	}
	return "", a.run(ctx, a.remove)
}

// notes are what an installation must remember: what it made of things that
// may have been there before. The format of the file manifest.
type notes struct {
	Version int      `json:"version"`
	Made    []string `json:"made"`
}

const notesVersion = 1

func (i *Installer) noted() (notes, error) {
	noted := notes{Version: notesVersion}
	data, err := os.ReadFile(i.path(manifest))
	if errors.Is(err, fs.ErrNotExist) {
		return noted, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &noted)
	}
	if err == nil && noted.Version != notesVersion {
		err = fmt.Errorf("it has version %d, this devhost reads version %d", noted.Version, notesVersion)
	}
	if err != nil {
		return noted, fmt.Errorf("cannot read what was installed, %s: %w", manifest, err)
	}
	return noted, nil
}

func (i *Installer) note(made string) error {
	noted, err := i.noted()
	if err != nil || slices.Contains(noted.Made, made) {
		return err
	}
	noted.Made = append(noted.Made, made)
	data, err := json.MarshalIndent(noted, "", "  ")
	if err != nil {
		return err
	}
	return replace(i.path(manifest), append(data, '\n'), 0o644)
}
