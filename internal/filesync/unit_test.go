package filesync

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/gitignore"
)

func TestMakePlan(t *testing.T) {
	// A tree is words such as "a/", a folder, "b", a file, "b!", another version
	// of it, and "c@", a link.
	parse := func(text string) *listing {
		l := newListing()
		for word := range strings.FieldsSeq(text) {
			name := strings.TrimRight(word, "/!@")
			switch strings.TrimPrefix(word, name) {
			case "/":
				l.add(name, entry{kind: dir, mode: 0o755})
			case "!":
				l.add(name, entry{kind: file, size: 1})
			case "@":
				l.add(name, entry{kind: link, target: "x"})
			default:
				l.add(name, entry{kind: file})
			}
		}
		return l
	}
	for name, test := range map[string]struct {
		here, there string
		// kept are names that are protected, anywhere.
		kept    string
		foreign []string
		want    plan
	}{
		"nothing":           {here: "a b/ b/c", there: "b/ b/c a"},
		"new":               {here: "a b/ b/c", want: plan{send: []string{"a", "b", "b/c"}}},
		"changed":           {here: "a b!", there: "a b", want: plan{send: []string{"b"}}},
		"too much":          {here: "a", there: "a b/ b/c/ b/c/d", want: plan{remove: []string{"b/c/d", "b/c", "b"}}},
		"protected":         {here: "a", there: "a b/ b/c/ b/c/k b/d", kept: "k", want: plan{remove: []string{"b/d"}}},
		"file for folder":   {here: "a", there: "a/ a/b/ a/b/c d", want: plan{clear: []string{"a/b/c", "a/b", "a"}, send: []string{"a"}, remove: []string{"d"}}},
		"folder for file":   {here: "a/ a/b", there: "a", want: plan{clear: []string{"a"}, send: []string{"a", "a/b"}}},
		"link for folder":   {here: "a@", there: "a/ a/b", want: plan{clear: []string{"a/b", "a"}, send: []string{"a"}}},
		"folder for link":   {here: "a/ a/b", there: "a@", want: plan{clear: []string{"a"}, send: []string{"a", "a/b"}}},
		"in the way":        {here: "a b", there: "a/ a/k a/x", kept: "k", want: plan{send: []string{"b"}, remove: []string{"a/x"}, blocked: []string{"a"}}},
		"all below blocked": {here: "k/ k/a/ k/a/b c", there: "k", kept: "k", want: plan{send: []string{"c"}, blocked: []string{"k"}}},
		"another's":         {here: "a v/ v/w", there: "a v/ v/x", foreign: []string{"v"}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := func(name string, _ bool) bool {
				return filepath.Base(name) == test.kept || insideAny(name, test.foreign)
			}
			got := makePlan(parse(test.here), parse(test.there), test.foreign, kept)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(plan{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSame(t *testing.T) {
	one := entry{kind: file, mode: 0o644, size: 3, changed: 1_700_000_000_123_456_789}
	for name, test := range map[string]struct {
		there entry
		want  bool
	}{
		"equal":            {one, true},
		"size":             {entry{file, 0o644, 4, one.changed, ""}, false},
		"mode":             {entry{file, 0o600, 3, one.changed, ""}, false},
		"a moment later":   {entry{file, 0o644, 3, one.changed + 1, ""}, false},
		"in whole seconds": {entry{file, 0o644, 3, 1_700_000_000_000_000_000, ""}, true},
		"another second":   {entry{file, 0o644, 3, 1_700_000_001_000_000_000, ""}, false},
		"another kind":     {entry{link, 0o644, 3, one.changed, ""}, false},
	} {
		if got := one.same(test.there); got != test.want {
			t.Errorf("%s: same = %v", name, got)
		}
	}
}

const goodListing = "/srv/app\x00f\x00644\x005\x001700000000.1234567890\x00\x00a/b c\x00l\x00777\x001\x00-1.5\x00../x\x00l\x000\x00"

func TestParseListing(t *testing.T) {
	var at string
	found := newListing()
	if err := parseListing(strings.NewReader(goodListing), &at, found); err != nil || at != "/srv/app" {
		t.Fatalf("parseListing = %q, %v", at, err)
	}
	want := map[string]entry{
		"a/b c": {kind: file, mode: 0o644, size: 5, changed: 1_700_000_000_123_456_789},
		"l":     {kind: link, mode: 0o777, size: 1, changed: -1_500_000_000, target: "../x"},
	}
	if diff := cmp.Diff(want, found.entries, cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// What a container makes up is an error, and so is what ends too early.
	for name, text := range map[string]string{
		"nothing": "", "cut": goodListing[:len(goodListing)-2], "cut in an entry": "/x\x00f\x00644\x005\x00", "no status": goodListing[:len(goodListing)-3] + "\x00", "no end": "/x\x00",
		"climbing":  "/x\x00f\x00644\x005\x001.0\x00\x00a/../../b\x000\x00",
		"absolute":  "/x\x00f\x00644\x005\x001.0\x00\x00/etc\x000\x00",
		"no number": "/x\x00f\x00rw\x005\x001.0\x00\x00a\x000\x00",
		"relative":  "x\x000\x00",
		"long":      "/x\x00f\x00644\x005\x001.0\x00\x00" + strings.Repeat("a", mostField+1) + "\x000\x00",
	} {
		t.Run(name, func(t *testing.T) {
			if err := parseListing(strings.NewReader(text), &at, newListing()); err == nil {
				t.Error("it is taken")
			}
		})
	}
}

// endless is a listing that never ends.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(data []byte) (int, error) {
	n := copy(data, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

func TestEndlessListing(t *testing.T) {
	var at string
	entry := "l\x00777\x001\x001.0\x00" + strings.Repeat("x", mostField-1) + "\x00a\x00"
	if err := parseListing(io.MultiReader(strings.NewReader("/x\x00"), &endless{text: entry}), &at, newListing()); err == nil || err.Error() != "the names in it have more than 512 MiB" {
		t.Errorf("parseListing = %v", err)
	}
}

func FuzzParseListing(f *testing.F) {
	f.Add(goodListing)
	f.Fuzz(func(t *testing.T, text string) {
		var at string
		found := newListing()
		if err := parseListing(strings.NewReader(text), &at, found); err != nil {
			return
		}
		for name := range found.entries {
			if !filepath.IsLocal(name) {
				t.Errorf("%q leads out of the folder", name)
			}
		}
	})
}

// TestQuoting: shells and rsync read back what was quoted for them.
func TestQuoting(t *testing.T) {
	words := []string{"a", "b c", "it's", `d"e`, "$x;", "-F", "é"}
	output, err := execx.New().Output(t.Context(), execx.Command{Name: "sh", Args: []string{"-c", as("", `printf '%s|' "$@"`, words...)}})
	if err != nil || string(output) != strings.Join(words, "|")+"|" {
		t.Errorf("the shell read %q, %v", output, err)
	}
	if got, want := rsyncPath("s-dev", "/srv/a b"), `sudo -n -H -u s-dev -- sh -c 'cd -- "$0" && exec rsync "$@"' '/srv/a b'`; got != want {
		t.Errorf("rsyncPath = %s, want %s", got, want)
	}
}

func TestPruned(t *testing.T) {
	f := &filter{rules: gitignore.New("x\n"), tracked: map[string]bool{}}
	f.add("", "node_modules/\n*.pyc\n/out\n")
	if diff := cmp.Diff([]string{"-name", ".git", "-o", "-name", "x", "-o", "-name", "node_modules"}, f.pruned()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f.add("deep", "!node_modules\n")
	if diff := cmp.Diff([]string{"-name", ".git"}, f.pruned()); diff != "" {
		t.Errorf("with an exception (-want +got):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	limit := readNumber("/proc/sys/fs/inotify/max_user_watches")
	if limit == "" {
		t.Skip("there is no inotify")
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&WatchLimit{"/x", syscall.ENOSPC}, "cannot watch /x: no space left on device; the limit is " + limit + " folders of all your programs together; raise it: sudo sysctl fs.inotify.max_user_watches=1048576\nOr exclude folders that need no sync, by .gitignore or --exclude"},
		{&WatchLimit{"/x", syscall.EMFILE}, "cannot watch /x: too many open files; the limit is " + readNumber("/proc/sys/fs/inotify/max_user_instances") + " programs that watch; raise it: sudo sysctl fs.inotify.max_user_instances=1024\nOr exclude folders that need no sync, by .gitignore or --exclude"},
		{rsyncError(&execx.Error{Argv: []string{"rsync"}, NotFound: true}), "there is no rsync on this machine; install it (apt install rsync, brew install rsync, nix profile install nixpkgs#rsync)"},
		{rsyncError(&execx.Error{Argv: []string{"rsync", "-x"}, ExitCode: 23, Tail: []string{"rsync: \x1b[31mdenied"}}), "rsync: denied"},
		{rsyncError(&execx.Error{Argv: []string{"rsync", "-x"}, ExitCode: 23}), "rsync ended with exit code 23"},
		{&MissingSource{"/x", os.ErrPermission}, "cannot read /x: permission denied; nothing was changed in the container. What is not needed there can be left out by .gitignore or --exclude"},
	} {
		if test.err.Error() != test.want {
			t.Errorf("it says %s\nwant    %s", test.err, test.want)
		}
	}
	if err := rsyncError(&execx.Error{ExitCode: vanished}); err != nil {
		t.Errorf("files that vanished are an error: %v", err)
	}
}

// TestOverflow: when more happens than the system can tell, everything is
// compared and watched anew.
func TestOverflow(t *testing.T) {
	wake := make(chan struct{}, 1)
	c := &changes{wake: wake, paths: map[string]bool{}}
	if err := c.restart(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.watched.Errors <- fsnotify.ErrEventOverflow
	<-wake
	if _, all, anew := c.take(); !all || !anew {
		t.Errorf("all %v, anew %v", all, anew)
	}
	if _, all, anew := c.take(); all || anew {
		t.Error("it is not forgotten")
	}
}

// TestEnterLimit: a limit of the system is said as such.
func TestEnterLimit(t *testing.T) {
	c := &changes{wake: make(chan struct{}, 1), paths: map[string]bool{}}
	if err := c.restart(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.enter("gone"); err != nil {
		t.Errorf("a folder that went away is an error: %v", err)
	}
	c.root = filepath.Join(c.root, "nowhere")
	if err := c.enter(""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing source: %v", err)
	}
}
