package fcmanage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"devhost/internal/nix"
)

// What is looked at to tell a changed configuration from an unchanged one; more
// is evaluated each time.
const (
	mostEntries = 5000
	mostBytes   = 32 << 20
)

// fingerprint is a hash over all files below the folders, and over more. It is
// "" where equal files do not mean an equal system: where a module names
// something elsewhere, or there is more than can be looked at.
func fingerprint(folders []string, more ...string) (string, error) {
	sum := &sums{hash: sha256.New()}
	for _, text := range more {
		fmt.Fprintf(sum.hash, "%d:%s", len(text), text)
	}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, sum.visit)
		switch {
		case errors.Is(err, errOpen):
			return "", nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("cannot read the configuration: %w", err)
		}
	}
	return hex.EncodeToString(sum.hash.Sum(nil)), nil
}

// errOpen says that the files are not all that counts.
var errOpen = errors.New("depends on more than its files")

type sums struct {
	hash    hash.Hash
	entries int
	bytes   int64
}

func (s *sums) visit(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if s.entries++; s.entries > mostEntries {
		return errOpen
	}
	fmt.Fprintf(s.hash, "%d:%s%d", len(path), path, entry.Type())
	switch {
	case entry.IsDir():
		return nil
	case entry.Type() == fs.ModeSymlink:
		return s.link(path)
	case !entry.Type().IsRegular():
		return errOpen
	}
	info, err := entry.Info()
	if err != nil {
		return err
	}
	if s.bytes += info.Size(); s.bytes > mostBytes {
		return errOpen
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.HasSuffix(path, ".nix") && !selfContained(content) {
		return errOpen
	}
	fmt.Fprintf(s.hash, "%d:", len(content))
	s.hash.Write(content)
	return nil
}

// link takes a link into account. Those of the system's own files say nothing
// new, and what is in the store does not change; elsewhere it can.
func (s *sums) link(path string) error {
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/etc/static/") {
		fmt.Fprintf(s.hash, "%d:%s", len(target), target)
		return nil
	}
	target, err = filepath.EvalSymlinks(path)
	if err != nil || !strings.HasPrefix(target, nix.StoreDir+"/") {
		return errOpen
	}
	fmt.Fprintf(s.hash, "%d:%s", len(target), target)
	return nil
}

var (
	// reaching are words by which an expression gets at what is in no file.
	reaching = regexp.MustCompile(`fetch|getEnv|getFlake|currentTime|\.\./|~/`)
	// absolute finds absolute paths, in quotes or not.
	absolute = regexp.MustCompile(`(?:^|[^A-Za-z0-9_.+/:}-])(/[A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_.+-]+)*)`)
	// covered are the paths that the fingerprint covers, or that never change.
	covered = regexp.MustCompile(`^(/etc/local|/etc/nixos|/nix/store)(/[^.]|$)`)
)

// selfContained tells whether a module can depend on nothing but its own text and
// the files that are looked at. A path that is only written down, and never
// read, counts too: an evaluation more does no harm.
func selfContained(module []byte) bool {
	if reaching.Match(module) {
		return false
	}
	for _, match := range absolute.FindAllSubmatch(module, -1) {
		// "a / b" and "//" are no paths.
		if path := match[1]; len(path) > 1 && !bytes.HasPrefix(path, []byte("//")) && !covered.Match(path) {
			return false
		}
	}
	return true
}
