package registry

import (
	"context"
	"time"
)

// LockFile takes the lock of something that is no container, and returns the
// function that frees it. what names it in the error, *Locked, that says after
// timeout who holds it.
func LockFile(ctx context.Context, path, what, purpose string, timeout time.Duration) (func(), error) {
	return lock(ctx, path, what, purpose, timeout)
}
