package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/channel"
	"devhost/internal/person"
	"devhost/internal/registry"
)

// gitFolder is a folder in a git work tree on branch main.
func gitFolder(t *testing.T) (folder, git string) {
	t.Helper()
	root := t.TempDir()
	folder, git = filepath.Join(root, "channel"), filepath.Join(root, ".git")
	write(t, filepath.Join(folder, "nixos/default.nix"), "{ }")
	write(t, filepath.Join(git, "HEAD"), "ref: refs/heads/main\n")
	write(t, filepath.Join(git, "refs/heads/main"), "1111\n")
	write(t, filepath.Join(git, "index"), "index")
	return folder, git
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// Anew, as git does it.
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestPinMemory(t *testing.T) {
	alice, bob := person.Person{UID: uint32(os.Geteuid())}, person.Person{UID: 1001}
	for _, one := range []struct {
		name   string
		change func(t *testing.T, folder, git string)
		caller person.Person
		known  bool
	}{
		{"nothing changed", nil, alice, true},
		{"somebody else asks", nil, bob, false},
		{"a commit on the branch", func(t *testing.T, _, git string) { write(t, filepath.Join(git, "refs/heads/main"), "2222\n") }, alice, false},
		{"another branch", func(t *testing.T, _, git string) { write(t, filepath.Join(git, "HEAD"), "ref: refs/heads/next\n") }, alice, false},
		{"another index", func(t *testing.T, _, git string) { write(t, filepath.Join(git, "index"), "INDEX") }, alice, false},
		{"no work tree any more", func(t *testing.T, _, git string) {
			if err := os.RemoveAll(git); err != nil {
				t.Fatal(err)
			}
		}, alice, false},
	} {
		t.Run(one.name, func(t *testing.T) {
			folder, git := gitFolder(t)
			memory := pinMemory{dir: filepath.Join(t.TempDir(), "pins")}
			reference := channel.Reference{Text: folder, Kind: channel.Folder, Folder: folder}
			pin := registry.Pin{Reference: folder, Kind: "folder", StorePath: t.TempDir(), Revision: "1111"}
			if err := memory.remember(alice, reference, workTree(alice, folder), pin); err != nil {
				t.Fatal(err)
			}
			if one.change != nil {
				one.change(t, folder, git)
			}
			var want *registry.Pin
			if one.known {
				want = &pin
			}
			if diff := cmp.Diff(want, memory.recall(one.caller, reference)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What cannot be told cheaply is not remembered, and pins without their source
// are forgotten.
func TestPinMemoryForgets(t *testing.T) {
	folder, _ := gitFolder(t)
	memory := pinMemory{dir: filepath.Join(t.TempDir(), "pins")}
	gone := t.TempDir()
	remember := func(text, work, storePath string) {
		t.Helper()
		reference := channel.Reference{Text: text, Kind: channel.Folder, Folder: folder}
		if err := memory.remember(person.Person{}, reference, work, registry.Pin{StorePath: storePath}); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		found, err := filepath.Glob(filepath.Join(memory.dir, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	remember("linked work tree", unknownWorkTree, gone)
	if count() != 0 {
		t.Error("the pin of an unknown work tree was remembered")
	}
	remember("first", "", gone)
	if count() != 1 {
		t.Fatal("the pin was not remembered")
	}
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	remember("second", "", t.TempDir())
	if count() != 1 {
		t.Error("a pin without its source is still remembered")
	}
}

func TestWorkTreeElsewhere(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, ".git"), "gitdir: /elsewhere\n")
	if got := workTree(person.Person{}, folder); got != unknownWorkTree {
		t.Errorf("a linked work tree is in state %q", got)
	}
}
