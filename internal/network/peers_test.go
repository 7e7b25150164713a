package network

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// TestSetPolicyLooksUnderItsLock: of two calls at once, the one that sets last
// has looked last.
func TestSetPolicyLooksUnderItsLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	network, err := New(testHost(), path)
	if err != nil {
		t.Fatal(err)
	}
	free := func() bool {
		lock := flock.New(path)
		defer lock.Close()
		locked, err := lock.TryLock()
		if err != nil {
			t.Fatal(err)
		}
		return locked
	}
	unreadable := errors.New("the records cannot be read")
	err = network.SetPolicy(t.Context(), func() (Policy, error) {
		if free() {
			t.Error("the groups are looked up without the lock")
		}
		return Policy{}, unreadable
	})
	if !errors.Is(err, unreadable) {
		t.Errorf("got %v", err)
	}
	// The control: it can be taken now.
	if _, err := os.Stat(path); err != nil || !free() {
		t.Errorf("the lock is still held, %v", err)
	}
}
