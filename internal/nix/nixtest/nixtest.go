// Package nixtest gives tests a real Nix, or skips them.
package nixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/person"
)

// Client returns a client of the daemon that runs on this host. Without root,
// Nix or a daemon the test is skipped.
func Client(t testing.TB) *nix.Client {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: builds by the daemon with other sandbox paths")
	}
	if _, err := exec.LookPath("nix-store"); err != nil {
		t.Skip("needs Nix: ", err)
	}
	if err := nix.Answers(t.Context(), nix.DefaultSocket); err != nil {
		t.Skip("needs a Nix daemon: ", err)
	}
	return nix.New(execx.New(), nil)
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
