package channel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const revision = "8eeec934ae0dbeca3d7868c059568a65c08b2fc3"

func TestParse(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	here := func(path string) Reference {
		absolute := filepath.Join(folder, path)
		return Reference{Text: absolute, Kind: Folder, Folder: absolute}
	}
	for text, want := range map[string]Reference{
		"/srv/channel":              {Text: "/srv/channel", Kind: Folder, Folder: "/srv/channel"},
		"/srv//a/../channel/":       {Text: "/srv/channel", Kind: Folder, Folder: "/srv/channel"},
		"/with space/ünï":           {Text: "/with space/ünï", Kind: Folder, Folder: "/with space/ünï"},
		"./channels/offline":        here("channels/offline"),
		"../x":                      here("../x"),
		".":                         here("."),
		"path:/srv/channel":         {Text: "/srv/channel", Kind: Folder, Folder: "/srv/channel"},
		"path:./x":                  here("x"),
		"path:x":                    here("x"),
		"file:///srv/channel":       {Text: "/srv/channel", Kind: Folder, Folder: "/srv/channel"},
		"file:///srv/x/c.tar.xz":    {Text: "file:///srv/x/c.tar.xz", Kind: Tarball, URL: "file:///srv/x/c.tar.xz"},
		"file:///srv/my%20c.tar.gz": {Text: "file:///srv/my%20c.tar.gz", Kind: Tarball, URL: "file:///srv/my%20c.tar.gz"},
		"https://nixos.org/channels/nixos-26.05/nixexprs.tar.xz": {
			Text: "https://nixos.org/channels/nixos-26.05/nixexprs.tar.xz", Kind: Tarball, URL: "https://nixos.org/channels/nixos-26.05/nixexprs.tar.xz",
		},
		"http://127.0.0.1:8080/x.tar.zst?v=1": {Text: "http://127.0.0.1:8080/x.tar.zst?v=1", Kind: Tarball, URL: "http://127.0.0.1:8080/x.tar.zst?v=1"},
		"tarball+https://example.org/x.tgz":   {Text: "tarball+https://example.org/x.tgz", Kind: Tarball, URL: "https://example.org/x.tgz"},
		"nixpkgs":                             {Text: "nixpkgs", Kind: Flake, Flake: map[string]any{"type": "indirect", "id": "nixpkgs"}, bare: true},
		"nixpkgs/nixos-26.05":                 {Text: "nixpkgs/nixos-26.05", Kind: Flake, Flake: map[string]any{"type": "indirect", "id": "nixpkgs", "ref": "nixos-26.05"}, bare: true},
		"nixpkgs/" + revision:                 {Text: "nixpkgs/" + revision, Kind: Flake, Flake: map[string]any{"type": "indirect", "id": "nixpkgs", "rev": revision}, bare: true},
		"flake:nixpkgs/a/b/" + revision:       {Text: "flake:nixpkgs/a/b/" + revision, Kind: Flake, Flake: map[string]any{"type": "indirect", "id": "nixpkgs", "ref": "a/b", "rev": revision}},
		"github:NixOS/nixpkgs":                {Text: "github:NixOS/nixpkgs", Kind: Flake, Flake: map[string]any{"type": "github", "owner": "NixOS", "repo": "nixpkgs"}},
		"github:NixOS/nixpkgs/nixos-26.05":    {Text: "github:NixOS/nixpkgs/nixos-26.05", Kind: Flake, Flake: map[string]any{"type": "github", "owner": "NixOS", "repo": "nixpkgs", "ref": "nixos-26.05"}},
		"github:NixOS/nixpkgs/" + revision:    {Text: "github:NixOS/nixpkgs/" + revision, Kind: Flake, Flake: map[string]any{"type": "github", "owner": "NixOS", "repo": "nixpkgs", "rev": revision}},
		"github:o/r/feature/x":                {Text: "github:o/r/feature/x", Kind: Flake, Flake: map[string]any{"type": "github", "owner": "o", "repo": "r", "ref": "feature/x"}},
		"gitlab:a%2Fb/c?host=git.example.org&ref=main": {
			Text: "gitlab:a%2Fb/c?host=git.example.org&ref=main", Kind: Flake,
			Flake: map[string]any{"type": "gitlab", "owner": "a%2Fb", "repo": "c", "host": "git.example.org", "ref": "main"},
		},
		"sourcehut:~x/y":                        {Text: "sourcehut:~x/y", Kind: Flake, Flake: map[string]any{"type": "sourcehut", "owner": "~x", "repo": "y"}},
		"git+https://example.org/r.git?ref=m":   {Text: "git+https://example.org/r.git?ref=m", Kind: Flake, Flake: map[string]any{"type": "git", "url": "https://example.org/r.git", "ref": "m"}},
		"git+ssh://git@example.org/r?shallow=1": {Text: "git+ssh://git@example.org/r?shallow=1", Kind: Flake, Flake: map[string]any{"type": "git", "url": "ssh://git@example.org/r", "shallow": true}},
		"git+file:///srv/r?rev=" + revision:     {Text: "git+file:///srv/r?rev=" + revision, Kind: Flake, Flake: map[string]any{"type": "git", "url": "file:///srv/r", "rev": revision}},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Reference{})); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for text, reason := range map[string]string{
		"":                                "it is empty",
		"-":                               "looks like an option",
		"--option":                        "looks like an option",
		"~/nixpkgs":                       "shell",
		"a\nb":                            "control character",
		"/srv/\x1b[2J":                    "control character",
		"/srv/\u202egnp":                  "control character",
		"\xff":                            "not UTF-8",
		strings.Repeat("a", 5000):         "longer than",
		"https://nixos.org/channels/x":    "did you mean https://nixos.org/channels/x/nixexprs.tar.xz?",
		"https:///x.tar.xz":               "names no host",
		"https://user:secret@h/x.tar.xz":  "netrc",
		"https://token@h/x.tar.xz":        "netrc",
		"https://h/x.tar.xz?token=s3cr3t": "looks like a secret",
		"https://h/x.tar.xz#a":            "fragment",
		"file://host/x.tar.xz":            "three slashes",
		"file:x.tar.xz":                   "three slashes",
		"ftp://h/x.tar.xz":                "no scheme that is known",
		"git+https://u:p@h/r":             "netrc",
		"git+https://h/r?private_token=x": "looks like a secret",
		"git+https://h/r?dir=sub":         "dir=",
		"git+https://h/r?submodules=x":    "must be 0 or 1",
		"git+https://h/r?exec=x":          `"exec" is not supported`,
		"git+https://h/r?rev=abc":         "no full revision",
		"git+https://h/r?ref=a&ref=b":     "twice",
		"git+ssh://-oProxyCommand=x/r":    "names no host",
		"git+file://r":                    "three slashes",
		"github:owner":                    "github:OWNER/REPOSITORY",
		"github:o/r?x=1":                  `"x" is not supported`,
		"github:../r":                     "no name of an owner",
		"github:o/r/-x":                   "no name of a branch",
		"github:o/r/a..b":                 "no name of a branch",
		"github:o/r/main?ref=x":           "twice",
		"github:o/r/main?rev=" + revision: "both a branch and a revision",
		"github:o/r#hello":                "without #output",
		"github:o/r?host=-x":              "no host name",
		"path:/x?narHash=y":               "parameters",
		"nixpkgs?dir=x":                   "no parameters",
		"a b":                             "neither a path",
		"1nix":                            "neither a path",
		"flake:":                          "neither a path",
		"nixpkgs//":                       "no name of a branch",
	} {
		t.Run(text, func(t *testing.T) {
			got, err := Parse(text)
			var bad *BadReference
			if !errors.As(err, &bad) {
				t.Fatalf("Parse: %+v, %v", got, err)
			}
			if !strings.Contains(bad.Reason, reason) {
				t.Errorf("the reason is %q, want %q", bad.Reason, reason)
			}
			for _, secret := range []string{"s3cr3t", "user:secret"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the message shows a secret: %s", err)
				}
			}
		})
	}
}

func TestLocked(t *testing.T) {
	for text, want := range map[string]string{
		"github:NixOS/nixpkgs/nixos-26.05":   "github:NixOS/nixpkgs/" + revision,
		"gitlab:o/r?host=h.example.org":      "gitlab:o/r/" + revision + "?host=h.example.org",
		"git+https://example.org/r?ref=main": "git+https://example.org/r?ref=main&rev=" + revision,
		"git+file:///srv/r?submodules=1":     "git+file:///srv/r?rev=" + revision + "&submodules=1",
		"nixpkgs/nixos-26.05":                "flake:nixpkgs/" + revision,
	} {
		reference, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got := reference.locked(revision)
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
		if _, err := Parse(got); err != nil {
			t.Errorf("the locked reference does not parse: %v", err)
		}
		if got := reference.locked(""); got != "" {
			t.Errorf("%s without a revision: %q", text, got)
		}
	}
}

func TestRecordedURL(t *testing.T) {
	const given = "https://nixos.org/channels/x/nixexprs.tar.xz"
	for final, want := range map[string]string{
		"https://releases.nixos.org/x/nixexprs.tar.xz":                         "https://releases.nixos.org/x/nixexprs.tar.xz",
		"https://s3.example.org/nixexprs.tar.xz?X-Amz-Signature=abc&Expires=1": given,
		"https://u:p@example.org/nixexprs.tar.xz":                              given,
	} {
		if got := recordedURL(given, final); got != want {
			t.Errorf("%s: got %q", final, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"/srv/x", "./x", "github:o/r/b", "git+https://h/r?ref=x", "https://h/x.tar.xz", "file:///x.tar.xz", "flake:n/r", "nixpkgs/x",
		"gitlab:a%2Fb/c?host=h", "https://u:p@h/x.tar.xz", "path:x", "-x", "tarball+file:///x.tar",
	} {
		f.Add(text)
	}
	if err := os.Chdir(f.TempDir()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		reference, err := Parse(text)
		if err != nil {
			return
		}
		switch reference.Kind {
		case Folder:
			if !filepath.IsAbs(reference.Folder) || filepath.Clean(reference.Folder) != reference.Folder {
				t.Errorf("folder %q of %q", reference.Folder, text)
			}
		case Tarball:
			if !strings.HasPrefix(reference.URL, "http://") && !strings.HasPrefix(reference.URL, "https://") && !strings.HasPrefix(reference.URL, "file:/") {
				t.Errorf("URL %q of %q", reference.URL, text)
			}
			if strings.Contains(strings.SplitN(reference.URL, "?", 2)[0], "@") && strings.Contains(reference.URL, "://") {
				authority, _, _ := strings.Cut(strings.SplitN(reference.URL, "://", 2)[1], "/")
				if strings.Contains(authority, "@") {
					t.Errorf("%q holds a user", reference.URL)
				}
			}
		case Flake:
			for name, value := range reference.Flake {
				text, isText := value.(string)
				if isText && (text == "" || strings.HasPrefix(text, "-") || strings.ContainsAny(text, "\n\x00")) {
					t.Errorf("attribute %s is %q", name, text)
				}
			}
		default:
			t.Errorf("kind %q of %q", reference.Kind, text)
		}
		// What is recorded is read back the same.
		again, err := Parse(reference.Text)
		if err != nil || again.Kind != reference.Kind {
			t.Errorf("%q does not parse again: %v", reference.Text, err)
		}
	})
}
