package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"devhost/internal/names"
)

// Snapshot is what is written down about a snapshot of a container. Its files
// lie beside it, see SnapshotRoot and SnapshotProvision.
type Snapshot struct {
	Version   int       `json:"version"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
	// Automatic says that a restore made it of what was there before.
	Automatic bool `json:"automatic"`
	// State says what the container did meanwhile: "frozen" while it ran, or
	// "stopped".
	State string `json:"state"`
	// Way says how its files were copied: "reflink", "copy", or "moved" where
	// they are the container's own.
	Way string `json:"way"`
	// Record is the container's as it was.
	Record *Container `json:"record"`
}

// NoSnapshot says that a container has no such snapshot.
type NoSnapshot struct{ Container, Name string }

func (n *NoSnapshot) Error() string {
	return fmt.Sprintf("container %s has no snapshot %s; devhost snapshot list %[1]s shows those that it has", n.Container, n.Name)
}

// Snapshot is the folder of one snapshot.
func (l Layout) Snapshot(container, name string) string {
	return filepath.Join(l.Snapshots(container), name)
}

// No name of a snapshot holds a dot.
const (
	unfinishedSnapshot = ".new"
	doomedSnapshot     = ".old"
)

// UnfinishedSnapshot is the folder of a snapshot while it is made; it gets its
// name when it is whole.
func (l Layout) UnfinishedSnapshot(container, name string) string {
	return l.Snapshot(container, name) + unfinishedSnapshot
}

// DoomedSnapshot is the folder of a snapshot while it is removed.
func (l Layout) DoomedSnapshot(container, name string) string {
	return l.Snapshot(container, name) + doomedSnapshot
}

// StaleSnapshots are the folders of snapshots that were being made or removed.
func (l Layout) StaleSnapshots(container string) []string {
	var stale []string
	for _, end := range []string{unfinishedSnapshot, doomedSnapshot} {
		found, _ := filepath.Glob(filepath.Join(l.Snapshots(container), "*"+end))
		stale = append(stale, found...)
	}
	return stale
}

// SnapshotRoot and SnapshotProvision are the container's root folder and the
// snapshot of its provision in the folder of a snapshot.
func SnapshotRoot(folder string) string { return filepath.Join(folder, "root") }

// SnapshotProvision is there when the container had a provision.
func SnapshotProvision(folder string) string { return filepath.Join(folder, "provision") }

// SnapshotRecord is the JSON file in the folder of a snapshot.
func SnapshotRecord(folder string) string { return filepath.Join(folder, "snapshot.json") }

// SnapshotGCRoot keeps a snapshot's system from being garbage collected, in the
// folder of the container's gc roots.
func SnapshotGCRoot(gcRoots, name string) string { return filepath.Join(gcRoots, "snapshot."+name) }

// LoadSnapshot reads one snapshot's record. The error is *NoSnapshot, or that
// of a damaged file.
func (r *Registry) LoadSnapshot(container, name string) (*Snapshot, error) {
	path := SnapshotRecord(r.Snapshot(container, name))
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoSnapshot{Container: container, Name: name}
	}
	var snapshot Snapshot
	if err == nil {
		err = json.Unmarshal(text, &snapshot)
	}
	switch {
	case err != nil:
	case snapshot.Version != Version:
		err = fmt.Errorf("it has version %d, this devhost reads version %d", snapshot.Version, Version)
	case snapshot.Name != name || snapshot.Record == nil:
		err = errors.New("it is that of another snapshot")
	case snapshot.Record.System != "" && filepath.Dir(snapshot.Record.System) != "/nix/store":
		err = fmt.Errorf("system %q is no store path", snapshot.Record.System)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s of container %s cannot be used: %s: %w; remove it with: devhost snapshot remove %[2]s %[1]s", name, container, path, err)
	}
	return &snapshot, nil
}

// SnapshotEntry is one snapshot in a listing: its record, or why that cannot be
// read.
type SnapshotEntry struct {
	Name     string
	Snapshot *Snapshot
	Err      error
}

// ListSnapshots reads the records of all snapshots of a container, the oldest
// first; damaged ones are at the end.
func (r *Registry) ListSnapshots(container string) ([]SnapshotEntry, error) {
	folders, err := os.ReadDir(r.Snapshots(container))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the snapshots of container %s: %w", container, err)
	}
	var entries []SnapshotEntry
	for _, folder := range folders {
		if name := folder.Name(); names.Snapshot(name) == nil {
			snapshot, err := r.LoadSnapshot(container, name)
			entries = append(entries, SnapshotEntry{Name: name, Snapshot: snapshot, Err: err})
		}
	}
	when := func(entry SnapshotEntry) time.Time {
		if entry.Err != nil {
			return endOfTime
		}
		return entry.Snapshot.CreatedAt
	}
	// They come sorted by name.
	slices.SortStableFunc(entries, func(a, b SnapshotEntry) int { return when(a).Compare(when(b)) })
	return entries, nil
}

// endOfTime is later than any snapshot.
var endOfTime = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// CountSnapshots counts them without reading their records.
func (r *Registry) CountSnapshots(container string) int {
	folders, _ := os.ReadDir(r.Snapshots(container))
	count := 0
	for _, folder := range folders {
		if names.Snapshot(folder.Name()) == nil {
			count++
		}
	}
	return count
}
