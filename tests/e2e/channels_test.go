package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/registry"
)

// record reads a container's state file.
func (h *host) record(name string) *registry.Container {
	h.t.Helper()
	record, err := registry.New(h.layout).Load(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return record
}

// tool runs a program of the host and expects success.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, output)
	}
	return string(output)
}

// writeFile writes a file and the folders above it.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ownChannel is a copy of channels/offline that a test can change. Its marker
// shows in the systems that are built from it.
func ownChannel(t testing.TB, folder, marker string) {
	t.Helper()
	tool(t, "cp", "-R", offline(t), folder)
	mark(t, folder, marker)
}

// mark changes a channel such that its systems differ.
func mark(t testing.TB, folder, marker string) {
	t.Helper()
	path := filepath.Join(folder, "nixos/default.nix")
	const original = "default.unmarked.nix"
	if _, err := os.Stat(filepath.Join(folder, "nixos", original)); err != nil {
		if err := os.Rename(path, filepath.Join(folder, "nixos", original)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path, `{ configuration, ... }@arguments: import ./`+original+` (arguments // {
  configuration = { imports = [ configuration { environment.etc."channel-marker".text = "`+marker+`"; } ]; };
})
`)
}

// pack makes a nixexprs.tar.xz, with a folder at its top as releases have it.
func pack(t testing.TB, folder, archive string) {
	t.Helper()
	tool(t, "tar", "-C", filepath.Dir(folder), "-cJf", archive, filepath.Base(folder))
}

func (h *host) wantMarker(name, marker string) {
	h.t.Helper()
	if got := h.must("exec", name, "--", "cat", "/etc/channel-marker"); got != marker {
		h.t.Errorf("the system of %s comes from a channel with marker %q, not %q", name, got, marker)
	}
}

func TestChannelIsAnArchive(t *testing.T) {
	h := newHost(t)
	folder := filepath.Join(t.TempDir(), "nixos-26.05.1")
	ownChannel(t, folder, "one")
	archive := filepath.Join(t.TempDir(), "nixexprs.tar.xz")
	pack(t, folder, archive)
	url := "file://" + archive

	h.must("ensure", "box", "--channel", url)
	h.wantMarker("box", "one")
	pin := h.record("box").Pin
	if pin.Kind != "tarball" || pin.Reference != url || pin.URL != url || !strings.HasPrefix(pin.NarHash, "sha256-") || pin.Time.IsZero() {
		t.Errorf("the pin is %+v", pin)
	}
	if _, err := os.Stat(filepath.Join(pin.StorePath, "nixos/default.nix")); err != nil {
		t.Errorf("the pinned source is not what is in the archive's top folder: %v", err)
	}

	// What is pinned stays, whatever becomes of the archive.
	mark(t, folder, "two")
	pack(t, folder, archive)
	if got := h.must("ensure", "box", "--channel", url); !strings.Contains(got, "unchanged") {
		t.Errorf("ensure with the same channel says %q", got)
	}
	if err := os.Rename(archive, archive+".away"); err != nil {
		t.Fatal(err)
	}
	if got := h.must("ensure", "box", "--channel", url); !strings.Contains(got, "unchanged") {
		t.Errorf("ensure without its archive says %q", got)
	}
	h.fails(1, []string{"channel " + url + ": there is no such file", "container box is as it was (running)"}, "ensure", "box", "--update-channel")
	if diff := cmp.Diff(pin, h.record("box").Pin); diff != "" {
		t.Errorf("the pin changed (-before +after):\n%s", diff)
	}
	if err := os.Rename(archive+".away", archive); err != nil {
		t.Fatal(err)
	}
	if got := h.must("ensure", "box", "--update-channel"); !strings.Contains(got, "switched") {
		t.Errorf("--update-channel says %q", got)
	}
	h.wantMarker("box", "two")
}

func TestChannelIsAFolder(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := filepath.Join(t.TempDir(), "channel")
	ownChannel(t, folder, "one")
	h.must("ensure", "box", "--channel", folder)
	pin := h.record("box").Pin
	if pin.Kind != "folder" || pin.Reference != folder || pin.Revision != "" {
		t.Errorf("the pin is %+v", pin)
	}

	mark(t, folder, "two")
	if got := h.must("ensure", "box", "--channel", folder); !strings.Contains(got, "unchanged") {
		t.Errorf("ensure with a changed folder says %q", got)
	}
	h.wantMarker("box", "one")
	if got := h.must("ensure", "box", "--update-channel"); !strings.Contains(got, "switched") {
		t.Errorf("--update-channel says %q", got)
	}
	h.wantMarker("box", "two")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if got := h.must("ensure", "box", "--channel", folder); !strings.Contains(got, "unchanged") {
		t.Errorf("ensure without the folder says %q", got)
	}
	// The system of a pin can be built although the folder is gone.
	h.must("ensure", "box", "--provision", provision(t, `{ environment.etc.new.text = "new"; }`))
	h.wantMarker("box", "two")

	other := filepath.Join(t.TempDir(), "other")
	ownChannel(t, other, "three")
	if got := h.must("ensure", "box", "--channel", other); !strings.Contains(got, "switched") {
		t.Errorf("another channel says %q", got)
	}
	h.wantMarker("box", "three")
	if got := h.must("exec", "box", "--", "cat", "/etc/new"); got != "new" {
		t.Errorf("with another channel the provision is lost: %q", got)
	}
}

func TestChannelIsAGitRepository(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := filepath.Join(t.TempDir(), "channel")
	ownChannel(t, folder, "one")
	git := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(tool(t, "git", append([]string{"-C", folder, "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "-c", "init.defaultBranch=main"}, args...)...))
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "one")
	first := git("rev-parse", "HEAD")

	t.Run("work tree", func(t *testing.T) {
		h := h.with(t)
		h.must("ensure", "tree", "--channel", folder)
		if pin := h.record("tree").Pin; pin.Kind != "folder" || pin.Revision != first {
			t.Errorf("the pin of a clean work tree is %+v, the revision %s", pin, first)
		}
		mark(t, folder, "dirty")
		h.must("ensure", "tree", "--update-channel")
		if pin := h.record("tree").Pin; pin.Revision != first+"-dirty" {
			t.Errorf("the pin of a changed work tree is %+v", pin)
		}
		h.wantMarker("tree", "dirty")
	})
	t.Run("flake references", func(t *testing.T) {
		h := h.with(t)
		reference := "git+file://" + folder + "?rev=" + first
		h.must("ensure", "flake", "--channel", reference)
		if pin := h.record("flake").Pin; pin.Kind != "flake" || pin.Reference != reference || pin.Revision != first || !strings.Contains(pin.URL, first) {
			t.Errorf("the pin is %+v", pin)
		}
		h.wantMarker("flake", "one")
		git("commit", "--quiet", "-a", "-m", "two")
		second := git("rev-parse", "HEAD")
		branch := "git+file://" + folder + "?ref=main"
		h.must("ensure", "flake", "--channel", branch)
		if pin := h.record("flake").Pin; pin.Revision != second || !strings.Contains(pin.URL, second) {
			t.Errorf("the pin of the branch is %+v, its revision %s", pin, second)
		}
		h.wantMarker("flake", "dirty")
		// A branch is pinned until it is asked for again.
		mark(t, folder, "three")
		git("commit", "--quiet", "-a", "-m", "three")
		if got := h.must("ensure", "flake", "--channel", branch); !strings.Contains(got, "unchanged") {
			t.Errorf("ensure with a branch that went on says %q", got)
		}
		h.must("ensure", "flake", "--update-channel")
		h.wantMarker("flake", "three")
		h.must("ensure", "flake", "--channel", "path:"+folder)
		h.wantMarker("flake", "three")
	})
}

func TestChannelIsAnAddress(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := filepath.Join(t.TempDir(), "nixos-26.05.7")
	ownChannel(t, folder, "http")
	files := t.TempDir()
	pack(t, folder, filepath.Join(files, "nixexprs.tar.xz"))
	mux := http.NewServeMux()
	mux.Handle("/releases/26.05.7/", http.StripPrefix("/releases/26.05.7/", http.FileServer(http.Dir(files))))
	mux.Handle("/channels/nixos-26.05/nixexprs.tar.xz", http.RedirectHandler("/releases/26.05.7/nixexprs.tar.xz", http.StatusFound))
	server := httptest.NewServer(mux)
	defer server.Close()
	url := server.URL + "/channels/nixos-26.05/nixexprs.tar.xz"

	h.must("ensure", "box", "--channel", url)
	h.wantMarker("box", "http")
	if pin := h.record("box").Pin; pin.Kind != "tarball" || pin.Reference != url || pin.URL != server.URL+"/releases/26.05.7/nixexprs.tar.xz" {
		t.Errorf("the pin is %+v", pin)
	}
	missing := server.URL + "/channels/nixos-1.0/nixexprs.tar.xz"
	h.fails(1, []string{"channel " + missing + ": there is nothing at this address (HTTP 404 Not Found); check the spelling", "container other was not made"}, "ensure", "other", "--channel", missing)
	page := server.URL + "/channels/nixos-26.05"
	h.fails(2, []string{"did you mean " + page + "/nixexprs.tar.xz?"}, "ensure", "other", "--channel", page)
	server.Close()
	if got := h.must("ensure", "box", "--channel", url); !strings.Contains(got, "unchanged") {
		t.Errorf("ensure with the server down says %q", got)
	}
	h.fails(1, []string{"the server cannot be reached: ", "container box is as it was"}, "ensure", "box", "--update-channel")
	h.wantMarker("box", "http")
}

func TestChannelOfTheFlyingCircusShape(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := filepath.Join(t.TempDir(), "fc")
	tool(t, filepath.Join(repository(t), "internal/channel/testdata/fc-channel/assemble"), offline(t), folder)
	h.must("ensure", "fc", "--channel", folder, "--provision", provision(t, `{ flyingcircus.roles.redis.enable = true; }`))
	if got := h.must("exec", "fc", "--", "cat", "/etc/local/platform"); got != "fixture container\n" {
		t.Errorf("the platform says %q", got)
	}
	if got := h.must("exec", "fc", "--", "hostname"); got != "fc\n" {
		t.Errorf("its name inside is %q", got)
	}
	if got := h.must("exec", "fc", "--", "redis-cli", "ping"); got != "PONG\n" {
		t.Errorf("the role's redis says %q", got)
	}
	if got := h.must("ssh", "fc", "sudo", "-n", "id", "-un"); got != "root\n" {
		t.Errorf("developer's sudo says %q", got)
	}
	h.must("ensure", "fc", "--provision", provision(t, `{ environment.etc.second.text = "second"; }`))
	if got := h.must("exec", "fc", "--", "cat", "/etc/second"); got != "second" {
		t.Errorf("after the switch: %q", got)
	}
	h.must("restart", "fc")
	h.must("destroy", "fc")
}

// TestBadChannels: each is refused with the reason, and neither a new container
// nor a change of an old one comes of it.
func TestBadChannels(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	writeFile(t, path("file"), "x")
	writeFile(t, path("empty/README"), "x")
	writeFile(t, path("undefined/nixos/default.nix"), "{ configuration, ... }:\n{ system = mistake; }\n")
	writeFile(t, path("throws/nixos/default.nix"), "{ configuration, ... }:\n{\n  system = throw \"not for you\";\n}\n")
	writeFile(t, path("system-less/nixos/default.nix"), "{ configuration, ... }: { }\n")
	const fixture = `{ configuration, ... }: { system = derivation {
  name = "fixture-system"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "%s" ];
}; }`
	writeFile(t, path("does-not-build/nixos/default.nix"), strings.Replace(fixture, "%s", "echo first words; echo last words; exit 7", 1))
	writeFile(t, path("does-not-build/host-usr"), "")
	writeFile(t, path("without-init/nixos/default.nix"), strings.Replace(fixture, "%s", "/usr/bin/mkdir $out", 1))
	writeFile(t, path("without-init/host-usr"), "")
	good := path("nixos-26.05.9")
	ownChannel(t, good, "good")
	pack(t, good, path("good.tar.xz"))
	whole, err := os.ReadFile(path("good.tar.xz"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path("truncated.tar.xz"), string(whole[:len(whole)/2]))
	writeFile(t, path("text.tar.xz"), "this is no archive")

	h.must("ensure", "old", "--channel", good)
	pin := h.record("old").Pin
	for _, test := range []struct {
		name, channel string
		texts         []string
	}{
		{"missing folder", path("missing"), []string{"channel " + path("missing") + ": there is no such folder"}},
		{"file", path("file"), []string{"it is a file, not a folder"}},
		{"archive named as a folder", path("good.tar.xz"), []string{"it is a file, not a folder; name an archive by its URL: file://" + path("good.tar.xz")}},
		{"no channel", path("empty"), []string{"it is not a channel: expected nixos/default.nix", "found: README"}},
		{"missing archive", "file://" + path("missing.tar.xz"), []string{"channel file://" + path("missing.tar.xz") + ": there is no such file"}},
		{"truncated archive", "file://" + path("truncated.tar.xz"), []string{"channel file://" + path("truncated.tar.xz") + ": "}},
		{"no archive", "file://" + path("text.tar.xz"), []string{"channel file://" + path("text.tar.xz") + ": "}},
		{"undefined variable", path("undefined"), []string{"error: undefined variable 'mistake'", "nixos/default.nix:2:12"}},
		{"throws", path("throws"), []string{"error: not for you"}},
		{"no system", path("system-less"), []string{"error: attribute 'system' missing"}},
		{"does not build", path("does-not-build"), []string{"the build of fixture-system failed with exit code 7", "> first words\n  > last words", "All of its log: nix-store --read-log /nix/store/"}},
		{"without init", path("without-init"), []string{"it yields something without init (/nix/store/"}},
		{"unreachable server", "http://127.0.0.1:1/nixexprs.tar.xz", []string{"the server cannot be reached: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := h.with(t)
			h.fails(1, append(test.texts, "container new was not made; nothing of it is left"), "ensure", "new", "--channel", test.channel)
			h.fails(1, append(test.texts, "container old is as it was (running)"), "ensure", "old", "--channel", test.channel)
			if diff := cmp.Diff(pin, h.record("old").Pin); diff != "" {
				t.Errorf("the pin changed (-before +after):\n%s", diff)
			}
		})
	}
	if got := h.must("ensure", "old"); !strings.Contains(got, "unchanged") {
		t.Errorf("afterwards ensure says %q", got)
	}
	if got := h.must("list", "--names"); got != "old\n" {
		t.Errorf("the containers are %q", got)
	}
}
