package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var (
	demo = HostEntry{Name: "demo", IPv4: netip.MustParseAddr("10.231.0.2"), IPv6: netip.MustParseAddr("fd00::2")}
	web  = HostEntry{Name: "web", IPv4: netip.MustParseAddr("10.231.0.3")}
)

const demoBlock = `# devhost 1a2b3c4d begin
10.231.0.2 demo # devhost 1a2b3c4d
fd00::2 demo # devhost 1a2b3c4d
# devhost 1a2b3c4d end
`

func TestWithBlock(t *testing.T) {
	const (
		instance = "1a2b3c4d"
		system   = "127.0.0.1\tlocalhost\n"
		other    = "# devhost ffff0000 begin\n10.1.1.1 demo # devhost ffff0000\n# devhost ffff0000 end\n"
	)
	cases := []struct {
		name    string
		content string
		entries []HostEntry
		want    string
	}{
		{"an empty file", "", []HostEntry{demo}, demoBlock},
		{"a new block is last", system, []HostEntry{demo}, system + demoBlock},
		{"no entries, no block", system + demoBlock, nil, system},
		{"nothing to remove", system, nil, system},
		{"unchanged", system + demoBlock, []HostEntry{demo}, system + demoBlock},
		{"changed in its place", "a\n" + demoBlock + "b\n", []HostEntry{web}, "a\n# devhost 1a2b3c4d begin\n10.231.0.3 web # devhost 1a2b3c4d\n# devhost 1a2b3c4d end\nb\n"},
		{"sorted by name", "", []HostEntry{web, demo}, "# devhost 1a2b3c4d begin\n10.231.0.2 demo # devhost 1a2b3c4d\nfd00::2 demo # devhost 1a2b3c4d\n10.231.0.3 web # devhost 1a2b3c4d\n# devhost 1a2b3c4d end\n"},
		{"another instance's block stays", other + demoBlock + system, []HostEntry{web}, other + "# devhost 1a2b3c4d begin\n10.231.0.3 web # devhost 1a2b3c4d\n# devhost 1a2b3c4d end\n" + system},
		{"another instance's block stays when ours goes", other + demoBlock + system, nil, other + system},
		{"no newline at the end", "127.0.0.1 localhost", []HostEntry{demo}, demoBlock + "127.0.0.1 localhost"},
		{"no newline at the end, removal", demoBlock + "127.0.0.1 localhost", nil, "127.0.0.1 localhost"},
		{"our block without a newline at the end", system + strings.TrimSuffix(demoBlock, "\n"), []HostEntry{demo}, system + demoBlock},
		{"CRLF outside", "127.0.0.1 localhost\r\n", []HostEntry{demo}, "127.0.0.1 localhost\r\n" + demoBlock},
		{"CRLF inside", "a\r\n" + strings.ReplaceAll(demoBlock, "\n", "\r\n") + "b\r\n", nil, "a\r\nb\r\n"},
		{"no end", system + strings.TrimSuffix(demoBlock, "# devhost 1a2b3c4d end\n") + "10.9.9.9 mine\n", []HostEntry{demo}, system + demoBlock + "10.9.9.9 mine\n"},
		{"no begin", strings.TrimPrefix(demoBlock, "# devhost 1a2b3c4d begin\n") + system, nil, system},
		{"a foreign line inside", strings.Replace(demoBlock, "fd00::2", "10.9.9.9 mine\nfd00::2", 1), []HostEntry{demo}, demoBlock + "10.9.9.9 mine\n"},
		{"two blocks", demoBlock + "a\n" + demoBlock, []HostEntry{demo}, demoBlock + "a\n"},
		{"comments that look alike stay", "# devhost 1a2b3c4d beginning\n# devhost 1a2b3c4\n#devhost 1a2b3c4d end\n", nil, "# devhost 1a2b3c4d beginning\n# devhost 1a2b3c4\n#devhost 1a2b3c4d end\n"},
		{"bytes that are no text stay", "\xff\x00\n", []HostEntry{demo}, "\xff\x00\n" + demoBlock},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := withBlock(c.content, instance, c.entries)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if again := withBlock(got, instance, c.entries); again != got {
				t.Errorf("a second time changes it: %q, then %q", got, again)
			}
		})
	}
}

// FuzzWithBlock: a block that comes and goes leaves the file as it was.
func FuzzWithBlock(f *testing.F) {
	f.Add("127.0.0.1 localhost\n")
	f.Add("no newline")
	f.Add("\r\n\r\n")
	f.Add(demoBlock + "x")
	f.Fuzz(func(t *testing.T, content string) {
		const instance, another = "1a2b3c4d", "ffff0000"
		clean := withBlock(content, instance, nil)
		if !strings.Contains(content, "# devhost "+instance) && clean != content {
			t.Fatalf("removing nothing changes %q to %q", content, clean)
		}
		published := withBlock(clean, instance, []HostEntry{demo})
		if !strings.Contains(published, demoBlock) {
			t.Fatalf("no block in %q", published)
		}
		both := withBlock(published, another, []HostEntry{web})
		if !strings.Contains(both, demoBlock) {
			t.Fatalf("the other instance damages the block: %q", both)
		}
		if !strings.Contains(content, "# devhost "+another) {
			if back := withBlock(both, another, nil); back != published {
				t.Fatalf("%q became %q", published, back)
			}
		}
		if back := withBlock(published, instance, nil); back != clean {
			t.Fatalf("%q became %q", clean, back)
		}
	})
}

// hostsFile makes a hosts file in a folder of its own.
func hostsFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func checkContent(t *testing.T, path, want string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(content)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func checkAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
}

const hostsInstance = "1a2b3c4d"

func TestPublishHosts(t *testing.T) {
	path := hostsFile(t, "127.0.0.1 localhost\n")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	attribute := unix.Setxattr(path, "user.devhost", []byte("kept"), 0)
	// What a killed process left.
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), ".hosts.devhost"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := stat(t, path)
	if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
		t.Fatal(err)
	}
	checkContent(t, path, "127.0.0.1 localhost\n"+demoBlock)
	checkAlone(t, path)
	after := stat(t, path)
	if after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid {
		t.Errorf("mode %o, owner %d:%d became %o, %d:%d", before.Mode, before.Uid, before.Gid, after.Mode, after.Uid, after.Gid)
	}
	if after.Ino == before.Ino {
		t.Error("the file was written in place")
	}
	if attribute == nil {
		value := make([]byte, 16)
		if n, err := unix.Getxattr(path, "user.devhost", value); err != nil || string(value[:n]) != "kept" {
			t.Errorf("extended attribute %q, %v", value, err)
		}
	}

	t.Run("unchanged", func(t *testing.T) {
		if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
			t.Fatal(err)
		}
		if again := stat(t, path); again.Ino != after.Ino || again.Mtim != after.Mtim {
			t.Error("the file was written")
		}
	})
	t.Run("removed", func(t *testing.T) {
		if err := PublishHosts(t.Context(), path, hostsInstance, nil); err != nil {
			t.Fatal(err)
		}
		checkContent(t, path, "127.0.0.1 localhost\n")
	})
	for _, name := range []string{"", "a b", "a\n127.0.0.1 example.org", "a#b"} {
		t.Run("bad name "+name, func(t *testing.T) {
			if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{{Name: name, IPv4: demo.IPv4}}); err == nil {
				t.Error("accepted")
			}
			checkContent(t, path, "127.0.0.1 localhost\n")
		})
	}
	t.Run("bad instance", func(t *testing.T) {
		if err := PublishHosts(t.Context(), path, "x\ny", []HostEntry{demo}); err == nil {
			t.Error("accepted")
		}
	})
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	information, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return information.Sys().(*syscall.Stat_t)
}

func TestPublishHostsNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
		t.Fatal(err)
	}
	checkContent(t, path, demoBlock)
	if mode := stat(t, path).Mode & 0o777; mode != 0o644 {
		t.Errorf("mode %o", mode)
	}
}

func TestPublishHostsThroughLink(t *testing.T) {
	path := hostsFile(t, "")
	link := filepath.Join(t.TempDir(), "hosts")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := PublishHosts(t.Context(), link, hostsInstance, []HostEntry{demo}); err != nil {
		t.Fatal(err)
	}
	checkContent(t, path, demoBlock)
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link became %q, %v", target, err)
	}
}

// TestPublishHostsLinkToNothing: a link that leads to no file is not replaced by
// a file that holds our names alone.
func TestPublishHostsLinkToNothing(t *testing.T) {
	link := filepath.Join(t.TempDir(), "hosts")
	if err := os.Symlink(filepath.Join(t.TempDir(), "missing"), link); err != nil {
		t.Fatal(err)
	}
	var readOnly *HostsReadOnly
	if err := PublishHosts(t.Context(), link, hostsInstance, []HostEntry{demo}); !errors.As(err, &readOnly) {
		t.Errorf("got %v", err)
	}
	if !isLink(link) {
		t.Error("the link was replaced")
	}
	if err := PublishHosts(t.Context(), link, hostsInstance, nil); err != nil {
		t.Errorf("nothing to publish: %v", err)
	}
}

// privateMounts gives the rest of the test its own view of mounts.
func privateMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the mounts with it
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skipf("needs the right to make mount namespaces: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

func bind(t *testing.T, path string, readOnly bool) {
	t.Helper()
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if readOnly {
		if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPublishHostsReadOnlyEtc: as NixOS' module sets it up, names come and go
// while nobody can write /etc.
func TestPublishHostsReadOnlyEtc(t *testing.T) {
	privateMounts(t)
	etc, target := t.TempDir(), hostsFile(t, "127.0.0.1 localhost\n")
	link := filepath.Join(etc, "hosts")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	bind(t, etc, true)
	t.Cleanup(func() { _ = unix.Unmount(etc, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(etc, "control"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("control: the folder can be written: %v", err)
	}
	if err := PublishHosts(t.Context(), link, hostsInstance, []HostEntry{demo}); err != nil {
		t.Fatal(err)
	}
	checkContent(t, link, "127.0.0.1 localhost\n"+demoBlock)
	if err := PublishHosts(t.Context(), link, hostsInstance, nil); err != nil {
		t.Fatal(err)
	}
	checkContent(t, link, "127.0.0.1 localhost\n")
}

// TestPublishHostsMountPoint: in a container, /etc/hosts is often mounted from
// elsewhere, and cannot be replaced.
func TestPublishHostsMountPoint(t *testing.T) {
	path := hostsFile(t, "127.0.0.1 localhost\n"+strings.Repeat("# long\n", 100))
	t.Run("in place", func(t *testing.T) {
		privateMounts(t)
		bind(t, path, false)
		before := stat(t, path)
		if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
			t.Fatal(err)
		}
		if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{web}); err != nil {
			t.Fatal(err)
		}
		if err := PublishHosts(t.Context(), path, hostsInstance, nil); err != nil {
			t.Fatal(err)
		}
		checkContent(t, path, "127.0.0.1 localhost\n"+strings.Repeat("# long\n", 100))
		if after := stat(t, path); after.Ino != before.Ino {
			t.Error("control: the file was replaced, so this is no mount point")
		}
		checkAlone(t, path)
	})
}

func TestPublishHostsReadOnly(t *testing.T) {
	cases := []struct {
		name string
		what func(path string) string // what is read-only
	}{
		{"the folder", filepath.Dir},
		{"the file", func(path string) string { return path }},
	}
	for _, c := range cases {
		path := hostsFile(t, "127.0.0.1 localhost\n"+demoBlock)
		t.Run(c.name, func(t *testing.T) {
			privateMounts(t)
			bind(t, c.what(path), true)
			err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{web})
			var readOnly *HostsReadOnly
			if !errors.As(err, &readOnly) || readOnly.Path != path {
				t.Fatalf("error = %v, want *HostsReadOnly", err)
			}
			if !strings.Contains(err.Error(), "services.devhost") {
				t.Errorf("message %q does not say what to do", err)
			}
			checkAlone(t, path)
			if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
				t.Errorf("nothing to write: %v", err)
			}
		})
		checkContent(t, path, "127.0.0.1 localhost\n"+demoBlock)
	}
	path := hostsFile(t, "")
	t.Run("writable file in a read-only folder", func(t *testing.T) {
		privateMounts(t)
		bind(t, filepath.Dir(path), true)
		bind(t, path, false)
		if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		if err := PublishHosts(t.Context(), path, hostsInstance, []HostEntry{demo}); err != nil {
			t.Fatal(err)
		}
		checkContent(t, path, demoBlock)
	})
}

// TestPublishHostsTogether: several instances and processes at once, and
// readers that must never see half a file.
func TestPublishHostsTogether(t *testing.T) {
	path := hostsFile(t, "127.0.0.1 localhost\n")
	const instances, rounds = 4, 10
	ctx, cancel := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for ctx.Err() == nil {
			content, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(content), "127.0.0.1 localhost\n") || strings.Count(string(content), " begin\n") != strings.Count(string(content), " end\n") {
				t.Errorf("a reader sees %q, %v", content, err)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	for i := range instances {
		writers.Go(func() {
			for round := range rounds {
				entry := HostEntry{Name: fmt.Sprintf("c%d", round), IPv4: demo.IPv4}
				if err := PublishHosts(t.Context(), path, fmt.Sprintf("0000000%d", i), []HostEntry{entry}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if blocks := strings.Count(string(content), fmt.Sprintf(" c%d # devhost ", rounds-1)); blocks != instances {
		t.Errorf("%d of %d instances have their last name in:\n%s", blocks, instances, content)
	}
	checkAlone(t, path)
}

func TestPublishHostsLocked(t *testing.T) {
	path := hostsFile(t, "")
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := PublishHosts(ctx, path, hostsInstance, []HostEntry{demo}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
	if _, err := os.ReadFile(path); errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is gone")
	}
}

func TestNameInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	content := "127.0.0.1 localhost\n192.0.2.7\tDB.example.org db # the database\n\n#192.0.2.8 old\n10.0.0.2 demo # devhost 1a2b3c4d\n192.0.2.9\n"
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"db": path + " has it already, for 192.0.2.7", "localhost": path + " has it already, for 127.0.0.1",
		"vm": "this host has that name", "demo": "", "old": "", "free": "", "database": "",
	} {
		if got, err := NameInUse(path, "vm.example.org", name); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := NameInUse(path+"-none", "vm", "free"); err != nil || got != "" {
		t.Errorf("without a hosts file: %q, %v", got, err)
	}
}
