package registry

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestForeignFolder: a folder of somebody else's does not become a state
// folder, so nothing in it can be destroyed.
func TestForeignFolder(t *testing.T) {
	for name, test := range map[string]struct {
		files []string
		ok    bool
	}{
		"new file system":    {[]string{"lost+found/x"}, true},
		"podman's storage":   {[]string{"containers/storage/overlay/file"}, false},
		"somebody's folder":  {[]string{"file"}, false},
		"link to containers": {[]string{"devhost-state.json"}, false},
		"state folder":       {[]string{"devhost-state.json", "containers/demo/container.json"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			registry := New(Layout{State: t.TempDir()})
			for _, file := range test.files {
				path := filepath.Join(registry.State, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if name == "link to containers" {
				if err := os.Symlink(t.TempDir(), registry.Containers()); err != nil {
					t.Fatal(err)
				}
			}
			err := registry.Prepare()
			var foreign *ForeignFolder
			if test.ok && err != nil || !test.ok && !errors.As(err, &foreign) && (err == nil || name != "link to containers") {
				t.Errorf("Prepare = %v", err)
			}
			if _, err := os.Stat(registry.Temporary()); (err == nil) != test.ok {
				t.Errorf("sub-folders: %v", err)
			}
		})
	}
}

// TestClaimedAtOnce: the first commands for a new state folder come together.
func TestClaimedAtOnce(t *testing.T) {
	for range 20 {
		layout := Layout{State: filepath.Join(t.TempDir(), "state")}
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if err := New(layout).Prepare(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
}
