// Package nixtest gives tests a real Nix, or skips them.
package nixtest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/person"
)

// Client returns a client of a daemon of the test's own, with the store of this
// host. Without root, Nix or build users the test is skipped.
func Client(t testing.TB) *nix.Client {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root: builds by the daemon with other sandbox paths")
	}
	client := nix.New(execx.New(), nil)
	if _, err := client.Version(t.Context()); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	if err := client.CheckBuildUsers(t.Context()); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	// Builders see the host's /usr, and no binary cache is asked.
	t.Setenv("DEVHOST_OFFLINE", "1")
	folder := PublicDir(t)
	client.Socket = filepath.Join(folder, "socket")
	if err := client.EnsureDaemon(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.StopDaemon(context.Background(), folder); err != nil {
			t.Error(err)
		}
	})
	return client
}

// Nobody is a caller without rights.
func Nobody() person.Person {
	return person.Person{UID: 65534, GID: 65534, Home: "/nonexistent"}
}

// PublicDir is a temporary folder that every user may enter, unlike
// testing.T.TempDir.
func PublicDir(t testing.TB) string {
	t.Helper()
	folder, err := os.MkdirTemp("/tmp", "devhost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// Write makes a file that every user may read, and its folders.
func Write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
