package disk_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/disk/disktest"
	"devhost/internal/execx"
)

func host() disk.Host { return disk.Host{Runner: execx.New()} }

// must ends the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// seen is what of a file must be the same in a copy.
type seen struct {
	Mode, UID, GID uint32
	Size           int64
	Time           unix.Timespec
	Links          int
	Target         string
	Content        string
	Attribute      string
}

func look(t *testing.T, path string) seen {
	t.Helper()
	var status unix.Stat_t
	must(t, unix.Lstat(path, &status))
	found := seen{Mode: status.Mode, UID: status.Uid, GID: status.Gid, Time: status.Mtim, Links: int(status.Nlink)}
	switch status.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		found.Size = status.Size
		text, err := os.ReadFile(path)
		must(t, err)
		found.Content = string(text[:min(len(text), 64)])
		value := make([]byte, 64)
		if n, err := unix.Lgetxattr(path, "user.note", value); err == nil {
			found.Attribute = string(value[:n])
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		must(t, err)
		found.Target = target
	}
	return found
}

// makeTree makes one of everything that a guest can have.
func makeTree(t *testing.T, root string) []string {
	t.Helper()
	in := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(in("etc/deep"), 0o750),
		os.WriteFile(in("etc/file"), []byte("text"), 0o640),
		os.WriteFile(in("etc/setuid"), []byte("program"), 0o755), os.Chmod(in("etc/setuid"), 0o755|os.ModeSetuid),
		os.Link(in("etc/file"), in("etc/deep/hard")),
		os.Symlink("/etc/shadow", in("absolute")), os.Symlink("nowhere", in("dangling")), os.Symlink("/", in("etc/out")),
		unix.Mkfifo(in("fifo"), 0o600),
		os.Lchown(in("etc/file"), 1000, 26), os.Lchown(in("absolute"), 1000, 100), os.Chown(in("etc"), 70000, 70000),
	)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", in("socket"))
	must(t, err)
	// It holds its folder as long as it is open.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, listener.Close())
	sparse, err := os.Create(in("sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("end"), 64<<20)
	must(t, err, sparse.Close())
	names := []string{"", "etc", "etc/file", "etc/setuid", "etc/deep", "etc/deep/hard", "absolute", "dangling", "etc/out", "fifo", "socket", "sparse"}
	if unix.Lsetxattr(in("etc/file"), "user.note", []byte("value"), 0) != nil {
		t.Log("this file system has no user attributes")
	}
	past := []unix.Timespec{{Sec: 1e9, Nsec: 7}, {Sec: 1e9, Nsec: 7}}
	for _, name := range names {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), past, unix.AT_SYMLINK_NOFOLLOW))
	}
	return names
}

func checkCopy(t *testing.T, source, target string, names []string) {
	t.Helper()
	for _, name := range names {
		if diff := cmp.Diff(look(t, filepath.Join(source, name)), look(t, filepath.Join(target, name))); diff != "" {
			t.Errorf("%q (-source +copy):\n%s", name, diff)
		}
	}
	var one, other, sparse unix.Stat_t
	must(t, unix.Stat(filepath.Join(target, "etc/file"), &one), unix.Stat(filepath.Join(target, "etc/deep/hard"), &other),
		unix.Stat(filepath.Join(target, "sparse"), &sparse))
	if one.Ino != other.Ino {
		t.Error("a hard link became a file of its own")
	}
	if sparse.Blocks*512 > 1<<20 {
		t.Errorf("a file with a hole takes %d bytes", sparse.Blocks*512)
	}
}

func TestCopyTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	places := map[string]func(t *testing.T) string{
		"here":  func(t *testing.T) string { return t.TempDir() },
		"xfs":   func(t *testing.T) string { return disktest.Mount(t, disktest.ReflinkXFS, 320<<20) },
		"btrfs": func(t *testing.T) string { return disktest.Mount(t, disktest.ReflinkBtrfs, 320<<20) },
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			folder := place(t)
			way, err := host().WayIn(folder)
			must(t, err)
			if name != "here" && way != disk.Reflink {
				t.Errorf("files are copied by %s", way)
			}
			if left, _ := filepath.Glob(filepath.Join(folder, ".try*")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			source := filepath.Join(folder, "source: 'a b'")
			names := makeTree(t, source)
			must(t, os.WriteFile(filepath.Join(source, "big"), make([]byte, 0), 0o600))
			must(t, host().CopyTree(t.Context(), source, filepath.Join(folder, "new")))
			checkCopy(t, source, filepath.Join(folder, "new"), names)
			must(t, os.Mkdir(filepath.Join(folder, "empty"), 0o700), host().CopyTree(t.Context(), source, filepath.Join(folder, "empty")))
			checkCopy(t, source, filepath.Join(folder, "empty"), names)
			// A copy is one of its own.
			must(t, os.WriteFile(filepath.Join(source, "etc/file"), []byte("other"), 0o640))
			if text, err := os.ReadFile(filepath.Join(folder, "new/etc/file")); err != nil || string(text) != "text" {
				t.Errorf("the copy holds %q, %v", text, err)
			}
		})
	}
}

func TestCopyTreeShares(t *testing.T) {
	folder := disktest.Mount(t, disktest.ReflinkXFS, 320<<20)
	content := make([]byte, 100<<20)
	for i := range content {
		content[i] = byte(i * 7)
	}
	must(t, os.Mkdir(filepath.Join(folder, "source"), 0o755), os.WriteFile(filepath.Join(folder, "source/big"), content, 0o600))
	// There is no room for five of it.
	for _, name := range []string{"1", "2", "3", "4"} {
		must(t, host().CopyTree(t.Context(), filepath.Join(folder, "source"), filepath.Join(folder, name)))
	}
}

func TestCopyTreeFails(t *testing.T) {
	t.Run("disk full", func(t *testing.T) {
		folder := disktest.Mount(t, disktest.Kind{Name: "ext4", Make: []string{"mkfs.ext4", "-q"}, Options: "defaults"}, 32<<20)
		must(t, os.Mkdir(filepath.Join(folder, "source"), 0o755), os.WriteFile(filepath.Join(folder, "source/big"), make([]byte, 16<<20), 0o600))
		// Zeros of a file that was written are no hole.
		err := host().CopyTree(t.Context(), filepath.Join(folder, "source"), filepath.Join(folder, "copy"))
		var failed *disk.CopyError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), "No space left") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("no source", func(t *testing.T) {
		folder := t.TempDir()
		var failed *disk.CopyError
		if err := host().CopyTree(t.Context(), filepath.Join(folder, "none"), filepath.Join(folder, "copy")); !errors.As(err, &failed) {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		folder := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var failed *execx.Error
		if err := host().CopyTree(ctx, "/usr", filepath.Join(folder, "copy")); !errors.As(err, &failed) || !failed.Cancelled {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestExchange(t *testing.T) {
	folder := t.TempDir()
	one, other := filepath.Join(folder, "one"), filepath.Join(folder, "other")
	must(t, os.Mkdir(one, 0o755), os.Mkdir(other, 0o755), os.WriteFile(filepath.Join(one, "file"), nil, 0o600), host().Exchange(one, other))
	if _, err := os.Stat(filepath.Join(other, "file")); err != nil {
		t.Error(err)
	}
	if err := host().Exchange(one, filepath.Join(folder, "none")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the error is %v", err)
	}
}

func TestWithoutQuotas(t *testing.T) {
	folder := disktest.Mount(t, disktest.Kind{Name: "ext4", Make: []string{"mkfs.ext4", "-q"}, Options: "defaults"}, 32<<20)
	if host().Enforces(folder) {
		t.Error("quotas are said to be enforced")
	}
	if project, err := host().ProjectOf(folder); err != nil || project != 0 {
		t.Errorf("project %d, %v", project, err)
	}
	if host().Enforces(filepath.Join(folder, "none")) {
		t.Error("a folder that does not exist enforces quotas")
	}
}

// asGuest runs a command as root of a user namespace.
func asGuest(t *testing.T, folder string, argv ...string) (output string, err error) {
	t.Helper()
	var said bytes.Buffer
	err = execx.New().Run(t.Context(), execx.Command{
		Name: "unshare", Args: append([]string{"--user", "--map-root-user", "--"}, argv...), Dir: folder,
		Env: append(os.Environ(), "LC_ALL=C"), Stdout: &said, Stderr: &said,
	})
	return said.String(), err
}

// TestProjects writes beyond the limit as root of a user namespace would, which
// is what a guest's root is: the host's root is not bounded on ext4.
func TestProjects(t *testing.T) {
	for _, kind := range []disktest.Kind{disktest.Ext4, disktest.XFS} {
		t.Run(kind.Name, func(t *testing.T) {
			folder := disktest.Mount(t, kind, 320<<20)
			if !host().Enforces(folder) {
				t.Fatal("quotas are not enforced")
			}
			root := filepath.Join(folder, "root")
			names := makeTree(t, root)
			project, err := host().NewProject(folder, 7)
			must(t, err)
			if !disk.IsProject(project) {
				t.Errorf("project %d is not one of ours", project)
			}
			must(t, host().SetLimit(folder, project, 8<<20), host().Assign(root, project))
			for _, name := range names {
				if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.IsDir() {
					if found, err := host().ProjectOf(filepath.Join(root, name)); err != nil || found != project {
						t.Errorf("%q is of project %d, %v", name, found, err)
					}
				}
			}
			if other, err := host().NewProject(folder, 7); err != nil || other == project {
				t.Errorf("the next project is %d, %v", other, err)
			}
			write := func(megabytes string) (string, error) {
				return asGuest(t, root, "dd", "if=/dev/zero", "of=new", "bs=1M", "count="+megabytes)
			}
			if output, err := write("6"); err != nil {
				t.Errorf("below the limit: %v\n%s", err, output)
			}
			output, err := write("20")
			if err == nil || (!strings.Contains(output, "quota exceeded") && !strings.Contains(output, "No space left")) {
				t.Errorf("beyond the limit: %v\n%s", err, output)
			}
			usage, err := host().Usage(folder, project)
			if err != nil || usage.Limit != 8<<20 || usage.Bytes < 4<<20 || usage.Bytes > 8<<20 {
				t.Errorf("usage %+v, %v", usage, err)
			}
			must(t, os.Remove(filepath.Join(root, "new")))
			// A guest cannot leave its project.
			for _, args := range [][]string{{"-p", "0", "etc"}, {"-P", "etc"}, {"-p", "0", "."}, {"-P", "."}} {
				if output, err := asGuest(t, root, append([]string{"chattr"}, args...)...); err == nil {
					t.Errorf("chattr %q: %s", args, output)
				}
				must(t, os.MkdirAll(filepath.Join(root, "etc/later"), 0o755))
				for _, name := range []string{"", "etc", "etc/later"} {
					if found, err := host().ProjectOf(filepath.Join(root, name)); err != nil || found != project {
						t.Errorf("after chattr %q, %q is of project %d, %v", args, name, found, err)
					}
				}
				must(t, os.Remove(filepath.Join(root, "etc/later")))
			}
			// The host has its room, and the limit can be changed and taken away.
			must(t, os.WriteFile(filepath.Join(folder, "host"), make([]byte, 30<<20), 0o600), host().SetLimit(folder, project, 64<<20))
			if output, err := write("20"); err != nil {
				t.Errorf("with a higher limit: %v\n%s", err, output)
			}
			must(t, host().SetLimit(folder, project, 0))
			if output, err := write("80"); err != nil {
				t.Errorf("without a limit: %v\n%s", err, output)
			}
			must(t, os.RemoveAll(root))
			// Xfs frees removed files after a while.
			deadline := time.Now().Add(time.Minute)
			for {
				free, err := host().NewProject(folder, 7)
				must(t, err)
				if free == project {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("a minute after the removal, the next project is %d and not %d", free, project)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}
