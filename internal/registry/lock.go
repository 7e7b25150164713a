package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// Locked says that somebody else holds the lock.
type Locked struct {
	// What is the container's name, or a phrase for the shared lock.
	What string
	// Holder describes who holds it, as they wrote it down.
	Holder string
	Waited time.Duration
}

func (l *Locked) Error() string {
	holder := l.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("%s is in use by %s; waited %s for it; try again when that has ended, or wait longer with --lock-timeout",
		l.What, holder, l.Waited.Round(time.Second))
}

// Lock takes a container's lock and returns the function that frees it. It
// waits up to timeout; then, the error is *Locked and names the holder.
func (r *Registry) Lock(ctx context.Context, name, purpose string, timeout time.Duration) (func(), error) {
	return lock(ctx, r.Layout.Lock(name), "container "+name, purpose, timeout)
}

// LockShared takes the lock of what all containers share.
func (r *Registry) LockShared(ctx context.Context, purpose string, timeout time.Duration) (func(), error) {
	return lock(ctx, r.GlobalLock(), "the state folder "+r.State, purpose, timeout)
}

// LockBuild takes the lock of building a system of certain inputs: of many
// containers that need the same one at once, the first builds it and the others
// find it. It waits as long as ctx allows.
func (r *Registry) LockBuild(ctx context.Context, inputs string) (func(), error) {
	const forever = 365 * 24 * time.Hour
	return lock(ctx, r.BuildLock(inputs), "the system of the same channel and provision", "build", forever)
}

func lock(ctx context.Context, path, what, purpose string, timeout time.Duration) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file := flock.New(path, flock.SetPermissions(0o600))
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// TryLock first: with a timeout of zero the context has ended already.
	held, err := file.TryLock()
	if err == nil && !held {
		held, err = file.TryLockContext(waiting, lockPoll)
	}
	if ctx.Err() != nil && !held {
		return nil, ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) || (err == nil && !held) {
		holder, _ := os.ReadFile(path)
		return nil, &Locked{What: what, Holder: strings.TrimSpace(string(holder)), Waited: timeout}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	// Who holds it is for the other side's message only: no fsync.
	// On a full disk the lock holds without it.
	note := fmt.Sprintf("pid %d (%s, since %s)\n", os.Getpid(), purpose, time.Now().Format(time.TimeOnly))
	_ = os.WriteFile(path, []byte(note), 0o600)
	return func() {
		_ = os.Truncate(path, 0)
		_ = file.Unlock()
	}, nil
}
