package vm

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const store = "/nix/store"

// stored are the paths in the Nix store.
func stored(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(store)
	if err != nil {
		t.Skip("looks into the Nix store: ", err)
	}
	paths := map[string]bool{}
	for _, entry := range entries {
		paths[filepath.Join(store, entry.Name())] = true
	}
	return paths
}

// storedSince are the paths that came into the store since then and hold a
// text.
func storedSince(t *testing.T, before map[string]bool, text []byte) []string {
	t.Helper()
	var found []string
	for path := range stored(t) {
		if !before[path] && len(holding(t, path, text)) > 0 {
			found = append(found, path)
		}
	}
	slices.Sort(found)
	return found
}

// holding are the files below a path that hold a text. What goes away meanwhile
// does not.
func holding(t *testing.T, path string, text []byte) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			return nil
		}
		if bytes.Contains(data, text) {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// nothingSecret says that an init left a private key in neither the store nor
// the VM's folder, but for the VM's own disk. That it would be found is seen by
// the disk, and by one that is put into the store.
func (h *host) nothingSecret(before map[string]bool, name string, key []byte) {
	h.t.Helper()
	secret := bytes.Split(key, []byte("\n"))[2]
	if found := storedSince(h.t, before, secret); len(found) > 0 {
		h.t.Errorf("the private key is in the Nix store: %q", found)
	}
	folder := filepath.Join(h.state, "vms", name)
	if diff := cmp.Diff([]string{filepath.Join(folder, "disk.qcow2")}, holding(h.t, h.state, secret)); diff != "" {
		h.t.Errorf("files with the private key (-want +got):\n%s", diff)
	}

	control := filepath.Join(h.t.TempDir(), "control")
	if err := os.WriteFile(control, key, 0o600); err != nil {
		h.t.Fatal(err)
	}
	output, err := exec.Command("nix-store", "--add", control).Output()
	if err != nil {
		h.t.Fatalf("nix-store --add: %v", err)
	}
	added := strings.TrimSpace(string(output))
	defer func() { _ = exec.Command("nix-store", "--delete", added).Run() }()
	if found := storedSince(h.t, before, secret); !slices.Contains(found, added) {
		h.t.Errorf("a key that is in the store is not found: %q", found)
	}
}
