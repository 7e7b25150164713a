package channel

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/person"
)

// mostEntries bounds the walk over a folder. nixpkgs has about 80,000.
const mostEntries = 500_000

// TooLarge says that a folder has too many entries to be a channel.
type TooLarge struct{ Folder string }

func (t *TooLarge) Error() string {
	return fmt.Sprintf("it has more than %d files and folders", mostEntries)
}

// mostDepth bounds how deep folders lie in each other: each one on the way is
// an open descriptor. nixpkgs has about 12.
const mostDepth = 128

// TooDeep says that folders of a channel lie too deep in each other.
type TooDeep struct{ Folder string }

func (t *TooDeep) Error() string {
	return fmt.Sprintf("its folders lie more than %d deep in each other", mostDepth)
}

// fingerprintTimeout is how long the walk over a folder may take, which reads
// no file.
const fingerprintTimeout = 5 * time.Minute

// FingerprintFor is Fingerprint with the rights of the caller, who named the
// folder. The error is the context's if that ends first.
func FingerprintFor(ctx context.Context, caller person.Person, folder string) (string, error) {
	bounded, cancel := context.WithTimeout(ctx, fingerprintTimeout)
	defer cancel()
	var result string
	err := caller.DoBounded(bounded, func() (err error) {
		result, err = fingerprint(bounded, folder)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return "", fmt.Errorf("looking at its files took longer than %s", fingerprintTimeout)
	case err != nil:
		return "", err
	}
	return result, nil
}

// Fingerprint is a hash over name, type, size, mtime and inode of everything
// in a folder but .git, without reading files. Symbolic links are not
// followed. Equal fingerprints mean an unchanged folder, as for make(1).
// The folder is looked at with the rights of this thread.
func Fingerprint(folder string) (string, error) {
	return fingerprint(context.Background(), folder)
}

func fingerprint(ctx context.Context, folder string) (string, error) {
	descriptor, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: folder, Err: err}
	}
	walk := walker{ctx: ctx, sum: sha256.New()}
	if err := walk.folder(descriptor, folder, 0); err != nil {
		return "", err
	}
	return hex.EncodeToString(walk.sum.Sum(nil)), nil
}

type walker struct {
	// ctx ends a walk whose result nobody waits for.
	ctx     context.Context
	sum     hash.Hash
	entries int
}

// folder walks an open folder and closes it. Each step is relative to an open
// folder, so that nobody can lead the walk elsewhere by exchanging a folder
// for a link meanwhile.
func (w *walker) folder(descriptor int, path string, depth int) error {
	file := os.NewFile(uintptr(descriptor), path)
	defer file.Close()
	if depth > mostDepth {
		return &TooDeep{Folder: path}
	}
	// One more than there may be, so that a larger folder is not held in memory.
	entries, err := file.ReadDir(mostEntries - w.entries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// The order of a directory is stable while it is unchanged on most file
	// systems only.
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var line [40]byte
	for _, entry := range entries {
		name := entry.Name()
		if name == ".git" {
			continue
		}
		if w.entries++; w.entries > mostEntries {
			return &TooLarge{Folder: path}
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		var status unix.Stat_t
		if err := unix.Fstatat(descriptor, name, &status, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: path + "/" + name, Err: err}
		}
		binary.LittleEndian.PutUint64(line[0:], uint64(len(name)))
		binary.LittleEndian.PutUint32(line[8:], status.Mode)
		binary.LittleEndian.PutUint64(line[12:], status.Ino)
		isFolder := status.Mode&syscall.S_IFMT == syscall.S_IFDIR
		if !isFolder {
			// A folder's own size and mtime change with .git inside of it.
			binary.LittleEndian.PutUint64(line[20:], uint64(status.Size))
			binary.LittleEndian.PutUint64(line[28:], uint64(status.Mtim.Nano()))
		}
		w.sum.Write(line[:])
		w.sum.Write([]byte(name))
		clear(line[:])
		if isFolder {
			child, err := unix.Openat(descriptor, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err != nil {
				return &os.PathError{Op: "open", Path: path + "/" + name, Err: err}
			}
			if err := w.folder(child, path+"/"+name, depth+1); err != nil {
				return err
			}
			w.sum.Write([]byte("/"))
		}
	}
	return nil
}
