// Package provision reads what a person hands in to configure an environment:
// once, with that person's rights, into a snapshot that nobody else can change.
package provision

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nix-community/go-nix/pkg/nar"
)

// Limits bound a provision.
type Limits struct {
	// Bytes bounds the sum of all file sizes.
	Bytes int64
	// Entries bounds the number of files, folders and links.
	Entries int
}

// DefaultLimits hold unless Source says otherwise.
var DefaultLimits = Limits{Bytes: 64 << 20, Entries: 20_000}

const (
	// longestName is the longest name of a file on Linux, bytes.
	longestName = 255
	// longestPath is the longest path of a member, and the longest target of a
	// link, bytes; Linux takes no longer ones.
	longestPath = 4096
	// deepest is how many folders a path may lead through: each one costs a
	// member, and a step of whoever walks the tree.
	deepest = 100
)

// Refused says why a provision, or a member of it, is not taken.
type Refused struct {
	// Member is the path within the provision, "" for all of it.
	Member string
	Reason string
	// Next is what to do about it.
	Next string
}

func (r *Refused) Error() string {
	text := "the provision is refused: " + r.Reason
	if r.Member != "" {
		text = fmt.Sprintf("the provision is refused: %q %s", r.Member, r.Reason)
	}
	if r.Next != "" {
		text += "; " + r.Next
	}
	return text
}

// Tree is a provision in memory: regular files, folders, and relative links
// that stay inside.
type Tree struct {
	limits  Limits
	bytes   int64
	entries map[string]*entry
	hash    string
}

type entry struct {
	mode       fs.FileMode // fs.ModeDir, fs.ModeSymlink or 0 for a file
	executable bool
	data       []byte
	target     string
}

func newTree(limits Limits) *Tree {
	return &Tree{limits: limits, entries: map[string]*entry{".": {mode: fs.ModeDir}}}
}

// Module is the NixOS module of the provision: "provision.nix", or
// "default.nix" where that is missing.
func (t *Tree) Module() string {
	for _, name := range moduleNames {
		if t.isFile(name) {
			return name
		}
	}
	return ""
}

var moduleNames = []string{"provision.nix", "default.nix"}

func (t *Tree) isFile(name string) bool {
	resolved, inside := t.resolve(name)
	found, ok := t.entries[resolved]
	return inside && ok && found.mode == 0
}

// Hash is the SRI hash of the provision's NAR. It depends on names, contents,
// executable bits and link targets, and on nothing else.
func (t *Tree) Hash() string { return t.hash }

// add puts a member in. name is relative and uses slashes. It refuses what a
// provision must not hold; links are checked by finish.
func (t *Tree) add(name string, member *entry) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(member.target) > longestPath {
		return &Refused{Member: name, Reason: fmt.Sprintf("is a link to a path of more than %d bytes", longestPath), Next: "make its target shorter"}
	}
	if name == "." {
		return nil
	}
	if err := t.addParents(name); err != nil {
		return err
	}
	if existing, ok := t.entries[name]; ok {
		if existing.mode == fs.ModeDir && member.mode == fs.ModeDir {
			return nil
		}
		return &Refused{Member: name, Reason: "comes twice", Next: "make the archive anew"}
	}
	if len(t.entries) > t.limits.Entries {
		return &Refused{Reason: fmt.Sprintf("it has more than %d files and folders", t.limits.Entries), Next: "leave out what the configuration does not need"}
	}
	t.entries[name] = member
	return nil
}

func (t *Tree) addParents(name string) error {
	parent := path.Dir(name)
	if parent == "." {
		return nil
	}
	existing, ok := t.entries[parent]
	switch {
	case !ok:
		return t.add(parent, &entry{mode: fs.ModeDir})
	case existing.mode != fs.ModeDir:
		return &Refused{Member: name, Reason: fmt.Sprintf("lies below %q, which is no folder", parent), Next: "make the archive anew"}
	}
	return nil
}

// take counts the bytes of a file before they are read.
func (t *Tree) take(size int64) error {
	if size < 0 || size > t.limits.Bytes-t.bytes {
		return &Refused{Reason: fmt.Sprintf("its files have more than %d MiB", t.limits.Bytes>>20), Next: "leave out what the configuration does not need; seed data belongs into provision.sh or a sync"}
	}
	t.bytes += size
	return nil
}

// left is how many bytes may still come.
func (t *Tree) left() int64 { return t.limits.Bytes - t.bytes }

func checkName(name string) error {
	// First, before the work that grows with them. Such a name is not shown
	// whole either.
	if len(name) > longestPath {
		return &Refused{Member: name[:longestName], Reason: fmt.Sprintf("begins a path of more than %d bytes", longestPath), Next: "make its path shorter"}
	}
	if strings.Count(name, "/") > deepest {
		return &Refused{Member: name[:min(len(name), longestName)], Reason: fmt.Sprintf("begins a path of more than %d folders", deepest), Next: "put its files into fewer folders"}
	}
	switch {
	case name == "" || path.IsAbs(name):
		return &Refused{Member: name, Reason: "has an absolute name", Next: "make the archive with: tar -C DIR -cf - ."}
	case path.Clean(name) != name:
		return &Refused{Member: name, Reason: "has a name with . or .. or // in it", Next: "make the archive with: tar -C DIR -cf - ."}
	case name == ".." || strings.HasPrefix(name, "../"):
		return &Refused{Member: name, Reason: "lies outside", Next: "make the archive with: tar -C DIR -cf - ."}
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return &Refused{Member: name, Reason: "has a name with control characters or that is not UTF-8", Next: "rename it"}
	}
	for _, part := range strings.Split(name, "/") {
		if strings.HasPrefix(part, "..") {
			// go-nix takes such a name for the way up when it hashes.
			return &Refused{Member: name, Reason: "has a name that starts with two dots", Next: "rename it"}
		}
		if len(part) > longestName {
			return &Refused{Member: name, Reason: fmt.Sprintf("has a name of more than %d bytes", longestName), Next: "rename it"}
		}
	}
	return nil
}

// isGit says whether a member is git's own. They are left out: they are large,
// change without cause, and hold history that nobody meant to hand over.
func isGit(name string) bool {
	for _, part := range strings.Split(name, "/") {
		if part == ".git" {
			return true
		}
	}
	return false
}

// finish checks the links and computes the hash.
func (t *Tree) finish() error {
	for _, name := range t.names() {
		member := t.entries[name]
		if member.mode != fs.ModeSymlink {
			continue
		}
		outside := path.IsAbs(member.target) || member.target == "" || strings.ContainsRune(member.target, 0)
		if !outside {
			_, inside := t.resolve(name)
			outside = !inside
		}
		if outside {
			return &Refused{Member: name, Reason: fmt.Sprintf("is a link to %q, which is outside of the provision", member.target), Next: "copy the file in, or make the link relative"}
		}
	}
	if t.Module() == "" {
		return &Refused{Reason: "it holds neither provision.nix nor default.nix", Next: "add a provision.nix: a NixOS module such as { services.nginx.enable = true; }"}
	}
	sum := sha256.New()
	writer, err := nar.NewWriter(sum)
	if err != nil {
		return err
	}
	if err := t.writeNAR(writer); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	t.hash = "sha256-" + base64.StdEncoding.EncodeToString(sum.Sum(nil))
	return nil
}

// resolve follows links as the kernel would, and says whether that stays
// inside. Comparing texts would not do: "a/.." is elsewhere if a is a link.
func (t *Tree) resolve(name string) (resolved string, inside bool) {
	const mostLinks = 40
	var at []string
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return "", false
			}
			at = at[:len(at)-1]
			continue
		}
		here := path.Join(append(append([]string{}, at...), part)...)
		member, ok := t.entries[here]
		if !ok || member.mode != fs.ModeSymlink {
			at = append(at, part)
			continue
		}
		if links++; links > mostLinks || path.IsAbs(member.target) {
			return "", false
		}
		rest = append(strings.Split(member.target, "/"), rest...)
	}
	return path.Join(append([]string{"."}, at...)...), true
}

// names lists all members in the order of a NAR: parents first, and siblings
// by their bytes.
func (t *Tree) names() []string {
	names := make([]string, 0, len(t.entries))
	for name := range t.entries {
		names = append(names, name)
	}
	// With / as the least byte, string order is the order of the tree.
	key := func(name string) string { return strings.ReplaceAll(name, "/", "\x00") }
	sort.Slice(names, func(i, j int) bool {
		if names[i] == "." || names[j] == "." {
			return names[i] == "." && names[j] != "."
		}
		return key(names[i]) < key(names[j])
	})
	return names
}

func (t *Tree) writeNAR(writer *nar.Writer) error {
	for _, name := range t.names() {
		member := t.entries[name]
		header := &nar.Header{Path: "/" + strings.TrimPrefix(name, "./"), Type: nar.TypeDirectory}
		if name == "." {
			header.Path = "/"
		}
		switch member.mode {
		case fs.ModeSymlink:
			header.Type, header.LinkTarget = nar.TypeSymlink, member.target
		case 0:
			header.Type, header.Size, header.Executable = nar.TypeRegular, int64(len(member.data)), member.executable
		}
		if err := writer.WriteHeader(header); err != nil {
			return fmt.Errorf("cannot hash %q of the provision: %w", name, err)
		}
		if header.Type == nar.TypeRegular {
			if _, err := writer.Write(member.data); err != nil {
				return fmt.Errorf("cannot hash %q of the provision: %w", name, err)
			}
		}
	}
	return nil
}

// Write makes the folder dir with the provision in it: owned by this process'
// user, files 0644 or 0755, folders 0755. A folder that is there is replaced.
func (t *Tree) Write(dir string) (err error) {
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("cannot write the provision: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot write the provision: %w", err), os.RemoveAll(fresh))
		}
	}()
	for _, name := range t.names() {
		member, file := t.entries[name], filepath.Join(fresh, name)
		switch member.mode {
		case fs.ModeDir:
			err = errors.Join(os.Mkdir(file, 0o755), os.Chmod(file, 0o755))
		case fs.ModeSymlink:
			err = os.Symlink(member.target, file)
		default:
			mode := fs.FileMode(0o644)
			if member.executable {
				mode = 0o755
			}
			err = errors.Join(os.WriteFile(file, member.data, mode), os.Chmod(file, mode))
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}
