package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// HostsReadOnly says that names cannot be published in a hosts file.
type HostsReadOnly struct {
	Path string
	Err  error
}

func (h *HostsReadOnly) Error() string {
	return fmt.Sprintf("cannot publish the containers' names in %s: %v; the containers run, and their addresses are in devhost list. On NixOS, turn on services.devhost, which leads the file to a place that can be written (devhost-names.service); elsewhere, make the file writable", h.Path, h.Err)
}

func (h *HostsReadOnly) Unwrap() error { return h.Err }

// PublishHosts makes the hosts file at path hold exactly these names for the
// instance, in one block between the lines "# devhost <instance> begin" and
// "# devhost <instance> end"; without entries there is no block. Every line of
// the block is marked as the instance's own, so that a block that somebody tore
// apart is repaired without a doubt. All other bytes of the file stay as they
// are. When nothing changes, nothing is written.
//
// A reader sees the old file or the new one, with mode, owner and extended
// attributes as before; where a file cannot be replaced, because it is a mount
// point, it is written in place. The error is *HostsReadOnly where the file
// cannot be written at all, as on NixOS.
func PublishHosts(ctx context.Context, path, instance string, entries []HostEntry) error {
	if !instanceID.MatchString(instance) {
		return fmt.Errorf("instance id %q is not 4 to 12 lower-case hexadecimal digits", instance)
	}
	for _, entry := range entries {
		// A name that is none would be lines of its maker's choice.
		if entry.Name == "" || strings.ContainsAny(entry.Name, "# \t\r\n") {
			return fmt.Errorf("cannot publish %q in %s: it is not a host name", entry.Name, path)
		}
	}
	target, err := filepath.EvalSymlinks(path)
	leadsNowhere := false
	if errors.Is(err, fs.ErrNotExist) {
		target, leadsNowhere = path, isLink(path)
	} else if err != nil {
		return explain("read", path, err)
	}
	// Without the lock: names change seldom, and this is asked often.
	before, err := readHosts(target)
	if err != nil || withBlock(before, instance, entries) == before {
		return err
	}
	if strings.HasPrefix(target, "/nix/store/") {
		// Root could, but a store path must never change.
		return &HostsReadOnly{Path: path, Err: fmt.Errorf("it is a link to %s", target)}
	}

	if leadsNowhere {
		// A file in its place would hold our names alone.
		return &HostsReadOnly{Path: path, Err: errors.New("it is a link to a file that does not exist")}
	}

	// The lock is on the folder: no file is left behind, and the folder stays
	// the same when the file is replaced.
	const poll = 5 * time.Millisecond
	lock := flock.New(filepath.Dir(target), flock.SetFlag(os.O_RDONLY|unix.O_DIRECTORY))
	if _, err := lock.TryLockContext(ctx, poll); err != nil {
		return explain("lock", filepath.Dir(target), err)
	}
	defer func() { _ = lock.Unlock() }()

	if before, err = readHosts(target); err != nil {
		return err
	}
	after := withBlock(before, instance, entries)
	if after == before {
		return nil
	}
	err = replaceFile(target, []byte(after))
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EXDEV) {
		// A mount point; or its folder is read-only, and the file need not be.
		err = overwriteFile(target, []byte(after))
	}
	if errors.Is(err, unix.EROFS) || (errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0) {
		return &HostsReadOnly{Path: path, Err: err}
	}
	return explain("write", path, err)
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

func readHosts(path string) (string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(content), explain("read", path, err)
}

// NameInUse says why a container must not have a name: it would take the name
// over from the host itself, or from somebody who is named in the hosts file.
// "" means that the name is free. Names of other containers do not count.
func NameInUse(path, hostName, name string) (string, error) {
	first, _, _ := strings.Cut(hostName, ".")
	if strings.EqualFold(name, first) || strings.EqualFold(name, hostName) {
		return "this host has that name", nil
	}
	content, err := readHosts(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(content) {
		if strings.Contains(line, "# devhost ") {
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		for _, taken := range fields[min(1, len(fields)):] {
			if strings.EqualFold(taken, name) {
				return fmt.Sprintf("%s has it already, for %s", path, fields[0]), nil
			}
		}
	}
	return "", nil
}

// withBlock is the content of a hosts file with the block of one instance
// replaced, at the place where it was.
func withBlock(content, instance string, entries []HostEntry) string {
	mark := "# devhost " + instance
	var kept strings.Builder
	place := -1
	for line := range strings.Lines(content) {
		bare := strings.TrimRight(line, " \t\r\n")
		if bare == mark+" begin" || bare == mark+" end" || strings.HasSuffix(bare, " "+mark) {
			if place < 0 {
				place = kept.Len()
			}
			continue
		}
		kept.WriteString(line)
	}
	rest := kept.String()
	lines := hostLines(entries, " "+mark)
	if lines == "" {
		return rest
	}
	if place < 0 {
		place = len(rest)
	}
	if place > 0 && rest[place-1] != '\n' {
		// Behind a last line without an end, the block would change that line.
		place = 0
	}
	return rest[:place] + mark + " begin\n" + lines + mark + " end\n" + rest[place:]
}

// replaceFile replaces a file by one that differs in its content only. The
// temporary file has a fixed name, which the lock allows: what a killed process
// left is used up by the next one.
func replaceFile(path string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".devhost")
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	if err = likeExisting(path, file); err == nil {
		_, err = file.Write(content)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// likeExisting gives a new file the owner, mode and extended attributes of the
// one at path; without that, those of an ordinary hosts file.
func likeExisting(path string, file *os.File) error {
	information, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return file.Chmod(0o644)
	}
	if err != nil {
		return err
	}
	if owner, ok := information.Sys().(*syscall.Stat_t); ok {
		if err := file.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	// After Chown, which may clear bits of the mode.
	if err := file.Chmod(information.Mode().Perm()); err != nil {
		return err
	}
	return copyAttributes(path, int(file.Fd()))
}

// copyAttributes copies extended attributes: SELinux keeps the label of a file
// there, without which other services could not read it any more.
func copyAttributes(from string, to int) error {
	size, err := unix.Listxattr(from, nil)
	if errors.Is(err, unix.EOPNOTSUPP) || size == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	names := make([]byte, size)
	if size, err = unix.Listxattr(from, names); err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		const largest = 1 << 16 // XATTR_SIZE_MAX
		value := make([]byte, largest)
		length, err := unix.Getxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(to, name, value[:length], 0); err != nil {
			return err
		}
	}
	return nil
}

// overwriteFile writes a file in place. What is there is not cut before all of
// the new content is written, so that a full disk costs the least.
func overwriteFile(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(content, 0); err == nil {
		err = file.Truncate(int64(len(content)))
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
