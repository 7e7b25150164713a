package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/engine"
	"devhost/internal/engine/nspawn"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// RecordVersion is the version of the runtime record.
const RecordVersion = 1

// Record is what a supervisor says about its container while it runs, and,
// when the container failed, afterwards. It lives below /run.
type Record struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// BootID is the boot that the processes belong to.
	BootID string        `json:"bootId"`
	Status engine.Status `json:"status"`
	// Supervisor, Nspawn and Leader are as the host sees them; the leader is
	// PID 1 of the guest.
	Supervisor process.ID `json:"supervisor"`
	Nspawn     process.ID `json:"nspawn"`
	Leader     process.ID `json:"leader"`
	// UIDBase is the host's uid of the guest's root, 0 while it is not known.
	UIDBase int `json:"uidBase,omitempty"`
	// System is the store path that runs.
	System string `json:"system,omitempty"`
	// StartedAt is when nspawn was started last.
	StartedAt time.Time `json:"startedAt"`
	// QuickReboots is how often in a row the guest rebooted right after its
	// start, where a unit of systemd runs it.
	QuickReboots int `json:"quickReboots,omitempty"`
	// Detail says why, when Status is engine.Failed.
	Detail string `json:"detail,omitempty"`
}

// PowerOff tells the guest to power off, and returns when it should be told once
// more: its first process does not heed it before it is systemd, and systemd does
// not mind hearing it again.
func (r *Record) PowerOff() time.Duration {
	again := r.powerOffAgain()
	_ = r.Leader.Signal(nspawn.PowerOffSignal)
	return again
}

func (r *Record) powerOffAgain() time.Duration {
	const soon, later = 100 * time.Millisecond, 2 * time.Second
	// At first it is nspawn itself, which holds signals back and then drops them.
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.Nspawn.PID))
	theirs, theirErr := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.Leader.PID))
	if err == nil && theirErr == nil && own != theirs && r.Leader.Listens(nspawn.PowerOffSignal) {
		// It may still be a shell, which holds them back for a moment.
		return later
	}
	return soon
}

// UnusableRecord says that a runtime record cannot be read.
type UnusableRecord struct {
	Name, Path string
	Err        error
}

func (u *UnusableRecord) Error() string {
	return fmt.Sprintf("the runtime record of container %s is unusable: %s: %v; end the container and clear it with: devhost stop %s",
		u.Name, u.Path, u.Err, u.Name)
}

func (u *UnusableRecord) Unwrap() error { return u.Err }

// ReadRecord reads the record of a container, nil when there is none or when
// it is of another boot. The error is *UnusableRecord.
func ReadRecord(layout registry.Layout, name string) (*Record, error) {
	path := layout.RuntimeRecord(name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &UnusableRecord{Name: name, Path: path, Err: err}
	}
	record, err := decodeRecord(text)
	if err == nil && record.Name != name {
		err = fmt.Errorf("it names container %q", record.Name)
	}
	if err != nil {
		return nil, &UnusableRecord{Name: name, Path: path, Err: err}
	}
	if record.BootID != process.BootID() {
		return nil, nil
	}
	return record, nil
}

// Look reads the record of a container and looks which of its processes live.
// Where settled is true the state is all that there is to say, and the record may
// be nil; else the engine judges by the processes.
func Look(layout registry.Layout, name string) (record *Record, state engine.State, settled bool) {
	record, err := ReadRecord(layout, name)
	if err != nil {
		return nil, engine.State{Status: engine.Failed, Detail: err.Error()}, true
	}
	if record == nil {
		return nil, engine.State{Status: engine.Stopped}, true
	}
	state = engine.State{Status: record.Status, StartedAt: record.StartedAt, Detail: record.Detail}
	if record.Supervisor.Alive() {
		state.SupervisorPID = record.Supervisor.PID
	}
	if record.Status == engine.Failed {
		return record, state, true
	}
	if record.Leader.Alive() {
		state.LeaderPID = record.Leader.PID
	}
	return record, state, false
}

func decodeRecord(text []byte) (*Record, error) {
	var record Record
	if err := json.Unmarshal(text, &record); err != nil {
		return nil, err
	}
	if record.Version != RecordVersion {
		return nil, fmt.Errorf("it has version %d, this devhost reads version %d", record.Version, RecordVersion)
	}
	switch record.Status {
	case engine.Starting, engine.Running, engine.Stopping, engine.Failed:
		return &record, nil
	}
	return nil, fmt.Errorf("status %q is none", record.Status)
}

// write replaces the record. No fsync: it means nothing after this boot.
func (r *Record) write(layout registry.Layout) error {
	r.Version, r.BootID = RecordVersion, process.BootID()
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := layout.RuntimeRecord(r.Name)
	temporary := path + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write the runtime record: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("cannot write the runtime record: %w", err)
	}
	return nil
}

func removeRecord(layout registry.Layout, name string) error {
	path := layout.RuntimeRecord(name)
	return errors.Join(removeIfThere(path), removeIfThere(path+".new"))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// makeRuntime makes the folder of the runtime records.
func makeRuntime(layout registry.Layout) error {
	folder := layout.Runtime()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the runtime folder: %w", err)
	}
	return nil
}

// removeRuntime removes the runtime folders when they are empty.
func removeRuntime(layout registry.Layout) {
	folder := layout.Runtime()
	if unix.Rmdir(folder) == nil {
		_ = unix.Rmdir(filepath.Dir(folder))
	}
}

// notifySocket is where nspawn says that the guest is up.
func notifySocket(layout registry.Layout, name string) string {
	return filepath.Join(layout.Runtime(), name+".notify")
}

// consolePipe is the named pipe that the guest's console comes through.
func consolePipe(layout registry.Layout, name string) string {
	return filepath.Join(layout.Runtime(), name+".console")
}

// Busy says that a container has a living supervisor already.
type Busy struct{ Name string }

func (b *Busy) Error() string {
	return fmt.Sprintf("container %s has a supervisor already; see: devhost status %s", b.Name, b.Name)
}

// lockPath is the file that a living supervisor holds locked. It holds the
// supervisor's process.ID as JSON.
func lockPath(layout registry.Layout, name string) string {
	return filepath.Join(layout.Runtime(), name+".lock")
}

// Holder is the living supervisor of a container, the zero ID when there is
// none. It needs no record, which may be damaged.
func Holder(layout registry.Layout, name string) process.ID {
	var holder process.ID
	text, err := os.ReadFile(lockPath(layout, name))
	if err != nil || json.Unmarshal(text, &holder) != nil || !holder.Alive() {
		return process.ID{}
	}
	return holder
}

// lock takes the lock that a living supervisor holds; a kill frees it. The
// returned function removes and frees it. The error is *Busy.
func lock(layout registry.Layout, name string) (func(), error) {
	file, err := lockFile(layout, name)
	if err != nil {
		return nil, err
	}
	return func() { _ = releaseLock(layout, name, file) }, nil
}

func releaseLock(layout registry.Layout, name string, file *os.File) error {
	return errors.Join(os.Remove(lockPath(layout, name)), file.Close())
}

// lockFile is lock's file, which is locked as long as somebody has it open.
func lockFile(layout registry.Layout, name string) (*os.File, error) {
	path := lockPath(layout, name)
	for {
		if err := makeRuntime(layout); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			// The last supervisor removed the folder meanwhile.
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot lock the container's supervisor: %w", err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, &Busy{Name: name}
			}
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		// Whoever held it before may have removed it: then this is a lock that
		// nobody else sees.
		mine, mineErr := file.Stat()
		there, thereErr := os.Stat(path)
		if mineErr == nil && thereErr == nil && os.SameFile(mine, there) {
			return file, nil
		}
		_ = file.Close()
	}
}
