package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"devhost/internal/channel"
	"devhost/internal/person"
	"devhost/internal/registry"
)

// pinMemory remembers what folders resolved to, so that a new container from
// the same folder starts no process for that. A pin is used again only for the
// person for whom it was made, who could read the folder then.
type pinMemory struct{ dir string }

const pinMemoryVersion = 1

type rememberedPin struct {
	Version int `json:"version"`
	// Work is the state of the git work tree: a commit changes the revision
	// and none of the folder's files.
	Work string       `json:"work"`
	Pin  registry.Pin `json:"pin"`
}

func (p pinMemory) path(caller person.Person, reference string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s", caller.UID, reference))
	return filepath.Join(p.dir, hex.EncodeToString(sum[:])+".json")
}

// recall returns the pin of a folder, or nil. Whether the folder's files are as
// they were is not looked at here.
func (p pinMemory) recall(caller person.Person, reference channel.Reference) *registry.Pin {
	if reference.Kind != channel.Folder {
		return nil
	}
	data, err := os.ReadFile(p.path(caller, reference.Text))
	if err != nil {
		return nil
	}
	var remembered rememberedPin
	if json.Unmarshal(data, &remembered) != nil || remembered.Version != pinMemoryVersion || remembered.Work != workTree(caller, reference.Folder) {
		return nil
	}
	return &remembered.Pin
}

// remember keeps the pin of a folder; work is the work tree's state from before
// the folder was read. Pins whose source was garbage collected are forgotten.
func (p pinMemory) remember(caller person.Person, reference channel.Reference, work string, pin registry.Pin) error {
	if reference.Kind != channel.Folder || work == unknownWorkTree {
		return nil
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	others, err := filepath.Glob(filepath.Join(p.dir, "*.json"))
	if err != nil {
		return err
	}
	for _, other := range others {
		var remembered rememberedPin
		data, err := os.ReadFile(other)
		if err == nil && json.Unmarshal(data, &remembered) == nil {
			if _, err := os.Lstat(remembered.Pin.StorePath); err == nil {
				continue
			}
		}
		if err := os.Remove(other); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return registry.WriteJSON(p.path(caller, reference.Text), rememberedPin{Version: pinMemoryVersion, Work: work, Pin: pin})
}

// unknownWorkTree is the state of a work tree that cannot be told cheaply; it
// equals no other.
const unknownWorkTree = "unknown"

// workTree tells apart the states of the git work tree that a folder is in, ""
// where it is in none: what HEAD is, and when the branch and the index were
// written. It starts no process, and looks with the rights of the person who
// named the folder.
func workTree(caller person.Person, folder string) string {
	state := unknownWorkTree
	err := caller.Do(func() error {
		state = stateOfWorkTree(folder)
		return nil
	})
	if err != nil || state == unknownWorkTree || state == "" {
		return state
	}
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:])
}

func stateOfWorkTree(folder string) string {
	for ; ; folder = filepath.Dir(folder) {
		git := filepath.Join(folder, ".git")
		info, err := os.Lstat(git)
		switch {
		case err == nil && info.IsDir():
			return gitState(git)
		case err == nil:
			// A linked work tree or a submodule: its parts are elsewhere.
			return unknownWorkTree
		case folder == filepath.Dir(folder):
			return ""
		}
	}
}

func gitState(git string) string {
	state, err := readHead(filepath.Join(git, "HEAD"))
	if err != nil {
		return unknownWorkTree
	}
	files := []string{"index", "packed-refs"}
	if branch, found := strings.CutPrefix(strings.TrimSpace(state), "ref: "); found && filepath.IsLocal(branch) {
		files = append(files, branch)
	}
	for _, file := range files {
		var status syscall.Stat_t
		if syscall.Stat(filepath.Join(git, file), &status) == nil {
			state += fmt.Sprintf("%s %d %d %d.%d\n", file, status.Ino, status.Size, status.Mtim.Sec, status.Mtim.Nsec)
		}
	}
	return state
}

// readHead reads the HEAD of a repository, which is anybody's: not a FIFO, and
// nothing without an end.
func readHead(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, errors.New("it is no regular file"))
	}
	const longest = 4096
	head, err := io.ReadAll(io.LimitReader(file, longest))
	return string(head), err
}

// recallPin is the remembered pin of a new container's channel, kept from
// being garbage collected by root; nil when there is none.
func (s *NixSystems) recallPin(ctx context.Context, caller person.Person, reference channel.Reference, root string) *registry.Pin {
	pin := s.pins().recall(caller, reference)
	if pin == nil {
		return nil
	}
	fingerprint, err := channel.FingerprintFor(ctx, caller, reference.Folder)
	if err != nil || fingerprint != pin.Fingerprint {
		return nil
	}
	if s.Client.Root(ctx, root, pin.StorePath) != nil {
		return nil
	}
	return pin
}

func (s *NixSystems) pins() pinMemory { return pinMemory{dir: s.Layout.Pins()} }
