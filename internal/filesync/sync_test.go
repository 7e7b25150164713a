package filesync_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/filesync"
	"devhost/internal/sshlink"
	"devhost/internal/sshlink/sshlinktest"
)

// bench is a source and a destination, and a server between them. The
// "container" is this machine.
type bench struct {
	*testing.T
	server *sshlinktest.Server
	source string
	// target does not exist at first.
	target  string
	pairs   []filesync.Pair
	options filesync.Options

	mutex sync.Mutex
	said  []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Skip("there is no rsync")
	}
	b := &bench{T: t, server: sshlinktest.Start(t), source: filepath.Join(t.TempDir(), "app"), target: filepath.Join(t.TempDir(), "deep", "er", "app")}
	b.mkdir(b.source)
	b.pairs = []filesync.Pair{{Source: b.source, Destination: b.target}}
	b.options.Say = func(line string) {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		b.said = append(b.said, line)
	}
	return b
}

func (b *bench) lines() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return strings.Join(b.said, "\n")
}

func (b *bench) forget() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.said = nil
}

func (b *bench) mkdir(path string) {
	b.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) write(path, text string) {
	b.Helper()
	b.mkdir(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

// files makes files below a folder.
func (b *bench) files(folder string, names ...string) {
	b.Helper()
	for _, name := range names {
		b.write(filepath.Join(folder, name), name)
	}
}

// tree is what a folder holds: the text of files, the targets of links.
func (b *bench) tree(folder string) map[string]string {
	b.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == folder {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		switch {
		case entry.IsDir():
			found[name] = "(folder)"
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		default:
			text, err := os.ReadFile(path)
			found[name] = string(text)
			return err
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Fatal(err)
	}
	return found
}

func (b *bench) sync() error {
	b.Helper()
	return filesync.Run(b.Context(), execx.New(), b.server.Host, sshlink.Options{Folder: b.TempDir()}, b.pairs, b.options)
}

func (b *bench) mustSync() {
	b.Helper()
	if err := b.sync(); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) wantTarget(want map[string]string) {
	b.Helper()
	if diff := cmp.Diff(want, b.tree(b.target)); diff != "" {
		b.Errorf("the container (-want +got):\n%s", diff)
	}
}

func (b *bench) wantSame() {
	b.Helper()
	b.wantTarget(b.tree(b.source))
}

func (b *bench) wantError(err error, texts ...string) {
	b.Helper()
	if err == nil {
		b.Fatal("it went well")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			b.Errorf("%q is not in: %v", text, err)
		}
	}
}

func TestSyncOnce(t *testing.T) {
	b := newBench(t)
	names := []string{"a", "sub/b", "-dash", "sub/ space and 'quote'", "sub/*", "line\nbreak", "ü/ö", "$HOME;x", "\xff"}
	b.files(b.source, names...)
	b.mkdir(filepath.Join(b.source, "empty"))
	if err := os.Symlink("../elsewhere", filepath.Join(b.source, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(b.source, "a"), 0o751); err != nil {
		t.Fatal(err)
	}
	b.mustSync()
	b.wantSame()
	info, err := os.Stat(filepath.Join(b.target, "a"))
	if err != nil || info.Mode().Perm() != 0o751 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := b.lines(); !regexp.MustCompile(`^app -> \S+: sent \d+ files and folders \(\d+B\) in \d\.\d\d s$`).MatchString(got) {
		t.Errorf("it said %q", got)
	}
	b.forget()
	b.mustSync()
	if got := b.lines(); !strings.Contains(got, "nothing to do for 13 files and folders") {
		t.Errorf("it said %q", got)
	}
	b.forget()

	// Something of each: new, changed, other mode, gone, other kinds.
	b.write(filepath.Join(b.source, "new"), "new")
	b.write(filepath.Join(b.source, "sub/b"), "longer than before")
	for _, gone := range []string{"ü", "link", "empty", "line\nbreak"} {
		if err := os.RemoveAll(filepath.Join(b.source, gone)); err != nil {
			t.Fatal(err)
		}
	}
	b.write(filepath.Join(b.source, "empty"), "a file now")
	b.write(filepath.Join(b.source, "link/x"), "a folder now")
	b.mustSync()
	b.wantSame()
	// What somebody changed there is made equal, too.
	b.write(filepath.Join(b.target, "sub/b"), "changed there")
	b.write(filepath.Join(b.target, "extra/x/y"), "extra")
	if err := os.Remove(filepath.Join(b.target, "new")); err != nil {
		t.Fatal(err)
	}
	b.options.DryRun = true
	b.mustSync()
	if _, err := os.Stat(filepath.Join(b.target, "extra")); err != nil {
		t.Errorf("a dry run changed something: %v", err)
	}
	if got := b.lines(); !strings.Contains(got, "would remove extra/x/y") || !strings.Contains(got, "would send new") {
		t.Errorf("it said %q", got)
	}
	b.options.DryRun = false
	b.options.KeepExtra = true
	b.mustSync()
	if _, err := os.Stat(filepath.Join(b.target, "extra/x/y")); err != nil {
		t.Errorf("it was removed: %v", err)
	}
	b.options.KeepExtra = false
	b.mustSync()
	b.wantSame()
}

func TestExcludes(t *testing.T) {
	b := newBench(t)
	b.write(filepath.Join(b.source, ".gitignore"), "*.pyc\nnode_modules/\n/dist\n!keep.pyc\n")
	b.write(filepath.Join(b.source, "lib/.gitignore"), "/local\n")
	b.files(b.source, "a.py", "a.pyc", "keep.pyc", "node_modules/x/y", "dist/z", "sub/dist", "lib/local", "lib/sub/local", ".git/config", "my.cfg", "sub/my.cfg")
	b.options.Exclude = []string{"/my.cfg"}
	// What an exclude protects is in the container only.
	b.files(b.target, "b.pyc", "node_modules/there/only", "sub/node_modules/x", "dist/built", "lib/local", "extra", "gone/x", "half/x", "half/y.pyc", "my.cfg", ".git/HEAD")
	b.mustSync()
	b.wantTarget(map[string]string{
		".gitignore": "*.pyc\nnode_modules/\n/dist\n!keep.pyc\n", "lib": "(folder)", "lib/.gitignore": "/local\n", "a.py": "a.py", "keep.pyc": "keep.pyc",
		"sub": "(folder)", "sub/dist": "sub/dist", "lib/sub": "(folder)", "lib/sub/local": "lib/sub/local", "sub/my.cfg": "sub/my.cfg",
		// protected
		"b.pyc": "b.pyc", "node_modules": "(folder)", "node_modules/there": "(folder)", "node_modules/there/only": "node_modules/there/only",
		"sub/node_modules": "(folder)", "sub/node_modules/x": "sub/node_modules/x", "dist": "(folder)", "dist/built": "dist/built", "lib/local": "lib/local",
		"half": "(folder)", "half/y.pyc": "half/y.pyc", "my.cfg": "my.cfg", ".git": "(folder)", ".git/HEAD": ".git/HEAD",
	})

	t.Run("in the way", func(t *testing.T) {
		b.write(filepath.Join(b.source, "half"), "a file")
		b.wantError(b.sync(), "cannot send half: in the container there is a folder or file of another kind that holds what an exclude protects")
		if text, err := os.ReadFile(filepath.Join(b.target, "half/y.pyc")); err != nil || string(text) != "half/y.pyc" {
			t.Errorf("what is protected is %q, %v", text, err)
		}
	})
}

// TestCheckout syncs a folder of a checkout: what holds is what git says.
func TestCheckout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git")
	}
	b := newBench(t)
	top := filepath.Dir(b.source)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	git := func(args ...string) {
		t.Helper()
		if err := execx.New().Run(t.Context(), execx.Command{Name: "git", Args: args, Dir: top}); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "-q", ".")
	b.write(filepath.Join(home, ".config/git/ignore"), "*.swp\n")
	b.write(filepath.Join(top, ".git/info/exclude"), "private\n")
	b.write(filepath.Join(top, ".gitignore"), "/app/out/\n/top\n*.log\n")
	b.files(b.source, "x", "x.swp", "private", "out/forced/f", "out/other", "out/forced/g", "top", "e.log", "t.log")
	git("add", "-f", "app/out/forced/f", "app/t.log")
	b.options.Exclude = []string{"/e*", "!e2"}
	b.files(b.source, "e1", "e2", "sub/e1")
	b.mustSync()
	b.wantTarget(map[string]string{"x": "x", "out": "(folder)", "out/forced": "(folder)", "out/forced/f": "out/forced/f", "top": "top", "t.log": "t.log",
		"e2": "e2", "sub": "(folder)", "sub/e1": "sub/e1"})
}

func TestMistakes(t *testing.T) {
	b := newBench(t)
	b.files(b.target, "precious")
	untouched := map[string]string{"precious": "precious"}

	t.Run("empty source", func(t *testing.T) {
		b.wantError(b.sync(), b.source+" has no files, and "+b.target+" in the container has 1 file or folder", "nothing was removed")
		b.wantTarget(untouched)
	})
	t.Run("missing source", func(t *testing.T) {
		b.pairs[0].Source = filepath.Join(b.source, "nope")
		b.wantError(b.sync(), "there is no "+b.source+"/nope; nothing was changed in the container")
		b.wantTarget(untouched)
		b.pairs[0].Source = b.source
	})
	b.files(b.source, "x")
	t.Run("one of two is missing", func(t *testing.T) {
		b.pairs = append(b.pairs, filesync.Pair{Source: filepath.Join(b.source, "nope"), Destination: "/nope"})
		b.wantError(b.sync(), "there is no "+b.source+"/nope")
		b.wantTarget(untouched)
		b.pairs = b.pairs[:1]
	})
	t.Run("home", func(t *testing.T) {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		for _, destination := range []string{home, home + "/../" + filepath.Base(home)} {
			b.pairs[0].Destination = destination
			b.wantError(b.sync(), "it is the user's home")
		}
		for _, destination := range []string{"/", "//", "/tmp/.."} {
			b.pairs[0].Destination = destination
			b.wantError(b.sync(), "the root folder of a container is not synced to")
		}
		b.pairs[0].Destination = "app"
		b.wantError(b.sync(), "it is no absolute path")
		b.pairs[0].Destination = b.target
	})
	t.Run("not a folder there", func(t *testing.T) {
		b.pairs[0].Destination = filepath.Join(b.target, "precious")
		b.wantError(b.sync(), "app -> "+b.target+"/precious: mkdir: ")
		b.pairs[0].Destination = b.target
	})
	t.Run("the same destination", func(t *testing.T) {
		b.pairs = append(b.pairs, filesync.Pair{Source: b.source, Destination: b.target + "/../" + filepath.Base(b.target)})
		b.wantError(b.sync(), "it is the destination of "+b.source+", too")
		b.pairs = b.pairs[:1]
	})
	t.Run("no host", func(t *testing.T) {
		b.server.Stop()
		b.wantError(b.sync(), "cannot connect to guest: ", "Connection refused")
		b.server.Go()
	})
	t.Run("unknown user", func(t *testing.T) {
		if _, err := exec.LookPath("sudo"); err != nil {
			t.Skip("there is no sudo")
		}
		b.options.User = "nobody-of-that-name"
		b.wantError(b.sync(), "sudo: ", "nobody-of-that-name")
		b.options.User = ""
	})
	b.wantTarget(untouched)
	b.mustSync()
	b.wantSame()
}

// TestNested: a destination inside of another one is nobody else's.
func TestNested(t *testing.T) {
	b := newBench(t)
	second := filepath.Join(t.TempDir(), "second")
	b.files(b.source, "a", "vendor/old", "lib/deep/x")
	b.files(second, "v")
	b.pairs = append(b.pairs, filesync.Pair{Source: second, Destination: b.target + "/vendor"}, filesync.Pair{Source: second, Destination: b.target + "/new/deep"},
		filesync.Pair{Source: filepath.Join(second, "v"), Destination: b.target + "/single"})
	for range 2 {
		b.mustSync()
		b.wantTarget(map[string]string{"a": "a", "vendor": "(folder)", "vendor/v": "v", "lib": "(folder)", "lib/deep": "(folder)", "lib/deep/x": "lib/deep/x",
			"new": "(folder)", "new/deep": "(folder)", "new/deep/v": "v", "single": "v"})
	}
}

func TestSingleFile(t *testing.T) {
	long(t)
	b := newBench(t)
	file := filepath.Join(b.source, "settings one.py")
	b.write(file, "1")
	for destination, want := range map[string]string{"/": "settings one.py", "/settings one.py": "settings one.py", "/local.py": "local.py"} {
		b.files(b.target, "other")
		b.pairs = []filesync.Pair{{Source: file, Destination: b.target + destination}}
		b.mustSync()
		b.wantTarget(map[string]string{want: "1", "other": "other"})
		b.forget()
		b.mustSync()
		if got := b.lines(); !strings.Contains(got, "nothing to do") {
			t.Errorf("it said %q", got)
		}
		if err := os.RemoveAll(b.target); err != nil {
			t.Fatal(err)
		}
	}
	b.mkdir(b.target + "/folder")
	b.pairs = []filesync.Pair{{Source: file, Destination: b.target + "/folder"}}
	b.wantError(b.sync(), "it is a folder; with a slash at its end, the file goes into it")
	b.pairs = []filesync.Pair{{Source: file, Destination: b.target + "/a b"}}
	b.wantError(b.sync(), "a file that gets another name can have letters")
}

// TestServiceUser: files become those of the service user.
func TestServiceUser(t *testing.T) {
	if _, err := exec.LookPath("sudo"); err != nil || os.Geteuid() != 0 {
		t.Skip("it needs sudo and root")
	}
	b := newBench(t)
	b.files(b.source, "a", "sub/b")
	b.options.User = "nobody"
	folder, err := os.MkdirTemp("", "filesync-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	b.target = filepath.Join(folder, "app")
	b.pairs[0].Destination = b.target
	b.mustSync()
	b.wantSame()
	output, err := execx.New().Output(t.Context(), execx.Command{Name: "stat", Args: []string{"-c", "%U", filepath.Join(b.target, "sub/b")}})
	if err != nil || strings.TrimSpace(string(output)) != "nobody" {
		t.Errorf("the owner is %s, %v", output, err)
	}
}

// session is a watch that runs.
type session struct {
	*bench
	cancel context.CancelFunc
	ended  chan error
}

func (b *bench) watch() *session {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	s := &session{bench: b, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		s.ended <- filesync.Watch(ctx, execx.New(), b.server.Host, sshlink.Options{Folder: b.TempDir()}, b.pairs, b.options)
	}()
	b.Cleanup(func() { s.stop() })
	s.eventually("it watches", func() bool { return strings.Contains(b.lines(), "watching; Ctrl-C ends it") })
	return s
}

// stop ends the watch and checks how it ended.
func (s *session) stop() {
	s.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		s.Errorf("Watch = %v", err)
	}
}

func (s *session) eventually(what string, is func() bool) {
	s.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		select {
		case err := <-s.ended:
			s.cancel = nil
			s.Fatalf("the watch ended: %v\n%s", err, s.lines())
		default:
		}
		if time.Now().After(deadline) {
			s.Fatalf("never: %s\nit said:\n%s\nthe container (-here +there):\n%s", what, s.lines(), cmp.Diff(s.tree(s.source), s.tree(s.target)))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *session) eventuallySame(what string) {
	s.Helper()
	s.eventually(what, func() bool { return cmp.Equal(s.tree(s.source), s.tree(s.target)) })
}

func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("in the long set: make e2e")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	b := newBench(t)
	b.files(b.source, "a", "sub/b", "sub/deep/c")
	s := b.watch()
	s.eventuallySame("the first sync")
	at := func(name string) string { return filepath.Join(b.source, name) }

	b.write(at("a"), "saved")
	s.eventuallySame("a saved file")
	line := regexp.MustCompile(`(?m)^app -> \S+: sent a \(5B\) in \d\.\d\d s$`)
	s.eventually("it says what it sent", func() bool { return line.MatchString(b.lines()) })
	for i := range 3 {
		// As editors do: a new file takes the name, the old one gets another and goes.
		b.write(at("a.tmp"), fmt.Sprint("rename-saved ", i))
		must(t, os.Rename(at("a"), at("a~")))
		must(t, os.Rename(at("a.tmp"), at("a")))
		must(t, os.Remove(at("a~")))
		s.eventuallySame("a rename-save")
	}
	must(t, os.Chmod(at("a"), 0o700))
	s.eventually("a mode", func() bool {
		info, err := os.Stat(filepath.Join(b.target, "a"))
		return err == nil && info.Mode().Perm() == 0o700
	})
	b.files(b.source, "new/1/2/3/x", "new/1/y")
	s.eventuallySame("new folders")
	b.files(b.source, "new/1/2/3/later")
	s.eventuallySame("a file in a new folder")
	must(t, os.Rename(at("new"), at("moved")))
	s.eventuallySame("a moved folder")
	b.files(b.source, "moved/1/2/3/even later")
	s.eventuallySame("a file in a moved folder")
	must(t, os.Rename(at("moved/1"), at("sub/1")))
	b.files(b.source, "sub/1/2/3/after that", "sub/deep/d")
	s.eventuallySame("a folder moved into another")
	must(t, os.RemoveAll(at("sub/1")))
	s.eventuallySame("a removed folder")
	must(t, os.RemoveAll(at("sub/deep")))
	b.files(b.source, "sub/deep/again")
	s.eventuallySame("a folder that was made again")
	b.files(b.source, "sub/deep/once more")
	s.eventuallySame("a file in that")
	must(t, os.RemoveAll(at("sub/deep")))
	b.write(at("sub/deep"), "a file")
	s.eventuallySame("a folder that became a file")
	must(t, os.Symlink("a", at("link")))
	s.eventuallySame("a link")
	outside := filepath.Join(t.TempDir(), "outside")
	b.files(outside, "in/1", "in/2/3")
	must(t, os.Rename(outside, at("inside")))
	s.eventuallySame("a folder that came from elsewhere")
	must(t, os.Rename(at("inside"), outside))
	s.eventuallySame("a folder that went elsewhere")
	b.write(outside+"/in/1", "not ours")
	b.write(at(".gitignore"), "ignored/\n")
	b.files(b.source, "ignored/x")
	b.files(b.target, "ignored/there")
	b.files(b.source, "z")
	s.eventually("an ignored folder", func() bool {
		_, err := os.Stat(filepath.Join(b.target, "z"))
		return err == nil
	})
	if _, err := os.Stat(filepath.Join(b.target, "ignored/x")); err == nil {
		t.Error("an ignored file was sent")
	}
	must(t, os.Remove(at(".gitignore")))
	s.eventuallySame("a folder that is no longer ignored")
	b.files(b.source, "ignored/y")
	s.eventuallySame("a file in it")
	for i := range 300 {
		b.files(b.source, fmt.Sprintf("many/%d/%d", i%7, i))
	}
	s.eventuallySame("many files")
	s.stop()
	if got := b.lines(); strings.Contains(got, "tried again") {
		t.Errorf("it said %s", got)
	}
}

// TestWatchOutage: what happened while there was no connection comes over when
// it is back.
func TestWatchOutage(t *testing.T) {
	long(t)
	b := newBench(t)
	b.files(b.source, "a", "gone/x")
	s := b.watch()
	s.eventuallySame("the first sync")
	b.server.Cut()
	b.write(filepath.Join(b.source, "a"), "during")
	s.eventuallySame("after a lost connection")
	b.forget()
	b.server.Stop()
	s.eventually("it says that the connection is lost", func() bool { return strings.Contains(b.lines(), "the connection to guest is lost (") })
	must(t, os.RemoveAll(filepath.Join(b.source, "gone")))
	b.files(b.source, "new/y")
	b.files(b.target, "appeared there")
	s.eventually("it tries again", func() bool { return strings.Contains(b.lines(), "cannot be reached yet") })
	b.server.Go()
	s.eventuallySame("after a stopped container")
	s.eventually("it says so", func() bool { return strings.Contains(b.lines(), "the connection to guest is back after ") })
	if got := strings.Count(b.lines(), "is lost"); got != 1 {
		t.Errorf("it said %d times that the connection is lost:\n%s", got, b.lines())
	}
	b.files(b.source, "new/z")
	s.eventuallySame("a file after that")
}

// TestWatchKeeps: with KeepExtra nothing is removed, and what comes back is sent.
func TestWatchKeeps(t *testing.T) {
	b := newBench(t)
	b.files(b.source, "a", "b", "c/d")
	b.options.KeepExtra = true
	s := b.watch()
	at := func(name string) string { return filepath.Join(b.source, name) }
	must(t, os.Remove(at("a")))
	must(t, os.RemoveAll(at("c")))
	b.write(at("b"), "changed")
	want := map[string]string{"a": "a", "b": "changed", "c": "(folder)", "c/d": "c/d"}
	s.eventually("the change", func() bool { return cmp.Equal(want, b.tree(b.target)) })
	b.write(at("a"), "again")
	want["a"] = "again"
	s.eventually("a file that comes back", func() bool { return cmp.Equal(want, b.tree(b.target)) })
}

// TestWatchGone: a source that is away for a while removes nothing.
func TestWatchGone(t *testing.T) {
	long(t)
	b := newBench(t)
	b.files(b.source, "a", "b/c")
	s := b.watch()
	s.eventuallySame("the first sync")
	want := b.tree(b.source)
	must(t, os.Rename(b.source, b.source+".away"))
	s.eventually("it says so", func() bool { return strings.Contains(b.lines(), "there is no "+b.source) })
	b.wantTarget(want)
	must(t, os.Rename(b.source+".away", b.source))
	b.files(b.source, "b/new")
	s.eventuallySame("the source is back")
	s.eventually("it says so", func() bool { return strings.Contains(b.lines(), "that is over: all is synced again") })
	b.files(b.source, "b/newer")
	s.eventuallySame("it is watched again")
	must(t, os.RemoveAll(filepath.Join(b.source, "a")))
	must(t, os.RemoveAll(filepath.Join(b.source, "b")))
	s.eventually("it says that it is empty", func() bool { return strings.Contains(b.lines(), b.source+" has no files") })
	if len(b.tree(b.target)) == 0 {
		t.Error("an empty source has emptied the container")
	}
	b.files(b.source, "only")
	s.eventuallySame("it has files again")
}

// TestWatchFailsAtFirst: what is wrong from the beginning is an error.
func TestWatchFailsAtFirst(t *testing.T) {
	b := newBench(t)
	b.files(b.source, "a")
	watch := func() error {
		return filesync.Watch(b.Context(), execx.New(), b.server.Host, sshlink.Options{Folder: b.TempDir()}, b.pairs, b.options)
	}
	b.write(filepath.Join(filepath.Dir(b.source), "file"), "")
	b.pairs[0].Destination = filepath.Join(filepath.Dir(b.source), "file")
	b.wantError(watch(), "mkdir: ")
	b.server.Stop()
	b.wantError(watch(), "cannot connect to guest")
}
