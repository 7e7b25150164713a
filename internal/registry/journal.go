package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
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

// RemoveJournal ends a change.
func (r *Registry) RemoveJournal(name string) error {
	if err := os.Remove(r.Journal(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
