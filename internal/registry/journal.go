package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"devhost/internal/names"
)

// Operation is a change of a container that is journalled.
type Operation string

// The journalled operations.
const (
	// Create is a first ensure; undone by removing the container.
	Create Operation = "create"
	// Update is a later ensure or a roll-back; undone by going back to
	// Previous.
	Update Operation = "update"
	// Destroy is a removal; it is finished, not undone.
	Destroy Operation = "destroy"
	// Hold is a copy of the container that is made while it stands still; undone
	// by letting it go on.
	Hold Operation = "hold"
	// Restore brings a snapshot back; undone until Staged has taken the place of
	// the root folder, and finished from then on.
	Restore Operation = "restore"
	// Rename gives the container another name; undone until its folder has that
	// name, and finished from then on.
	Rename Operation = "rename"
)

// JournalEntry is written before each step of a change, and removed after the
// last one. Who finds one while holding the container's lock finds what a
// killed process left.
type JournalEntry struct {
	Version   int       `json:"version"`
	Operation Operation `json:"operation"`
	// Step is the step that was begun last.
	Step      string    `json:"step"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
	// Previous is the record before an Update.
	Previous *Container `json:"previous,omitempty"`
	// PreviousGeneration is the profile's generation before an Update.
	PreviousGeneration int `json:"previousGeneration,omitempty"`
	// Switched says that the guest may have begun to switch its system.
	Switched bool `json:"switched,omitempty"`
	// Started says that the container was stopped before, and may have been
	// started.
	Started bool `json:"started,omitempty"`
	// Frozen says that the container may be frozen, and Restart that it ran
	// before and may be stopped.
	Frozen  bool `json:"frozen,omitempty"`
	Restart bool `json:"restart,omitempty"`
	// Staged is the name of the snapshot that a Restore makes of what is there
	// now, and StagedInode the number of the root folder that it puts in its
	// place. Next is the record after it.
	Staged      string     `json:"staged,omitempty"`
	StagedInode uint64     `json:"stagedInode,omitempty"`
	Next        *Container `json:"next,omitempty"`
	// From and To are the names of a Rename.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// WriteJournal records a step.
func (r *Registry) WriteJournal(name string, entry *JournalEntry) error {
	entry.Version, entry.PID = Version, os.Getpid()
	return WriteJSON(r.Journal(name), entry)
}

// ReadJournal returns the entry that a killed process left, or nil. A journal
// that cannot be read counts as one without content: what is known then is
// only that a change was under way.
func (r *Registry) ReadJournal(name string) (*JournalEntry, error) {
	data, err := os.ReadFile(r.Journal(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the journal of container %s: %w", name, err)
	}
	var entry JournalEntry
	if err := json.Unmarshal(data, &entry); err != nil || entry.Version != Version {
		return &JournalEntry{Operation: r.unreadableOperation(name)}, nil
	}
	return &entry, nil
}

// unreadableOperation: with a record there was something before the change,
// so it must not be removed.
func (r *Registry) unreadableOperation(name string) Operation {
	if _, err := os.Stat(r.Record(name)); err == nil {
		return Update
	}
	return Create
}

// RenamedFrom is the container whose renaming from a name was interrupted when
// its folder had its new name already, "" if there is none. While there is a
// container of that name, none is looked for.
func (r *Registry) RenamedFrom(name string) string {
	if _, err := os.Lstat(r.Container(name)); err == nil {
		return ""
	}
	folders, _ := os.ReadDir(r.Containers())
	for _, folder := range folders {
		if names.Container(folder.Name()) != nil {
			continue
		}
		entry, err := r.ReadJournal(folder.Name())
		if err == nil && entry != nil && entry.Operation == Rename && entry.From == name && entry.To == folder.Name() {
			return folder.Name()
		}
	}
	return ""
}

// RemoveJournal ends a change.
func (r *Registry) RemoveJournal(name string) error {
	if err := os.Remove(r.Journal(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
