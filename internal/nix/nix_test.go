package nix

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 writes it anew):\n%s", name, diff)
	}
}

func TestArguments(t *testing.T) {
	evaluation := evalArguments("nix-instantiate", "/tmp/x/drv", EvalRequest{
		Expression:  "(import <nixpkgs/nixos> { }).system",
		SearchPath:  []SearchEntry{{Path: "/nix/store/a"}, {Name: "devhost-guest", Path: "/nix/store/b"}},
		AllowedURIs: []string{"https://example.org/", "github:"},
	})
	golden(t, "evaluate.txt", strings.Join(evaluation, "\n")+"\n")
	build := buildArguments("/nix/store/x.drv", BuildOptions{GCRoot: "/nix/var/nix/gcroots/devhost/demo", SandboxPaths: []string{"/usr", "/bin=/usr/bin"}})
	golden(t, "build.txt", strings.Join(build, "\n")+"\n")
	plain := buildArguments("/nix/store/x.drv", BuildOptions{GCRoot: "/r"})
	if strings.Contains(strings.Join(plain, " "), "sandbox-paths") {
		t.Errorf("the host's sandbox paths are replaced without need: %q", plain)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("NIX_PATH", "nixpkgs=/x")
	t.Setenv("NIX_CONFIG", "sandbox = false")
	t.Setenv("https_proxy", "http://proxy:1")
	t.Setenv("SECRET", "x")
	got := strings.Join(new(Client).environment("/home/x", "TMPDIR=/t"), "\n") + "\n"
	for _, bad := range []string{"NIX_PATH", "NIX_CONFIG", "SECRET"} {
		if strings.Contains(got, bad) {
			t.Errorf("%s is passed on", bad)
		}
	}
	for _, good := range []string{"HOME=/home/x\n", "NIX_REMOTE=daemon\n", "https_proxy=http://proxy:1\n", "TMPDIR=/t\n", "PATH="} {
		if !strings.Contains(got, good) {
			t.Errorf("%q is missing in:\n%s", good, got)
		}
	}
	for _, variable := range daemonEnvironment(DefaultSocket, true) {
		if strings.HasPrefix(variable, "NIX_REMOTE=") {
			t.Error("a daemon with NIX_REMOTE connects to itself without end")
		}
	}
}

func TestDaemonConfig(t *testing.T) {
	config := func(offline bool) string {
		for _, variable := range daemonEnvironment(DefaultSocket, offline) {
			if value, ok := strings.CutPrefix(variable, "NIX_CONFIG="); ok {
				return value
			}
		}
		return ""
	}
	if got := config(false); got != "sandbox = true\nsandbox-fallback = false\n" {
		t.Errorf("online: %q", got)
	}
	want := "sandbox = true\nsandbox-fallback = false\nsubstituters =\nsandbox-paths = " + strings.Join(HostSandboxPaths(), " ") + "\n"
	if got := config(true); got != want {
		t.Errorf("offline: %q", got)
	}
	t.Setenv("DEVHOST_OFFLINE", "1")
	if !offline(context.Background()) {
		t.Error("DEVHOST_OFFLINE=1 has no effect")
	}
}

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]Version{
		"nix-store (Nix) 2.8.0\n":                             {2, 8},
		"nix-store (Nix) 2.26.3\n":                            {2, 26},
		"nix (Nix) 2.34.0pre20260101_abcdef\n":                {2, 34},
		"nix (Lix, like Nix) 2.91.1\n":                        {2, 91},
		"nix-store (Determinate Nix 3.1.0) 2.27.1":            {2, 27},
		"nix-store (Nix) 2.35pre\n":                           {2, 35},
		"nix-store (Nix) 3.0\nwhat follows is not read 9.9\n": {9, 9},
	} {
		t.Run(output, func(t *testing.T) {
			got, err := parseVersion(output)
			if err != nil || got != want {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
	for _, output := range []string{"", "nix", "nix (Nix) two", "nix 2", "nix 2."} {
		if got, err := parseVersion(output); err == nil {
			t.Errorf("parseVersion(%q) = %v", output, got)
		}
	}
	if !(Version{2, 26}).AtLeast(2, 8) || (Version{2, 8}).AtLeast(2, 26) || !(Version{3, 0}).AtLeast(2, 26) {
		t.Error("AtLeast compares wrongly")
	}
}

func TestSRI(t *testing.T) {
	const want = "sha256-7SRAqzAIkpvIn3H0gP0biS6jNCjYuH41LrLsdtpfoPE="
	for _, text := range []string{
		want,
		"sha256:1wd0bzd7dv5j5qspxf6q50sa6bl93gyq1x3ikz49p4h862ml097d",
		"1wd0bzd7dv5j5qspxf6q50sa6bl93gyq1x3ikz49p4h862ml097d",
		"sha256:ed2440ab3008929bc89f71f480fd1b892ea33428d8b87e352eb2ec76da5fa0f1",
	} {
		if got, err := SRI(text); err != nil || got != want {
			t.Errorf("SRI(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "sha1:0000000000000000000000000000000000000000", "sha256:"} {
		if got, err := SRI(text); err == nil {
			t.Errorf("SRI(%q) = %q", text, got)
		}
	}
}

func TestCheckStorePath(t *testing.T) {
	const hash = "/nix/store/00000000000000000000000000000000-"
	for path, good := range map[string]bool{
		hash + "x": true, hash + "x.drv": true,
		"": false, "/nix/store": false, "/nix/store/": false, "/etc/passwd": false, hash + "x/y": false, hash: false,
		hash + "../../etc": false, "/nix/store/x": false, hash + "a b": false, "nix/store/00000000000000000000000000000000-x": false, hash + "x\n": false,
	} {
		if err := CheckStorePath(path); (err == nil) != good {
			t.Errorf("CheckStorePath(%q) = %v", path, err)
		}
	}
}

func TestNotInstalled(t *testing.T) {
	fake := execxtest.New(t)
	fake.Expect(`nix-store --version`, "", &execx.Error{Argv: []string{"nix-store"}, NotFound: true})
	_, err := New(fake, nil).Version(context.Background())
	var missing *NotInstalled
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "apt-get install nix-bin") {
		t.Errorf("got %v", err)
	}
}

func TestGroupMembers(t *testing.T) {
	const file = "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2\nempty:x:1:\nbroken\nnixbldx:x:2:a\n"
	for group, want := range map[string]struct {
		gid     uint32
		members int
		found   bool
	}{
		"nixbld": {30000, 2, true}, "empty": {1, 0, true}, "none": {}, "nixbldx": {2, 1, true}, "broken": {},
	} {
		gid, members, found := groupMembers([]byte(file), group)
		if gid != want.gid || members != want.members || found != want.found {
			t.Errorf("%s: got %d, %d, %v", group, gid, members, found)
		}
	}
}

func TestReadConfig(t *testing.T) {
	files := map[string]string{
		"/etc/nix/nix.conf":  "# build-users-group = comment\nbuild-users-group =\nsandbox = relaxed # why\ninclude more.conf\n!include /none.conf\nsubstituters = https://a https://b\nnonsense\n",
		"/etc/nix/more.conf": "sandbox = true\ninclude more.conf\n",
		"/broken.conf":       "include none.conf\n",
	}
	readFile := func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	got, err := readConfig("/etc/nix/nix.conf", readFile)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"build-users-group": "", "sandbox": "true", "substituters": "https://a https://b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if got, err := readConfig("/none.conf", readFile); err != nil || len(got) > 0 {
		t.Errorf("without a file: %v, %v", got, err)
	}
	if got, err := readConfig("/broken.conf", readFile); err == nil {
		t.Errorf("with a missing include: %v", got)
	}
}

func TestFindBuildUsers(t *testing.T) {
	gone := &execx.Error{Argv: []string{"getent"}, ExitCode: 2}
	for name, test := range map[string]struct {
		conf, group string
		getent      func(fake *execxtest.Fake)
		want        BuildUsers
		wantReason  string
	}{
		"default":             {"", "nixbld:x:3:a,b\n", nil, BuildUsers{Group: "nixbld", GID: 3, Members: 2}, ""},
		"another group":       {"build-users-group = builders\n", "nixbld:x:3:a,b\nbuilders:x:4:c\n", nil, BuildUsers{Group: "builders", GID: 4, Members: 1}, ""},
		"in an included file": {"include more.conf\n", "nixbld:x:3:\nbuilders:x:4:c\n", nil, BuildUsers{Group: "builders", GID: 4, Members: 1}, ""},
		"allocated":           {"auto-allocate-uids = true\nbuild-users-group =\n", "", nil, BuildUsers{Allocated: true, FirstUID: 872415232, LastUID: 880803839}, ""},
		"allocated, own ids":  {"auto-allocate-uids = true\nstart-id = 100000\nid-count = 65536\nbuild-users-group =\n", "", nil, BuildUsers{Allocated: true, FirstUID: 100000, LastUID: 165535}, ""},
		// Without the experimental feature, Nix goes on with the group.
		"allocated, and a group": {"auto-allocate-uids = true\n", "nixbld:x:3:a\n", nil, BuildUsers{Allocated: true, FirstUID: 872415232, LastUID: 880803839, Group: "nixbld", GID: 3, Members: 1}, ""},
		"directory service": {"", "root:x:0:\n", func(fake *execxtest.Fake) {
			fake.Expect("^getent group nixbld$", "nixbld:*:3:a,b,c\n", nil)
		}, BuildUsers{Group: "nixbld", GID: 3, Members: 3}, ""},
		"no group":   {"", "root:x:0:\n", func(fake *execxtest.Fake) { fake.Expect("^getent group nixbld$", "", gone) }, BuildUsers{}, "there is no group nixbld"},
		"no members": {"", "nixbld:x:3:\n", nil, BuildUsers{}, "the group nixbld has no members"},
		"empty":      {"build-users-group =\n", "nixbld:x:3:a\n", nil, BuildUsers{}, "build-users-group is empty in /etc/nix/nix.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, content := range map[string]string{"nix/nix.conf": test.conf, "nix/more.conf": "build-users-group = builders\n", "group": test.group} {
				path = filepath.Join(root, "etc", path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			fake := execxtest.New(t)
			if test.getent != nil {
				test.getent(fake)
			}
			settings, err := ReadSettings(root)
			if err != nil {
				t.Fatal(err)
			}
			got, err := FindBuildUsers(t.Context(), fake, root, settings)
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			var failure *NoBuildUsers
			if test.wantReason == "" && err == nil {
				return
			}
			if !errors.As(err, &failure) || failure.Reason != test.wantReason || !strings.Contains(failure.Remedy(), "\n  groupadd --system ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAllocatedUsersThatCannotBe(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"no number": {"start-id": "many"},
		"root":      {"start-id": "0"},
		"too many":  {"start-id": "4294967295", "id-count": "2"},
		"negative":  {"id-count": "-1"},
	} {
		t.Run(name, func(t *testing.T) {
			if first, last, err := allocatedUsers(settings); err == nil || !strings.Contains(err.Error(), ConfigFile) {
				t.Errorf("got %d to %d, %v", first, last, err)
			}
		})
	}
}

func TestBuildUsersMessage(t *testing.T) {
	missing := (&NoBuildUsers{Group: "nixbld", Reason: "there is no group nixbld"}).Error()
	if !strings.Contains(missing, "groupadd --system nixbld") || !strings.Contains(missing, "useradd") {
		t.Errorf("no remedy in: %s", missing)
	}
	empty := (&NoBuildUsers{Reason: "build-users-group is empty in " + ConfigFile}).Error()
	if !strings.Contains(empty, "remove the line from /etc/nix/nix.conf") {
		t.Errorf("no remedy in: %s", empty)
	}
}

func TestSplitName(t *testing.T) {
	for full, want := range map[string][2]string{
		"postgresql-15.6":      {"postgresql", "15.6"},
		"postgresql-15.6-lib":  {"postgresql", "15.6"},
		"python3.11-foo-1.0":   {"python3.11-foo", "1.0"},
		"nginx.conf":           {"nginx.conf", ""},
		"unit-nginx.service":   {"unit-nginx.service", ""},
		"etc-hosts":            {"etc-hosts", ""},
		"nixos-system-x-24.05": {"nixos-system-x", "24.05"},
		"a-":                   {"a-", ""},
		"glibc-2.38-44-bin":    {"glibc", "2.38-44"},
		"foo-lib":              {"foo-lib", ""},
		"":                     {"", ""},
	} {
		name, version := SplitName(full)
		if got := [2]string{name, version}; got != want {
			t.Errorf("SplitName(%q) = %q, want %q", full, got, want)
		}
	}
}

func TestDiffClosures(t *testing.T) {
	closure := func(entries map[string]int64) []PathInfo {
		var result []PathInfo
		for name, size := range entries {
			result = append(result, PathInfo{Path: StoreDir + "/00000000000000000000000000000000-" + name, NarSize: size})
		}
		return result
	}
	before := closure(map[string]int64{
		"postgresql-15.6": 40 << 20, "postgresql-15.6-lib": 5 << 20, "nginx-1.24.0": 2 << 20, "etc": 1000, "gone-1.0": 9 << 20,
		"same-1.0": 100, "twice-1.0": 1, "twice-2.0": 1, "grown": 1 << 20, "little": 100,
	})
	after := closure(map[string]int64{
		"postgresql-16.2": 42 << 20, "postgresql-16.2-lib": 5 << 20, "nginx-1.24.0": 2 << 20, "etc": 1200, "redis-7.2": 3 << 20,
		"same-1.0": 100, "twice-2.0": 1, "twice-3.0": 1, "grown": 2 << 20, "little": 100 + sizeThreshold - 1,
	})
	changes := DiffClosures(before, after)
	var table strings.Builder
	if err := WriteChanges(&table, changes); err != nil {
		t.Fatal(err)
	}
	golden(t, "diff.txt", table.String())
	if got := DiffClosures(before, before); len(got) != 0 {
		t.Errorf("equal closures differ: %v", got)
	}
}

func TestQueryClosure(t *testing.T) {
	const a, b = "/nix/store/00000000000000000000000000000000-a", "/nix/store/11111111111111111111111111111111-b"
	fake := execxtest.New(t)
	fake.Expect("--query --requisites "+a, b+"\n"+a+"\n", nil)
	fake.Expect("--query --size "+a+" "+b, "10\n20\n", nil)
	got, err := New(fake, nil).QueryClosure(context.Background(), a)
	if diff := cmp.Diff([]PathInfo{{a, 10}, {b, 20}}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	fake = execxtest.New(t)
	fake.Expect("--query --requisites "+a, a+"\n", nil)
	fake.Expect("--query --size "+a, "x\n", nil)
	if got, err := New(fake, nil).QueryClosure(context.Background(), a); err == nil {
		t.Errorf("got %v", got)
	}
}

func TestHostSandboxPaths(t *testing.T) {
	merged, split := t.TempDir(), t.TempDir()
	for name, target := range map[string]string{"bin": "usr/bin", "lib": "/usr/lib", "lib64": "usr/lib64"} {
		if err := os.Symlink(target, filepath.Join(merged, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "sbin"} {
		if err := os.Mkdir(filepath.Join(split, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"/usr", "/bin=/usr/bin", "/lib=/usr/lib", "/lib64=/usr/lib64"}, hostSandboxPaths(merged)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/usr", "/bin", "/lib", "/sbin"}, hostSandboxPaths(split)); diff != "" {
		t.Errorf("split (-want +got):\n%s", diff)
	}
}

func TestGenerationLinks(t *testing.T) {
	for link, want := range map[string]int{
		"demo-1-link": 1, "demo-12-link": 12, "demo-x-link": 0, "demo-link": 0, "demo2-1-link": 0, "demo-0-link": 0, "demo--1-link": 0, "x/demo-3-link": 3,
	} {
		number, ok := generationNumber("/p/demo", link)
		if ok != (want > 0) || ok && number != want {
			t.Errorf("generationNumber(%q) = %d, %v", link, number, ok)
		}
	}
	// Names of containers may look like links of others.
	folder := t.TempDir()
	target := "/nix/store/00000000000000000000000000000000-x"
	for _, name := range []string{"demo-1-link", "demo-2-1-link", "demo-2-link"} {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("demo-2-link", filepath.Join(folder, "demo")); err != nil {
		t.Fatal(err)
	}
	generations, err := Generations(filepath.Join(folder, "demo"))
	if err != nil || len(generations) != 2 || generations[0].Current || !generations[1].Current {
		t.Errorf("got %+v, %v", generations, err)
	}
	if err := DeleteProfile(filepath.Join(folder, "demo")); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(folder)
	if err != nil || len(left) != 1 || left[0].Name() != "demo-2-1-link" {
		t.Errorf("left: %v, %v", left, err)
	}
}
