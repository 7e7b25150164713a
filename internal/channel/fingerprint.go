package channel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mostEntries bounds the walk over a folder. nixpkgs has about 80,000.
const mostEntries = 500_000

// TooLarge says that a folder has too many entries to be a channel.
type TooLarge struct{ Folder string }

func (t *TooLarge) Error() string {
	return fmt.Sprintf("it has more than %d files and folders", mostEntries)
}

// Fingerprint is a hash over name, type, size, mtime and inode of everything
// in a folder but .git, without reading files. Symbolic links are not
// followed. Equal fingerprints mean an unchanged folder, as for make(1).
func Fingerprint(folder string) (string, error) {
	descriptor, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: folder, Err: err}
	}
	walk := walker{sum: sha256.New()}
	if err := walk.folder(descriptor, folder); err != nil {
		return "", err
	}
	return hex.EncodeToString(walk.sum.Sum(nil)), nil
}

type walker struct {
	sum     hash.Hash
	entries int
}

// folder walks an open folder and closes it. Each step is relative to an open
// folder, so that nobody can lead the walk elsewhere by exchanging a folder
// for a link meanwhile.
func (w *walker) folder(descriptor int, path string) error {
	file := os.NewFile(uintptr(descriptor), path)
	defer file.Close()
	entries, err := file.ReadDir(-1)
	if err != nil {
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
			if err := w.folder(child, path+"/"+name); err != nil {
				return err
			}
			w.sum.Write([]byte("/"))
		}
	}
	return nil
}
