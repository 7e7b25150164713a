package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devhost/internal/names"
)

// archiveTime is the form of an archive's id, UTC. Ids sort by time.
const archiveTime = "20060102T150405Z"

// unfinished is the end of the name of an archive that is being written.
const unfinished = ".partial"

// Archive is what is written down about an archived container. Its files are
// in ArchiveState, a tar archive that is compressed with zstd.
type Archive struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// ID is the time of archiving, as 20261120T133000Z.
	ID         string    `json:"id"`
	ArchivedAt time.Time `json:"archivedAt"`
	// Reason is why it was archived, for people.
	Reason string `json:"reason"`
	// Bytes is the size of the compressed files, FilesBytes is what they took on
	// disk.
	Bytes      int64 `json:"bytes"`
	FilesBytes int64 `json:"filesBytes"`
	// SHA256 is that of the compressed files, in hexadecimal digits.
	SHA256 string `json:"sha256"`
	// Record is the container's as it was.
	Record *Container `json:"record"`
}

// ArchivesOf holds the archives of one name, a folder each.
func (l Layout) ArchivesOf(name string) string { return filepath.Join(l.Archives(), name) }

// Archive is the folder of one archive.
func (l Layout) Archive(name, id string) string { return filepath.Join(l.ArchivesOf(name), id) }

// UnfinishedArchive is the folder of an archive while it is written; it gets
// its name when it is whole.
func (l Layout) UnfinishedArchive(name, id string) string { return l.Archive(name, id) + unfinished }

// ArchiveRecord and ArchiveState are the files in the folder of an archive.
func ArchiveRecord(folder string) string { return filepath.Join(folder, "archive.json") }

// ArchiveState holds the container's files.
func ArchiveState(folder string) string { return filepath.Join(folder, "state.tar.zst") }

// ArchiveRoots is the folder of the gc roots of an archive. No name of a
// container holds a dot.
func (l Layout) ArchiveRoots(name, id string) string {
	return filepath.Join(l.GCRoots(), archiveRootsPrefix+name+"."+id)
}

const archiveRootsPrefix = "archive."

// ArchiveOfRoots is the name and the id of the archive whose gc roots a folder
// holds, by the folder's name.
func ArchiveOfRoots(folder string) (name, id string, ok bool) {
	rest, ok := strings.CutPrefix(folder, archiveRootsPrefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ".")
}

// NewArchiveID is the id of an archive that is made now: one that no archive of
// the name has.
func (r *Registry) NewArchiveID(name string, now time.Time) string {
	for ; ; now = now.Add(time.Second) {
		id := now.UTC().Format(archiveTime)
		if _, err := os.Lstat(r.Archive(name, id)); errors.Is(err, fs.ErrNotExist) {
			return id
		}
	}
}

// NoArchive says that there is nothing to bring back.
type NoArchive struct {
	Name string
	// ID is the archive that was asked for, "" for any.
	ID string
}

func (n *NoArchive) Error() string {
	if n.ID != "" {
		return fmt.Sprintf("there is no archive %s of a container %s; see: devhost undelete --list %s", n.ID, n.Name, n.Name)
	}
	return fmt.Sprintf("there is no archive of a container %s; see: devhost undelete --list", n.Name)
}

// BrokenArchive says that an archive cannot be used.
type BrokenArchive struct {
	Name, ID string
	Err      error
}

func (b *BrokenArchive) Error() string {
	return fmt.Sprintf("archive %s of container %s is unusable: %v", b.ID, b.Name, b.Err)
}

func (b *BrokenArchive) Unwrap() error { return b.Err }

// LoadArchive reads what is written down about one archive. The error is
// *NoArchive or *BrokenArchive.
func (r *Registry) LoadArchive(name, id string) (*Archive, error) {
	data, err := os.ReadFile(ArchiveRecord(r.Archive(name, id)))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(r.Archive(name, id)); errors.Is(err, fs.ErrNotExist) {
			return nil, &NoArchive{Name: name, ID: id}
		}
	}
	var archive Archive
	if err == nil {
		err = json.Unmarshal(data, &archive)
	}
	switch {
	case err != nil:
	case archive.Version != Version:
		err = fmt.Errorf("it has version %d, this devhost reads version %d", archive.Version, Version)
	case archive.Name != name || archive.ID != id || archive.Record == nil:
		err = fmt.Errorf("it says that it is archive %q of %q", archive.ID, archive.Name)
	}
	if err != nil {
		return nil, &BrokenArchive{Name: name, ID: id, Err: err}
	}
	return &archive, nil
}

// ArchiveEntry is one archive in a listing, or why it is broken.
type ArchiveEntry struct {
	Name, ID string
	Archive  *Archive
	Err      error
}

// ListArchives reads all archives, or those of one name where it is not "",
// sorted by name, the oldest first. One that is broken does not hide others.
func (r *Registry) ListArchives(name string) ([]ArchiveEntry, error) {
	found := []string{name}
	if name == "" {
		folders, err := os.ReadDir(r.Archives())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read the archives: %w", err)
		}
		found = nil
		for _, folder := range folders {
			if folder.IsDir() && names.Container(folder.Name()) == nil {
				found = append(found, folder.Name())
			}
		}
		slices.Sort(found)
	}
	var entries []ArchiveEntry
	for _, name := range found {
		// ReadDir sorts.
		ids, err := os.ReadDir(r.ArchivesOf(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read the archives of %s: %w", name, err)
		}
		for _, id := range ids {
			if ValidArchiveID(id.Name()) {
				archive, err := r.LoadArchive(name, id.Name())
				entries = append(entries, ArchiveEntry{Name: name, ID: id.Name(), Archive: archive, Err: err})
			}
		}
	}
	return entries, nil
}

// ValidArchiveID says whether a text has the form of an archive's id.
func ValidArchiveID(id string) bool {
	at, err := time.Parse(archiveTime, id)
	return err == nil && at.Format(archiveTime) == id
}

// UnfinishedArchives are the folders of archives of a name that were not
// written to their end.
func (r *Registry) UnfinishedArchives(name string) []string {
	folders, _ := filepath.Glob(filepath.Join(r.ArchivesOf(name), "*"+unfinished))
	return folders
}
