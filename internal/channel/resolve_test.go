package channel

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/nix"
	"devhost/internal/nix/nixtest"
	"devhost/internal/person"
	"devhost/internal/registry"
)

func parsed(t *testing.T, text string) Reference {
	t.Helper()
	reference, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return reference
}

func TestShapeOf(t *testing.T) {
	for name, test := range map[string]struct {
		files []string
		want  Shape
		found []string
	}{
		"nixpkgs":          {[]string{"nixos/default.nix"}, ShapeNixpkgs, nil},
		"flying circus":    {[]string{"nixpkgs/nixos/default.nix", "fc/default.nix"}, ShapeFlyingCircus, nil},
		"both":             {[]string{"nixos/default.nix", "nixpkgs/nixos/default.nix", "fc/x"}, ShapeFlyingCircus, nil},
		"no fc":            {[]string{"nixpkgs/nixos/default.nix"}, "", []string{"nixpkgs"}},
		"fc without nixos": {[]string{"fc/default.nix", "README"}, "", []string{"README", "fc"}},
		"a folder":         {[]string{"nixos/default.nix/x"}, "", []string{"nixos"}},
		"two at the top":   {[]string{"a/nixos/default.nix", "b/x"}, "", []string{"a", "b"}},
		"many":             {[]string{"1", "2", "3", "4", "5", "6", "7", "8", "9"}, "", []string{"1", "2", "3", "4", "5", "6", "7", "8", "..."}},
		"nothing":          {nil, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for _, file := range test.files {
				nixtest.Write(t, filepath.Join(folder, file), "{ }")
			}
			got, err := ShapeOf(folder)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if test.want != "" {
				return
			}
			var failure *NotAChannel
			if !errors.As(err, &failure) {
				t.Fatalf("got %T: %v", err, err)
			}
			if diff := cmp.Diff(test.found, failure.Found); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "x")
		nixtest.Write(t, file, "x")
		if _, err := ShapeOf(file); err == nil || !strings.Contains(err.Error(), "found: a single file") {
			t.Errorf("got %v", err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	folder := t.TempDir()
	write := func(name, content string) { nixtest.Write(t, filepath.Join(folder, name), content) }
	write("a/file", "1")
	write("b/file", "1")
	write(".git/index", "1")
	if err := os.Symlink("a", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	current := func() string {
		t.Helper()
		fingerprint, err := Fingerprint(folder)
		if err != nil {
			t.Fatal(err)
		}
		return fingerprint
	}
	last := current()
	same := func(what string) {
		t.Helper()
		if now := current(); now != last {
			t.Errorf("%s changed the fingerprint", what)
		}
	}
	differs := func(what string) {
		t.Helper()
		now := current()
		if now == last {
			t.Errorf("%s did not change the fingerprint", what)
		}
		last = now
	}
	same("nothing")
	write(".git/index", "longer")
	same("git")
	write("a/file", "22")
	differs("another size")
	if err := os.Chtimes(filepath.Join(folder, "a/file"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	differs("another mtime")
	if err := os.Chmod(filepath.Join(folder, "a/file"), 0o755); err != nil {
		t.Fatal(err)
	}
	differs("another mode")
	write("b/new", "")
	differs("a new file")
	if err := os.Rename(filepath.Join(folder, "b/new"), filepath.Join(folder, "a/new")); err != nil {
		t.Fatal(err)
	}
	differs("a file moved")
	if err := os.Mkdir(filepath.Join(folder, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	differs("an empty folder")
	// Same size, time and name, other inode: as tar or rsync may leave it.
	target := filepath.Join(folder, "b/file")
	info, err := os.Stat(target)
	if err != nil {
		t.Fatal(err)
	}
	write("b/file.new", "2")
	if err := os.Chtimes(target+".new", time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(target+".new", target); err != nil {
		t.Fatal(err)
	}
	differs("another inode")
	if err := syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	differs("a pipe")
	t.Run("missing", func(t *testing.T) {
		if _, err := Fingerprint(filepath.Join(folder, "none")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		if _, err := Fingerprint(filepath.Join(folder, "a/file")); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("got %v", err)
		}
	})
}

// A folder is looked at with the rights of the person who names it, and no
// longer than they wait.
func TestFingerprintFor(t *testing.T) {
	folder := nixtest.PublicDir(t)
	nixtest.Write(t, folder+"/open/file", "x")
	nixtest.Write(t, folder+"/closed/folder/file", "x")
	if err := os.Chmod(folder+"/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	self := person.Person{UID: uint32(os.Geteuid())}
	ctx := t.Context()
	want, err := Fingerprint(folder + "/open")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("as another person", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("taking another user's rights needs root")
		}
		if got, err := FingerprintFor(ctx, nixtest.Nobody(), folder+"/open"); err != nil || got != want {
			t.Errorf("of an open folder: %q, %v", got, err)
		}
		for _, name := range []string{"closed", "closed/folder", "closed/none"} {
			if _, err := FingerprintFor(ctx, nixtest.Nobody(), filepath.Join(folder, name)); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("of %s: %v", name, err)
			}
		}
		// The control: root itself can.
		if _, err := FingerprintFor(ctx, self, folder+"/closed/folder"); err != nil {
			t.Errorf("of root's folder by root: %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := FingerprintFor(ended, self, folder+"/open"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if _, err := fingerprint(ended, folder+"/open"); !errors.Is(err, context.Canceled) {
			t.Errorf("the walk itself goes on: %v", err)
		}
	})
	t.Run("depth", func(t *testing.T) {
		deepest := folder + "/deep" + strings.Repeat("/d", mostDepth)
		if err := os.MkdirAll(deepest, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := FingerprintFor(ctx, self, folder+"/deep"); err != nil {
			t.Errorf("at the limit: %v", err)
		}
		if err := os.Mkdir(deepest+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
		var tooDeep *TooDeep
		if _, err := FingerprintFor(ctx, self, folder+"/deep"); !errors.As(err, &tooDeep) {
			t.Errorf("beyond the limit: %v", err)
		}
	})
}

func TestResolveFolderErrors(t *testing.T) {
	folder := t.TempDir()
	nixtest.Write(t, filepath.Join(folder, "nixexprs.tar.xz"), "x")
	nixtest.Write(t, filepath.Join(folder, "file"), "x")
	resolver := Resolver{Nix: nix.New(execxtest.New(t), nil)}
	for name, want := range map[string][2]string{
		"none":            {"there is no such folder", "check the path"},
		"file":            {"it is a file, not a folder", "nixos/default.nix"},
		"nixexprs.tar.xz": {"it is a file, not a folder", "file://" + folder + "/nixexprs.tar.xz"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := resolver.Resolve(context.Background(), parsed(t, filepath.Join(folder, name)), ResolveOptions{Caller: person.Person{UID: uint32(os.Geteuid())}, GCRoot: filepath.Join(t.TempDir(), "root")})
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("got %T: %v", err, err)
			}
			if failure.Reason != want[0] || !strings.Contains(failure.Next, want[1]) {
				t.Errorf("got %q, %q", failure.Reason, failure.Next)
			}
		})
	}
}

// An unchanged folder keeps its pin, and no process is started.
func TestResolveUnchangedFolder(t *testing.T) {
	folder := t.TempDir()
	nixtest.Write(t, filepath.Join(folder, "nixos/default.nix"), "{ }")
	fingerprint, err := Fingerprint(folder)
	if err != nil {
		t.Fatal(err)
	}
	// Any path that is there will do for the store's.
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(folder, root); err != nil {
		t.Fatal(err)
	}
	old := registry.Pin{Reference: folder, Kind: "folder", StorePath: folder, Fingerprint: fingerprint, Time: time.Unix(1, 0).UTC()}
	resolver := Resolver{Nix: nix.New(execxtest.New(t), nil)}
	got, err := resolver.Resolve(context.Background(), parsed(t, folder), ResolveOptions{Old: &old, GCRoot: root})
	if diff := cmp.Diff(old, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, change := range map[string]func(*registry.Pin, *string){
		"the folder changed":  func(pin *registry.Pin, _ *string) { pin.Fingerprint = "other" },
		"it was another one":  func(pin *registry.Pin, _ *string) { pin.Reference = "/other" },
		"it was no folder":    func(pin *registry.Pin, _ *string) { pin.Kind = "flake" },
		"it was collected":    func(pin *registry.Pin, _ *string) { pin.StorePath = "/nix/store/none" },
		"the root is another": func(_ *registry.Pin, root *string) { *root = filepath.Join(t.TempDir(), "root") },
	} {
		t.Run(name, func(t *testing.T) {
			pin, root := old, root
			change(&pin, &root)
			fake := execxtest.New(t)
			fake.Expect(`^git .* rev-parse --verify HEAD$`, "", &execx.Error{ExitCode: 128})
			fake.Expect(`nix-instantiate --eval .* --argstr path `+folder, "", &execx.Error{Argv: []string{"nix-instantiate"}, ExitCode: 1})
			resolver := Resolver{Nix: nix.New(fake, nil)}
			if _, err := resolver.Resolve(context.Background(), parsed(t, folder), ResolveOptions{Old: &pin, GCRoot: root}); err == nil {
				t.Error("it was not copied anew")
			}
		})
	}
}

func TestGitRevision(t *testing.T) {
	const head = "8eeec934ae0dbeca3d7868c059568a65c08b2fc3"
	for name, test := range map[string]struct {
		head    string
		headErr error
		status  string
		want    string
	}{
		"clean":    {head + "\n", nil, "", head},
		"dirty":    {head + "\n", nil, " M x\n", head + "-dirty"},
		"no git":   {"", &execx.Error{ExitCode: 128}, "-", ""},
		"nonsense": {"HEAD\n", nil, "-", ""},
	} {
		t.Run(name, func(t *testing.T) {
			fake := execxtest.New(t)
			fake.Expect(`^git -C /srv/x -c core.fsmonitor=false -c core.hooksPath=/dev/null rev-parse --verify HEAD$`, test.head, test.headErr)
			if test.status != "-" {
				fake.Expect(`^git -C /srv/x .* status --porcelain -- \.$`, test.status, nil)
			}
			resolver := Resolver{Nix: nix.New(fake, nil)}
			if got := resolver.gitRevision(context.Background(), person.Person{UID: uint32(os.Geteuid()) + 1, Home: "/h"}, "/srv/x"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			for _, call := range fake.Calls() {
				if call.SysProcAttr == nil || call.SysProcAttr.Credential == nil {
					t.Error("git runs with our own rights")
				}
			}
		})
	}
}

func TestAmbiguousName(t *testing.T) {
	t.Chdir(t.TempDir())
	nixtest.Write(t, "channels/offline/nixos/default.nix", "{ }")
	resolver := Resolver{Nix: nix.New(execxtest.New(t), nil)}
	_, err := resolver.Resolve(context.Background(), parsed(t, "channels/offline"), ResolveOptions{})
	if err == nil || !strings.Contains(err.Error(), "write ./channels/offline for the folder, or flake:channels/offline for the registry's") {
		t.Errorf("got %v", err)
	}
}

// What root sees is not for the caller to know.
func TestAmbiguousNameOfTheCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("taking another user's rights needs root")
	}
	folder := nixtest.PublicDir(t)
	nixtest.Write(t, folder+"/channels/offline/nixos/default.nix", "{ }")
	t.Chdir(folder)
	reference := parsed(t, "channels/offline")
	if err := ambiguous(t.Context(), nixtest.Nobody(), reference); err == nil {
		t.Error("a folder that the caller sees is not noticed")
	}
	if err := os.Chmod(folder+"/channels", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := ambiguous(t.Context(), nixtest.Nobody(), reference); err != nil {
		t.Errorf("the caller hears of a folder that they may not see: %v", err)
	}
	// The control: root itself can.
	if err := ambiguous(t.Context(), person.Person{}, reference); err == nil {
		t.Error("root does not see the folder")
	}
}

func TestFinalURL(t *testing.T) {
	mux := http.NewServeMux()
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	mux.HandleFunc("/channels/x/nixexprs.tar.xz", redirect("/middle/nixexprs.tar.xz"))
	mux.HandleFunc("/middle/nixexprs.tar.xz", redirect("/releases/1/nixexprs.tar.xz"))
	mux.HandleFunc("/releases/1/nixexprs.tar.xz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/get/x.tar.xz", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	mux.HandleFunc("/gone/x.tar.xz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	mux.HandleFunc("/down/x.tar.xz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("/loop/x.tar.xz", redirect("/loop/x.tar.xz"))
	mux.HandleFunc("/file/x.tar.xz", redirect("file:///etc/passwd"))
	server := httptest.NewServer(mux)
	defer server.Close()
	resolver := Resolver{}
	for path, want := range map[string]string{
		"/channels/x/nixexprs.tar.xz": "/releases/1/nixexprs.tar.xz",
		"/releases/1/nixexprs.tar.xz": "/releases/1/nixexprs.tar.xz",
		"/get/x.tar.xz":               "/get/x.tar.xz",
	} {
		t.Run(path, func(t *testing.T) {
			got, err := resolver.finalURL(context.Background(), parsed(t, server.URL+path))
			if err != nil || got != server.URL+want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for path, want := range map[string]string{
		"/none/x.tar.xz": "there is nothing at this address (HTTP 404",
		"/gone/x.tar.xz": "there is nothing at this address (HTTP 410",
		"/down/x.tar.xz": "the server answers HTTP 502",
		"/loop/x.tar.xz": "stopped after 10 redirects",
		"/file/x.tar.xz": "cannot be reached: unsupported protocol scheme",
	} {
		t.Run(path, func(t *testing.T) {
			_, err := resolver.finalURL(context.Background(), parsed(t, server.URL+path))
			var failure *Error
			if !errors.As(err, &failure) || !strings.Contains(err.Error(), want) || failure.Next == "" {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no server", func(t *testing.T) {
		server.Close()
		_, err := resolver.finalURL(context.Background(), parsed(t, server.URL+"/x.tar.xz"))
		if err == nil || !strings.Contains(err.Error(), "a container that exists keeps its pin") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := resolver.finalURL(ctx, parsed(t, server.URL+"/x.tar.xz")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// The root is made after the fetch. What is collected in between is fetched
// once more.
func TestFetchAgainAfterCollection(t *testing.T) {
	const path = "/nix/store/00000000000000000000000000000000-source"
	fake := execxtest.New(t)
	fake.Expect(`nix-store .* --realise `+path, "", &execx.Error{Argv: []string{"nix-store"}, ExitCode: 1})
	fake.Expect(`nix-store .* --realise `+path, "", nil)
	resolver := Resolver{Nix: nix.New(fake, nil)}
	fetched := 0
	tree, err := resolver.fetchAndKeep(context.Background(), filepath.Join(t.TempDir(), "root"), func(context.Context) (nix.Tree, error) {
		fetched++
		return nix.Tree{StorePath: path}, nil
	})
	if err != nil || tree.StorePath != path || fetched != 2 {
		t.Errorf("got %v, %v after %d fetches", tree, err, fetched)
	}
}

func TestFetchError(t *testing.T) {
	for message, want := range map[string][2]string{
		"unable to download 'https://x': HTTP error 404":                       {"HTTP 404", "spelling"},
		"unable to download 'https://x': HTTP error 403":                       {"403", "access-tokens"},
		"failed to open archive: Lzma library error:  No progress is possible": {"truncated or broken", "tar -tf"},
		"failed to extract archive (truncated gzip input)":                     {"truncated or broken", "tar -tf"},
		"unable to download 'file:///x': Couldn't read a file:// file (37)":    {"no such file, or you may not read it", "check the path"},
		"opening file '/srv/x/secret': Permission denied":                      {"Permission denied", "your own rights"},
		"cannot find flake 'flake:x' in the flake registries":                  {"cannot find flake", "nix registry list"},
		"unable to download 'https://x': Couldn't resolve host name (6)":       {"resolve host", "keeps its pin"},
		"something that nobody has thought of":                                 {"something that nobody has thought of", "check the reference"},
	} {
		t.Run(message, func(t *testing.T) {
			err := fetchError(Reference{Text: "x"}, &nix.FetchError{Message: message})
			var failure *Error
			if !errors.As(err, &failure) || !strings.Contains(failure.Reason, want[0]) || !strings.Contains(failure.Next, want[1]) {
				t.Errorf("got %v", err)
			}
		})
	}
	folder := Reference{Text: "/srv/x", Kind: Folder, Folder: "/srv/x"}
	for message, want := range map[string][2]string{
		"getting status of '/srv/x': No such file or directory":                                      {"there is no such folder", "check the path"},
		"opening directory '/srv/x': Not a directory":                                                {"it is a file", "nixos/default.nix"},
		"opening file '/srv/x/gone': No such file or directory":                                      {"'/srv/x/gone': No such file", "try again"},
		"cannot connect to socket at '/nix/var/nix/daemon-socket/socket': No such file or directory": {"cannot connect to socket", "try again"},
	} {
		t.Run(message, func(t *testing.T) {
			err := fetchError(folder, &nix.FetchError{Message: message})
			var failure *Error
			if !errors.As(err, &failure) || !strings.Contains(failure.Reason, want[0]) || !strings.Contains(failure.Next, want[1]) {
				t.Errorf("got %v", err)
			}
		})
	}
	gone := folderError(folder, &os.PathError{Op: "stat", Path: "/srv/x/gone", Err: os.ErrNotExist})
	if !strings.Contains(gone.Error(), "it changes while it is read (stat /srv/x/gone: ") {
		t.Errorf("a file that goes away: %v", gone)
	}
	if err := fetchError(Reference{}, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("other errors: %v", err)
	}
}
