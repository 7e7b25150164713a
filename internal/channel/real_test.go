package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/nix/nixtest"
	"devhost/internal/person"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// systemExpression is a channel in miniature: its system's init is the text of
// the option "text", which modules set.
const systemExpression = `{ configuration }:
let
  modules = map (m: if builtins.isAttrs m then m else import m { }) ((configuration { lib = { }; }).imports);
  text = builtins.concatStringsSep " " (map (m: m.text or "") modules);
in {
  system = derivation {
    name = "system"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/usr/bin"; inherit text;
    args = [ "-c" ''mkdir $out; echo "$text" > $out/NAME'' ];
  };
}
`

func miniature(t *testing.T, folder, initName string) {
	t.Helper()
	nixtest.Write(t, folder+"/nixos/default.nix", strings.Replace(systemExpression, "NAME", initName, 1))
	nixtest.Write(t, folder+"/host-usr", "builders use the host's /usr\n")
}

func pack(t *testing.T, folder, archive string) {
	t.Helper()
	err := execx.New().Run(context.Background(), execx.Command{Name: "tar", Args: []string{"--auto-compress", "-C", folder, "-cf", archive, "."}})
	if err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	folder := nixtest.PublicDir(t)
	miniature(t, folder+"/work/channel", "init")
	extensions := []string{"xz", "gz"}
	for extension, program := range map[string]string{"bz2": "bzip2", "zst": "zstd"} {
		if _, err := exec.LookPath(program); err == nil {
			extensions = append(extensions, extension)
		}
	}
	for _, extension := range extensions {
		pack(t, folder+"/work", folder+"/nixexprs.tar."+extension)
	}
	nixtest.Write(t, folder+"/two/a/nixos/default.nix", "x")
	nixtest.Write(t, folder+"/two/b/file", "x")
	pack(t, folder+"/two", folder+"/two.tar.xz")
	whole, err := os.ReadFile(folder + "/nixexprs.tar.xz")
	if err != nil {
		t.Fatal(err)
	}
	nixtest.Write(t, folder+"/short.tar.xz", string(whole[:len(whole)/2]))
	nixtest.Write(t, folder+"/broken.tar.xz", strings.Repeat("no archive", 100))
	nixtest.Write(t, folder+"/notachannel/README", "x")
	nixtest.Write(t, folder+"/private/nixos/default.nix", "x")
	if err := os.Chmod(folder+"/private/nixos/default.nix", 0o600); err != nil {
		t.Fatal(err)
	}
	nixtest.Write(t, folder+"/closed/x/nixos/default.nix", "x")
	if err := os.Chmod(folder+"/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	resolver := Resolver{Nix: client, Now: func() time.Time { return now }}
	root := filepath.Join(folder, "roots", "channel")
	resolve := func(text string) (registry.Pin, error) {
		return resolver.Resolve(ctx, parsed(t, text), ResolveOptions{Caller: nixtest.Nobody(), GCRoot: root})
	}
	want, err := resolve(folder + "/work/channel")
	if err != nil {
		t.Fatal(err)
	}
	if want.Kind != "folder" || want.Fingerprint == "" || !strings.HasPrefix(want.NarHash, "sha256-") || !want.Time.Equal(now) {
		t.Errorf("pin: %+v", want)
	}
	if target, err := os.Readlink(root); err != nil || target != want.StorePath {
		t.Errorf("the root points to %s, %v", target, err)
	}
	var roots []byte
	// Nix fails while some process of this machine is in a folder whose path is
	// longer than 4 KiB, as a test of another package is for a moment.
	for range 300 {
		roots, err = client.Runner.Output(ctx, execx.Command{Name: "nix-store", Args: []string{"--query", "--roots", want.StorePath}, Env: []string{"PATH=" + os.Getenv("PATH"), "NIX_REMOTE=" + client.Remote()}})
		if err == nil || !strings.Contains(err.Error(), "File name too long") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil || !strings.Contains(string(roots), root) {
		t.Errorf("the collector knows the roots %s, %v", roots, err)
	}
	t.Run("unchanged", func(t *testing.T) {
		quiet := Resolver{Nix: nix.New(nil, nil)}
		got, err := quiet.Resolve(ctx, parsed(t, folder+"/work/channel"), ResolveOptions{Caller: nixtest.Nobody(), Old: &want, GCRoot: root})
		if err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	for _, extension := range extensions {
		t.Run(extension, func(t *testing.T) {
			pin, err := resolve("file://" + folder + "/nixexprs.tar." + extension)
			if err != nil {
				t.Fatal(err)
			}
			if pin.StorePath != want.StorePath || pin.NarHash != want.NarHash || pin.Kind != "tarball" {
				t.Errorf("pin: %+v", pin)
			}
		})
	}
	t.Run("git", func(t *testing.T) {
		if err := os.Chown(folder+"/work/channel", 65534, 65534); err != nil {
			t.Fatal(err)
		}
		git := func(arguments ...string) string {
			command := execx.Command{
				Name: "git", Dir: folder + "/work/channel", Args: append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"}, arguments...),
				Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1"},
			}
			caller := nixtest.Nobody()
			caller.Apply(&command)
			output, err := execx.New().Output(ctx, command)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimSpace(string(output))
		}
		git("init", "--quiet")
		git("add", ".")
		git("commit", "--quiet", "--message", "first")
		head := git("rev-parse", "HEAD")
		pin, err := resolve(folder + "/work/channel")
		if err != nil || pin.Revision != head || pin.StorePath != want.StorePath {
			t.Errorf("as its owner: %+v, %v; want revision %s", pin, err, head)
		}
		// Root does not run what somebody else's repository asks for.
		marker := folder + "/marker"
		git("config", "filter.evil.clean", "id -u > "+marker+"; cat")
		nixtest.Write(t, folder+"/work/channel/.git/info/attributes", "* filter=evil\n")
		// Of the same size, so that git has to look into the file.
		changed := strings.Replace(systemExpression, "NAME", "tini", 1)
		nixtest.Write(t, folder+"/work/channel/nixos/default.nix", changed)
		nixtest.Write(t, marker, "")
		if err := os.Chmod(marker, 0o666); err != nil {
			t.Fatal(err)
		}
		pin, err = resolver.Resolve(ctx, parsed(t, folder+"/work/channel"), ResolveOptions{Caller: person.Person{Home: "/root"}, GCRoot: root})
		if err != nil || pin.Revision != head+"-dirty" {
			t.Errorf("as root: %+v, %v; want revision %s-dirty", pin, err, head)
		}
		ran, err := os.ReadFile(marker)
		if err != nil || strings.TrimSpace(string(ran)) == "0" {
			t.Errorf("root ran the repository's filter: %q, %v", ran, err)
		}
		if strings.TrimSpace(string(ran)) != "65534" {
			t.Errorf("control: the filter did not run at all: %q", ran)
		}
		flake, err := resolve("git+file://" + folder + "/work/channel?rev=" + head)
		if err != nil || flake.Revision != head || flake.StorePath != want.StorePath || flake.Kind != "flake" || flake.URL != "git+file://"+folder+"/work/channel?rev="+head {
			t.Errorf("flake: %+v, %v", flake, err)
		}
	})
	for name, test := range map[string]struct{ reference, message string }{
		"truncated":      {"file://" + folder + "/short.tar.xz", "the archive is truncated or broken"},
		"broken":         {"file://" + folder + "/broken.tar.xz", "the archive is truncated or broken"},
		"no file":        {"file://" + folder + "/none.tar.xz", "there is no such file, or you may not read it"},
		"two at the top": {"file://" + folder + "/two.tar.xz", "it is not a channel: expected nixos/default.nix, or nixpkgs/nixos/default.nix beside fc/, at its top; found: a, b"},
		"not a channel":  {folder + "/notachannel", "it is not a channel: expected nixos/default.nix, or nixpkgs/nixos/default.nix beside fc/, at its top; found: README"},
		"private":        {folder + "/private", "it is read with your own rights, not with root's"},
		"no folder":      {folder + "/none", "there is no such folder"},
		"a file":         {folder + "/short.tar.xz", "it is a file, not a folder; name an archive by its URL: file://" + folder + "/short.tar.xz"},
		"in private":     {folder + "/closed/x", "it is read with your own rights"},
		"private, none":  {folder + "/closed/none", "it is read with your own rights"},
		"no repository":  {"git+file://" + folder + "/two", "channel git+file://" + folder + "/two"},
	} {
		t.Run(name, func(t *testing.T) {
			pin, err := resolve(test.reference)
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("got %T: %v (%+v)", err, err, pin)
			}
			if !strings.Contains(err.Error(), test.message) {
				t.Errorf("got: %v\nwant: %s", err, test.message)
			}
			if failure.Next == "" {
				t.Error("it does not say what to do")
			}
		})
	}
}

func TestResolveOverHTTP(t *testing.T) {
	client := nixtest.Client(t)
	folder := nixtest.PublicDir(t)
	miniature(t, folder+"/work/channel", "init")
	pack(t, folder+"/work", folder+"/nixexprs.tar.xz")
	data, err := os.ReadFile(folder + "/nixexprs.tar.xz")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/channel/nixexprs.tar.xz", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/release/nixexprs.tar.xz", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/release/nixexprs.tar.xz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	server := httptest.NewServer(mux)
	defer server.Close()
	resolver := Resolver{Nix: client}
	var last nix.Event
	pin, err := resolver.Resolve(context.Background(), parsed(t, server.URL+"/channel/nixexprs.tar.xz"), ResolveOptions{
		Caller: nixtest.Nobody(), GCRoot: folder + "/root", Progress: func(event nix.Event) { last = event },
	})
	if err != nil {
		t.Fatal(err)
	}
	if pin.URL != server.URL+"/release/nixexprs.tar.xz" || pin.Reference != server.URL+"/channel/nixexprs.tar.xz" {
		t.Errorf("pin: %+v", pin)
	}
	version, err := client.Version(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// Newer ones (2.34 is known) report no progress of nix-prefetch-url.
	if last.Fetched != int64(len(data)) && !version.AtLeast(2, 27) {
		t.Errorf("the progress ended with %d of %d bytes", last.Fetched, len(data))
	}
}

func TestBuildSystem(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	folder := nixtest.PublicDir(t)
	unique := fmt.Sprint(time.Now().UnixNano())
	store := func(name string, files map[string]string) string {
		t.Helper()
		for file, content := range files {
			nixtest.Write(t, filepath.Join(folder, name, file), content)
		}
		path, err := client.AddPath(ctx, filepath.Join(folder, name), name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	guest := store("container-guest", map[string]string{"default.nix": `{ ... }: { text = "guest"; }`})
	miniature(t, folder+"/source", "init")
	source := store("source", nil)
	request := func(source, provision string) SystemRequest {
		return SystemRequest{
			Pin: registry.Pin{Reference: "test", StorePath: source}, GuestPath: guest, ProvisionPath: provision, ProvisionModule: "provision.nix",
			ProvisionName: "./env", GCRoot: filepath.Join(folder, "root"), Reporter: progress.Quiet(io.Discard),
		}
	}
	t.Run("works", func(t *testing.T) {
		provision := store("good", map[string]string{"provision.nix": `{ ... }: { text = "provision ` + unique + `"; }`})
		system, err := BuildSystem(ctx, client, request(source, provision))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(system.Path + "/init")
		if err != nil || string(text) != "guest provision "+unique+"\n" || !system.HostUsr {
			t.Errorf("init: %q, %v, host's /usr %v", text, err, system.HostUsr)
		}
		cache := SystemCache{Dir: folder + "/systems"}
		if _, ok := cache.Lookup("inputs"); ok {
			t.Error("the empty cache has it")
		}
		if err := cache.Store("gone", System{Path: "/nix/store/00000000000000000000000000000000-gone"}); err != nil {
			t.Fatal(err)
		}
		if err := cache.Store("inputs", system); err != nil {
			t.Fatal(err)
		}
		if found, ok := cache.Lookup("inputs"); !ok || found != system {
			t.Errorf("found %+v, %v", found, ok)
		}
		if files, err := os.ReadDir(cache.Dir); err != nil || len(files) != 1 {
			t.Errorf("the cache keeps what is gone: %v, %v", files, err)
		}
	})
	t.Run("without a provision", func(t *testing.T) {
		none := request(source, "")
		none.ProvisionModule = ""
		system, err := BuildSystem(ctx, client, none)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(system.Path + "/init"); err != nil || string(text) != "guest\n" {
			t.Errorf("init: %q, %v", text, err)
		}
	})
	t.Run("no init", func(t *testing.T) {
		miniature(t, folder+"/noinit", "other")
		none := request(store("noinit", nil), "")
		none.ProvisionModule = ""
		_, err := BuildSystem(ctx, client, none)
		var failure *NoInit
		if !errors.As(err, &failure) {
			t.Errorf("got %T: %v", err, err)
		}
	})
	t.Run("syntax error", func(t *testing.T) {
		provision := store("syntax", map[string]string{"provision.nix": "{ ... }:\n{\n  text = 1\n}\n"})
		_, err := BuildSystem(ctx, client, request(source, provision))
		if err == nil || !strings.Contains(err.Error(), "error: syntax error, unexpected '}', expecting ';'") || !strings.Contains(err.Error(), "at ./env/provision.nix:4:1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("fails to build", func(t *testing.T) {
		provision := store("fails", map[string]string{"provision.nix": `{ ... }: { text = derivation { name = "of-the-provision"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ` + unique + `; exit 9" ]; }; }`})
		_, err := BuildSystem(ctx, client, request(source, provision))
		var failure *nix.BuildError
		if !errors.As(err, &failure) || !strings.Contains(err.Error(), "the build of of-the-provision failed with exit code 9; its last lines:\n  > "+unique) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not a channel", func(t *testing.T) {
		_, err := BuildSystem(ctx, client, request(guest, ""))
		var failure *Error
		if !errors.As(err, &failure) {
			t.Errorf("got %T: %v", err, err)
		}
	})
}

// The fixture of the Flying Circus shape, with the real guest module.
func TestBuildFlyingCircus(t *testing.T) {
	client := nixtest.Client(t)
	ctx := context.Background()
	folder := nixtest.PublicDir(t)
	err := client.Runner.Run(ctx, execx.Command{Name: "testdata/fc-channel/assemble", Args: []string{"../../channels/offline", folder + "/channel"}})
	if err != nil {
		t.Fatal(err)
	}
	resolver := Resolver{Nix: client}
	pin, err := resolver.Resolve(ctx, parsed(t, folder+"/channel"), ResolveOptions{Caller: person.Person{Home: "/root"}, GCRoot: folder + "/channel-root"})
	if err != nil {
		t.Fatal(err)
	}
	guest, err := client.AddPath(ctx, "../../modules/container-guest", "container-guest")
	if err != nil {
		t.Fatal(err)
	}
	system, err := BuildSystem(ctx, client, SystemRequest{Pin: pin, GuestPath: guest, GCRoot: folder + "/root", Reporter: progress.Quiet(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(system.Path + "/etc/local/platform"); err != nil || string(text) != "fixture container\n" {
		t.Errorf("the platform says %q, %v", text, err)
	}
	if !system.HostUsr {
		t.Error("the marker in nixpkgs/ was not seen")
	}
}

func TestBuildInputsHash(t *testing.T) {
	pin := registry.Pin{StorePath: "/nix/store/00000000000000000000000000000000-source", Time: time.Unix(1, 0), Reference: "a"}
	base := BuildInputsHash(pin, "sha256-p", "sha256-g")
	same := pin
	same.Time, same.Reference, same.Kind = time.Unix(2, 0), "b", "flake"
	if BuildInputsHash(same, "sha256-p", "sha256-g") != base {
		t.Error("equal sources, however named, give other hashes")
	}
	other := pin
	other.StorePath = "/nix/store/11111111111111111111111111111111-source"
	for name, hash := range map[string]string{
		"channel": BuildInputsHash(other, "sha256-p", "sha256-g"), "provision": BuildInputsHash(pin, "", "sha256-g"),
		"guest": BuildInputsHash(pin, "sha256-p", ""), "exchanged": BuildInputsHash(pin, "sha256-g", "sha256-p"),
	} {
		if hash == base {
			t.Errorf("another %s gives the same hash", name)
		}
	}
}
