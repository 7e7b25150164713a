package box

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/process"
)

// ownersFolder holds one file for each box of this machine.
const ownersFolder = "/run/devhost-boxes"

// owner says whose box it is. That of a dead process is removed by whoever
// starts the next one.
type owner struct {
	Version int    `json:"version"`
	Box     string `json:"box"`
	Folder  string `json:"folder"`
	process.ID
}

func ownerFile(id string) string { return filepath.Join(ownersFolder, id+".json") }

// claim records whose box this is, before anything else is made, and gives it
// its id.
func (b *Box) claim() error {
	self, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(ownersFolder, 0o700); err != nil {
		return err
	}
	// The name is what is wanted: unique, and short enough for everything that
	// carries it.
	reserved, err := os.CreateTemp(ownersFolder, "*.id")
	if err != nil {
		return err
	}
	defer func() {
		_ = reserved.Close()
		_ = os.Remove(reserved.Name())
	}()
	id := strings.TrimSuffix(filepath.Base(reserved.Name()), ".id")
	data, err := json.Marshal(owner{Version: 1, Box: id, Folder: b.Folder, ID: self})
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(ownerFile(id), data, 0o600); err != nil {
		return err
	}
	b.id = id
	return nil
}

// removeStale removes the boxes of processes that were killed.
func removeStale(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(ownersFolder, "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		var stale owner
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(data, &stale)
		}
		if err != nil {
			return fmt.Errorf("cannot read whose box %s is: %w", file, err)
		}
		if stale.Alive() {
			continue
		}
		ended := make(chan struct{})
		close(ended)
		if err := remove(ctx, stale.Box, stale.Folder, ended); err != nil {
			return fmt.Errorf("cannot remove the box that a killed process left: %w", err)
		}
	}
	return nil
}

// remove kills a box and removes everything of it. ended is closed when nobody
// starts it again.
func remove(ctx context.Context, id, folder string, ended <-chan struct{}) error {
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	group := tree.Group(cgroupInstance, id)
	if err := clearGroup(ctx, group); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Whatever was started while it was killed.
	if err := clearGroup(ctx, group); err != nil {
		return err
	}
	problems := []error{
		removeNetwork(ctx, id),
		nspawn.Clear(nspawn.Leftovers{Machine: machine(id), Root: filepath.Join(folder, "root")}),
		removeFiles(folder),
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if err := os.Remove(ownerFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Not empty while there are other boxes.
	_ = os.Remove(ownersFolder)
	return nil
}

// ownerOf is who keeps the box in a folder, nil if there is none.
func ownerOf(folder string) *owner {
	files, _ := filepath.Glob(filepath.Join(ownersFolder, "*.json"))
	for _, file := range files {
		var known owner
		data, err := os.ReadFile(file)
		if err == nil && json.Unmarshal(data, &known) == nil && known.Folder == folder {
			return &known
		}
	}
	return nil
}

// IDOf is the id of the box in a folder, "" if there is none.
func IDOf(folder string) string {
	if known := ownerOf(folder); known != nil {
		return known.Box
	}
	return ""
}

// End ends the box in a folder that another process keeps, and waits until
// everything of it is removed.
func End(ctx context.Context, folder string, patience time.Duration) error {
	known := ownerOf(folder)
	if known == nil {
		return fmt.Errorf("there is no box in %s", folder)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := known.Signal(syscall.SIGTERM)
	if err == nil {
		err = known.Wait(limited)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	// One that was killed has left something.
	return removeStale(limited)
}

// Leftovers are the things of a box that are there although it was removed.
func Leftovers(id, folder string) []string {
	var left []string
	for _, pattern := range []string{
		folder, ownerFile(id), namespacePath(hostNamespace(id)), namespacePath(outsideNamespace(id)),
		"/sys/fs/cgroup/*/devhost-" + cgroupInstance + "/" + id, "/sys/fs/cgroup/devhost-" + cgroupInstance + "/" + id,
		"/run/systemd/nspawn/*/" + machine(id),
	} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(mounts), folder) {
		left = append(left, "mounts below "+folder)
	}
	return left
}
