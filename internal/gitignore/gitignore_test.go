package gitignore

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
)

// world is a checkout of git, and what git itself says.
type world struct {
	t      testing.TB
	folder string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("it compares with git, which is not there")
	}
	w := &world{t: t, folder: t.TempDir()}
	w.git(nil, "init", "-q", ".")
	w.git(nil, "config", "core.ignorecase", "false")
	return w
}

func (w *world) git(stdin []byte, args ...string) string {
	w.t.Helper()
	output, err := execx.New().Output(w.t.Context(), execx.Command{
		Name: "git", Args: args, Dir: w.folder, Stdin: bytes.NewReader(stdin),
		Env: append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "XDG_CONFIG_HOME=/nonexistent", "HOME=/nonexistent"),
	})
	if err != nil && args[0] != "check-ignore" {
		w.t.Fatalf("git %q: %v", args, err)
	}
	return string(output)
}

func (w *world) write(path, text string) {
	w.t.Helper()
	full := filepath.Join(w.folder, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// ignored is the paths that git ignores.
func (w *world) ignored(paths []string) map[string]bool {
	w.t.Helper()
	found := map[string]bool{}
	for _, path := range strings.Split(w.git([]byte(strings.Join(paths, "\x00")+"\x00"), "check-ignore", "--no-index", "-z", "--stdin"), "\x00") {
		if path != "" {
			found[path] = true
		}
	}
	return found
}

// compare makes files and folders, and asks git and us about each.
func compare(t *testing.T, files map[string]string, paths ...string) {
	t.Helper()
	w := newWorld(t)
	rules := New("")
	for path, text := range files {
		w.write(path, text)
		if filepath.Base(path) == File {
			folder := filepath.Dir(path)
			if folder == "." {
				folder = ""
			}
			rules.Add(folder, text)
		}
	}
	asked := map[string]bool{}
	for _, path := range paths {
		name := strings.TrimSuffix(path, "/")
		if path != name {
			if err := os.MkdirAll(filepath.Join(w.folder, name), 0o755); err != nil {
				t.Fatal(err)
			}
		} else {
			w.write(path, "")
		}
		for folder := filepath.Dir(name); folder != "."; folder = filepath.Dir(folder) {
			asked[folder] = true
		}
		asked[name] = path != name
	}
	var all []string
	for path := range asked {
		all = append(all, path)
	}
	want, got := w.ignored(all), map[string]bool{}
	for path, folder := range asked {
		if rules.Ignored(path, folder) {
			got[path] = true
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-git +ours):\n%s\nfiles %q", diff, files)
	}
}

func TestLikeGit(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		paths []string
	}{
		"names":             {map[string]string{".gitignore": "build\n*.pyc\n"}, []string{"build", "a/build/", "a/b/x.pyc", "x.py", ".pyc"}},
		"anchors":           {map[string]string{".gitignore": "/build\ndoc/out\n"}, []string{"build/", "a/build", "doc/out", "a/doc/out", "doc/outer"}},
		"folders only":      {map[string]string{".gitignore": "target/\n"}, []string{"target", "a/target/", "a/target/x"}},
		"exceptions":        {map[string]string{".gitignore": "*.log\n!keep.log\n"}, []string{"a.log", "keep.log", "a/keep.log"}},
		"no way back":       {map[string]string{".gitignore": "out/\n!out/keep\n"}, []string{"out/keep", "out/other"}},
		"the way back":      {map[string]string{".gitignore": "out/*\n!out/keep\n"}, []string{"out/keep", "out/other"}},
		"all but":           {map[string]string{".gitignore": "/*\n!/src\n/src/*\n!/src/a\n"}, []string{"x", "src/a/b", "src/c"}},
		"nested":            {map[string]string{".gitignore": "*.o\n", "lib/.gitignore": "!keep.o\n/only\n"}, []string{"a.o", "lib/keep.o", "lib/a.o", "lib/only", "lib/sub/only", "only"}},
		"nested wins":       {map[string]string{".gitignore": "!x\n", "a/.gitignore": "x\n"}, []string{"x", "a/x", "a/b/x"}},
		"stars":             {map[string]string{".gitignore": "a/**/z\n**/q\nr/**\ns**t\n/u**\n"}, []string{"a/z", "a/b/z", "a/b/c/z", "q", "x/y/q", "r/s/t", "sxt", "s/t", "uv", "uv2/w", "v/uv"}},
		"star and slash":    {map[string]string{".gitignore": "a/*/z\nb/*\n*/c\n"}, []string{"a/b/z", "a/b/c/z", "b/x", "x/c", "x/y/c"}},
		"classes":           {map[string]string{".gitignore": "[ab]1\n[!a]2\n[a-c]3\n[[:digit:]]4\n[]]5\n[^a]6\n[a-]7\n[\\]]8\n"}, []string{"a1", "c1", "a2", "b2", "b3", "d3", "44", "a4", "]5", "a6", "b6", "-7", "b7", "]8"}},
		"class and slash":   {map[string]string{".gitignore": "a[!b]c\na[.-0]d\n/x/a[!b]c\n"}, []string{"a/c", "axc", "a/d", "x/a/c", "x/axc"}},
		"broken":            {map[string]string{".gitignore": "[ab\na\\\n[z-a]b\n[[:nope:]]c\n"}, []string{"[ab", "a", "a\\", "zb", "ac", ":c"}},
		"escapes":           {map[string]string{".gitignore": "\\#x\n\\!y\na\\*b\nend\\ \nend2 \n\\q\n"}, []string{"#x", "!y", "a*b", "axb", "end ", "end2", "q"}},
		"comments":          {map[string]string{".gitignore": "# x\n\n   \n#y\n !z\n"}, []string{"x", "#y", "z", " !z", "# x"}},
		"question mark":     {map[string]string{".gitignore": "a?c\n"}, []string{"abc", "a/c", "ac", "aüc"}},
		"bytes":             {map[string]string{".gitignore": "ü?\n[ü]x\n\xff*\n"}, []string{"üb", "ü", "üx", "\xffq"}},
		"line ends":         {map[string]string{".gitignore": "\ufeffone\r\ntwo/\r\n*.z\r\n"}, []string{"one", "two/x", "a.z"}},
		"only slashes":      {map[string]string{".gitignore": "/\n//\n!\n"}, []string{"a", "b/c"}},
		"leading stars":     {map[string]string{".gitignore": "**\n!**/\n!*.go\n"}, []string{"a.go", "b/c.go", "b/c.txt"}},
		"two slashes":       {map[string]string{".gitignore": "a//\nb//c\n"}, []string{"a/x", "b/c"}},
		"dots":              {map[string]string{".gitignore": ".*\n!.keep\n./z\n"}, []string{".env", ".keep", "a/.x", "z"}},
		"plus and brackets": {map[string]string{".gitignore": "a+b*\n(c)*\n{d}*\n^e*\n$f*\n"}, []string{"a+bx", "aabx", "(c)", "{d}", "^e", "$f"}},
		"last line":         {map[string]string{".gitignore": "a"}, []string{"a"}},
		"tabs":              {map[string]string{".gitignore": "a\t\n"}, []string{"a", "a\t"}},
	} {
		t.Run(name, func(t *testing.T) { compare(t, test.files, test.paths...) })
	}
}

// TestRandomLikeGit compares with git on random lines; the seed is fixed.
func TestRandomLikeGit(t *testing.T) {
	if testing.Short() {
		t.Skip("in the long set: make e2e")
	}
	const seed, rounds = 5, 150
	random := rand.New(rand.NewSource(seed))
	pick := func(words ...string) string { return words[random.Intn(len(words))] }
	for round := range rounds {
		line := func() string {
			text := pick("", "", "", "!", "/", "\\")
			for range 1 + random.Intn(5) {
				text += pick("a", "b", "ab", "/", "*", "**", "?", "[ab]", "[!a]", "/**/", "**/", "/**", "\\a", " ", "[a", "]")
			}
			return text + pick("", "", "/")
		}
		file := func() string {
			var text strings.Builder
			for range 1 + random.Intn(4) {
				fmt.Fprintln(&text, line())
			}
			return text.String()
		}
		files := map[string]string{File: file()}
		if round%2 == 0 {
			files["a/"+File] = file()
		}
		compare(t, files, "a/a", "a/b", "a/ab", "a/ab2/a", "a/c/b/a", "b/a", "b/b/b", "b/ab", "ab", "c", "ba/", "bb/a/b/c", " ", "]", "abab")
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

func TestOrder(t *testing.T) {
	rules := New("!x.first\n", "*.x\nlast\n", "!*.x\n!last\n")
	rules.Add("", "*.first\n!last\n")
	for path, want := range map[string]bool{"x.first": false, "y.first": true, "a.x": true, "last": false} {
		if got := rules.Ignored(path, false); got != want {
			t.Errorf("Ignored(%q) = %v", path, got)
		}
	}
}

func TestNames(t *testing.T) {
	rules := New("first\n*.c\n", "last/\n")
	rules.Add("", "top\n/anchored\nx*\n")
	rules.Add("deep", "deeper\n")
	if diff := cmp.Diff([]string{"first", "top", "last"}, rules.Names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if rules.Negated() {
		t.Error("there is no exception")
	}
	rules.Add("deep", "!deeper\n")
	if !rules.Negated() {
		t.Error("there is an exception")
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"a", "!/a/**/b[!c]\\", "[[:alpha:]", "\\ ", "[z-a]", "\xff"} {
		f.Add(line, "a/b")
	}
	f.Fuzz(func(_ *testing.T, line, path string) {
		if p, ok := parse(line); ok {
			p.matches(path, true)
		}
	})
}
