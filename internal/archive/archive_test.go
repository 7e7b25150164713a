package archive

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

var unix2020 = time.Unix(1577880000, 123456789)

// filled is a folder with all kinds of files that a guest can make.
func filled(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(folder, name) }
	must(os.WriteFile(at("file"), []byte("content"), 0o640))
	must(os.Chtimes(at("file"), unix2020, unix2020))
	must(os.Link(at("file"), at("hard link")))
	must(os.Symlink("/etc/passwd", at("link")))
	must(os.Mkdir(at("folder"), 0o750))
	must(os.WriteFile(at("folder/new\nline"), nil, 0o600))
	must(syscall.Mkfifo(at("fifo"), 0o600))
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", at("socket"))
	must(err)
	t.Cleanup(func() { _ = socket.Close() })
	sparse, err := os.Create(at("sparse"))
	must(err)
	must(sparse.Truncate(64 << 20))
	_, err = sparse.WriteAt([]byte("end"), 63<<20)
	must(err)
	must(sparse.Close())
	if os.Geteuid() == 0 {
		must(os.Chown(at("file"), 1001, 4_000_001))
		must(os.WriteFile(at("setuid"), nil, 0o700))
		must(os.Chmod(at("setuid"), 0o755|os.ModeSetuid))
	}
	if err := unix.Setxattr(at("file"), "user.devhost", []byte("attribute"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	must(os.WriteFile(at("left-out"), nil, 0o600))
	return folder
}

func TestPackAndUnpack(t *testing.T) {
	tar := Tar{Runner: execx.New()}
	folder, path, out := filled(t), filepath.Join(t.TempDir(), "archive"), t.TempDir()
	packed, err := tar.Pack(t.Context(), folder, path, "left-out")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != packed.Bytes || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v (%v), Pack says %+v", info, err, packed)
	}
	if err := tar.Unpack(t.Context(), path, packed.SHA256, out, "folder"); err != nil {
		t.Fatal(err)
	}
	for _, missing := range []string{"left-out", "folder", "socket"} {
		if _, err := os.Lstat(filepath.Join(out, missing)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", missing, err)
		}
	}
	for _, name := range []string{"file", "hard link", "link", "fifo", "sparse", "setuid"} {
		var before, after unix.Stat_t
		if err := unix.Lstat(filepath.Join(folder, name), &before); errors.Is(err, unix.ENOENT) {
			continue
		}
		if err := unix.Lstat(filepath.Join(out, name), &after); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if before.Mode != after.Mode || before.Uid != after.Uid || before.Gid != after.Gid || before.Size != after.Size || before.Nlink != after.Nlink {
			t.Errorf("%s was\n%+v and is\n%+v", name, before, after)
		}
		if name == "file" && before.Mtim != after.Mtim {
			t.Errorf("the time was %v and is %v", before.Mtim, after.Mtim)
		}
		if name == "sparse" && after.Blocks > before.Blocks+16 {
			t.Errorf("the holes are filled: %d blocks were %d", after.Blocks, before.Blocks)
		}
	}
	value := make([]byte, 100)
	if n, err := unix.Getxattr(filepath.Join(folder, "file"), "user.devhost", value); err == nil {
		if m, err := unix.Getxattr(filepath.Join(out, "file"), "user.devhost", value); err != nil || m != n {
			t.Errorf("the attribute: %q, %v", value[:max(m, 0)], err)
		}
	}
}

// TestDamaged: what is not wholly as it was written is not taken for whole.
func TestDamaged(t *testing.T) {
	tar := Tar{Runner: execx.New()}
	path := filepath.Join(t.TempDir(), "archive")
	packed, err := tar.Pack(t.Context(), filled(t), path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, whole...)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string][]byte{
		"whole": whole, "cut": whole[:len(whole)/2], "without its end": whole[:len(whole)-1], "empty": nil,
		"another bit": flipped, "longer": append(append([]byte{}, whole...), 0),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			var damaged *Damaged
			err := tar.Verify(t.Context(), path, packed.SHA256)
			if name == "whole" && err != nil || name != "whole" && !errors.As(err, &damaged) {
				t.Errorf("Verify = %v", err)
			}
			if err := tar.Unpack(t.Context(), path, packed.SHA256, t.TempDir()); (err == nil) != (name == "whole") {
				t.Errorf("Unpack = %v", err)
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var damaged *Damaged
	if err := tar.Verify(t.Context(), path, packed.SHA256); !errors.As(err, &damaged) {
		t.Errorf("without the file: %v", err)
	}
}

// TestPackFails: an archive that could not be written is not there.
func TestPackFails(t *testing.T) {
	for _, test := range []struct {
		name, want string
		prepare    func(t *testing.T) (context.Context, string)
	}{
		{"no tar", "install GNU tar", func(t *testing.T) (context.Context, string) {
			t.Setenv("PATH", t.TempDir())
			return t.Context(), filled(t)
		}},
		{"tar fails", "exit code 2", func(t *testing.T) (context.Context, string) {
			return t.Context(), filepath.Join(t.TempDir(), "missing")
		}},
		{"interrupted", "context canceled", func(t *testing.T) (context.Context, string) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, filled(t)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "archive")
			ctx, folder := test.prepare(t)
			_, err := Tar{Runner: execx.New()}.Pack(ctx, folder, path)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Pack = %v, which does not say %q", err, test.want)
			}
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is there: %v", err)
			}
		})
	}
}

// TestPackOnFullDisk writes to a device that is always full.
func TestPackOnFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full")
	}
	defer full.Close()
	_, err = Tar{Runner: execx.New()}.pack(t.Context(), filled(t), full, nil)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("pack = %v", err)
	}
}

func TestSize(t *testing.T) {
	folder := t.TempDir()
	empty := Size(folder)
	if err := os.WriteFile(filepath.Join(folder, "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	one := Size(folder)
	if one < empty+1<<20 {
		t.Errorf("a megabyte more is %d after %d", one, empty)
	}
	if err := os.Link(filepath.Join(folder, "file"), filepath.Join(folder, "other")); err != nil {
		t.Fatal(err)
	}
	if two := Size(folder); two != one {
		t.Errorf("a hard link takes %d bytes", two-one)
	}
}
