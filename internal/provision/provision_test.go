package provision

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/nix/nixtest"
	"devhost/internal/person"
)

func self() person.Person {
	return person.Person{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// read reads with our own rights; no process may be started for that.
func read(t *testing.T, path string, stdin io.Reader) (*Tree, error) {
	t.Helper()
	return Read(context.Background(), Source{Path: path, Stdin: stdin, Caller: self(), Runner: execxtest.New(t)})
}

// member is one member of an archive.
type member struct {
	header  tar.Header
	content string
}

func file(name, content string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}

func link(name, target string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}, ""}
}

func archive(t testing.TB, members ...member) []byte {
	t.Helper()
	var buffer bytes.Buffer
	writer := tar.NewWriter(&buffer)
	for _, member := range members {
		header := member.header
		header.Size = int64(len(member.content))
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(member.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func contents(tree *Tree) map[string]string {
	result := map[string]string{}
	for name, entry := range tree.entries {
		switch {
		case entry.mode == fs.ModeDir:
			result[name] = "folder"
		case entry.mode == fs.ModeSymlink:
			result[name] = "-> " + entry.target
		case entry.executable:
			result[name] = "x " + string(entry.data)
		default:
			result[name] = string(entry.data)
		}
	}
	return result
}

func TestReadArchive(t *testing.T) {
	module := file("provision.nix", "{ }")
	for name, test := range map[string]struct {
		members []member
		want    map[string]string
	}{
		"plain":         {[]member{module}, map[string]string{".": "folder", "provision.nix": "{ }"}},
		"with ./":       {[]member{{tar.Header{Name: "./", Typeflag: tar.TypeDir}, ""}, file("./provision.nix", "{ }")}, map[string]string{".": "folder", "provision.nix": "{ }"}},
		"default.nix":   {[]member{file("default.nix", "1")}, map[string]string{".": "folder", "default.nix": "1"}},
		"folders":       {[]member{module, {tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o700}, ""}, file("a/b/c.nix", "1")}, map[string]string{".": "folder", "provision.nix": "{ }", "a": "folder", "a/b": "folder", "a/b/c.nix": "1"}},
		"modes":         {[]member{module, {tar.Header{Name: "x.sh", Typeflag: tar.TypeReg, Mode: 0o4755}, "#!"}, {tar.Header{Name: "y", Typeflag: tar.TypeReg, Mode: 0o001}, ""}}, map[string]string{".": "folder", "provision.nix": "{ }", "x.sh": "x #!", "y": ""}},
		"links inside":  {[]member{module, link("a/l", "../provision.nix"), link("m", "a/l"), link("dangling", "none")}, map[string]string{".": "folder", "provision.nix": "{ }", "a": "folder", "a/l": "-> ../provision.nix", "m": "-> a/l", "dangling": "-> none"}},
		"linked module": {[]member{file("real.nix", "{ }"), link("provision.nix", "real.nix")}, map[string]string{".": "folder", "real.nix": "{ }", "provision.nix": "-> real.nix"}},
		"hard link":     {[]member{module, {tar.Header{Name: "copy", Typeflag: tar.TypeLink, Linkname: "./provision.nix"}, ""}}, map[string]string{".": "folder", "provision.nix": "{ }", "copy": "{ }"}},
		"git":           {[]member{module, file(".git/config", "x"), file("sub/.git", "x"), file(".gitignore", "x")}, map[string]string{".": "folder", "provision.nix": "{ }", ".gitignore": "x"}},
		"odd names":     {[]member{module, file("ünï code", "1"), file(".x", "2"), file("-r", "3"), file("a'b\"", "4")}, map[string]string{".": "folder", "provision.nix": "{ }", "ünï code": "1", ".x": "2", "-r": "3", "a'b\"": "4"}},
	} {
		t.Run(name, func(t *testing.T) {
			plain := archive(t, test.members...)
			tree, err := read(t, "-", bytes.NewReader(plain))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, contents(tree)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
			var packed bytes.Buffer
			writer := gzip.NewWriter(&packed)
			if _, err := writer.Write(plain); err != nil {
				t.Fatal(err)
			}
			if err := writer.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := read(t, "-", &packed)
			if err != nil || again.Hash() != tree.Hash() {
				t.Errorf("compressed: %v", err)
			}
		})
	}
}

// What is just not too deep is taken, from an archive and from a folder.
func TestDeepest(t *testing.T) {
	deep := strings.Repeat("d/", deepest)
	tree, err := read(t, "-", bytes.NewReader(archive(t, file("provision.nix", "{ }"), file(deep+"x", ""))))
	if err != nil || tree.entries[deep+"x"] == nil {
		t.Errorf("got %v", err)
	}
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, deep), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"provision.nix", deep + "x"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("{ }"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := read(t, folder, nil); err != nil {
		t.Errorf("a folder: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(folder, deep, "d/d"), 0o755); err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if _, err := read(t, folder, nil); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "more than 100 folders") {
		t.Errorf("a folder that is too deep: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	module := file("provision.nix", "{ }")
	device := func(kind byte) member { return member{tar.Header{Name: "d", Typeflag: kind, Devmajor: 1}, ""} }
	for name, test := range map[string]struct {
		members []member
		reason  string
	}{
		"empty":               {nil, "neither provision.nix nor default.nix"},
		"no module":           {[]member{file("x.nix", "")}, "neither provision.nix nor default.nix"},
		"module is a folder":  {[]member{file("provision.nix/x", "")}, "neither provision.nix nor default.nix"},
		"dangling module":     {[]member{link("provision.nix", "none")}, "neither provision.nix nor default.nix"},
		"absolute":            {[]member{module, file("/etc/x", "")}, `"/etc/x" has an absolute name`},
		"escape":              {[]member{module, file("../x", "")}, `"../x" lies outside`},
		"dots":                {[]member{module, file("a/../../x", "")}, `has a name with . or ..`},
		"slashes":             {[]member{module, file("a//x", "")}, `has a name with . or ..`},
		"control":             {[]member{module, file("a\nb", "")}, "control characters"},
		"escape sequence":     {[]member{module, file("a\x1b[2J", "")}, "control characters"},
		"long":                {[]member{module, file(strings.Repeat("a", 300), "")}, "more than 255 bytes"},
		"long path":           {[]member{module, file(strings.Repeat("abc/", 1024)+"x", "")}, "begins a path of more than 4096 bytes"},
		"deep":                {[]member{module, file(strings.Repeat("d/", 101)+"x", "")}, "begins a path of more than 100 folders"},
		"long link":           {[]member{module, link("l", strings.Repeat("abc/", 1024)+"x")}, `"l" is a link to a path of more than 4096 bytes`},
		"twice":               {[]member{module, module}, "comes twice"},
		"folder over a file":  {[]member{module, {tar.Header{Name: "provision.nix/", Typeflag: tar.TypeDir}, ""}}, "comes twice"},
		"below a file":        {[]member{module, file("provision.nix/x", "")}, `lies below "provision.nix", which is no folder`},
		"below a link":        {[]member{module, link("l", "/etc"), file("l/cron.d/x", "")}, `lies below "l", which is no folder`},
		"absolute link":       {[]member{module, link("l", "/etc/shadow")}, `"l" is a link to "/etc/shadow", which is outside`},
		"link out":            {[]member{module, link("a/l", "../../x")}, `"a/l" is a link to "../../x", which is outside`},
		"link out by a link":  {[]member{module, link("a/b/up", "../.."), link("a/b/l", "up/../x")}, `"a/b/l" is a link to "up/../x", which is outside`},
		"loop":                {[]member{module, link("l", "m"), link("m", "l")}, "is a link to"},
		"empty link":          {[]member{module, link("l", "")}, "is a link to"},
		"hard link out":       {[]member{module, {tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}, ""}}, "which is not in the archive"},
		"hard link to a link": {[]member{module, link("l", "provision.nix"), {tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "l"}, ""}}, "which is not in the archive"},
		"character device":    {[]member{module, device(tar.TypeChar)}, `"d" is a device`},
		"block device":        {[]member{module, device(tar.TypeBlock)}, `"d" is a device`},
		"pipe":                {[]member{module, device(tar.TypeFifo)}, `"d" is a device`},
		"too large in one":    {[]member{module, file("big", strings.Repeat("x", 2000))}, "MiB"},
		"too large in all":    {[]member{module, file("a", strings.Repeat("x", 600)), file("b", strings.Repeat("x", 600))}, "MiB"},
		"too large by copies": {[]member{module, file("a", strings.Repeat("x", 600)), {tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}, ""}}, "MiB"},
		"too many":            {[]member{module, file("a/b/c/d/e/f/g/h/i/j/k", "")}, "more than 10 files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(context.Background(), Source{
				Path: "-", Stdin: bytes.NewReader(archive(t, test.members...)), Caller: self(), Limits: Limits{Bytes: 1000, Entries: 10},
			})
			var refused *Refused
			if !errors.As(err, &refused) {
				t.Fatalf("got %T: %v", err, err)
			}
			if !strings.Contains(err.Error(), test.reason) || refused.Next == "" {
				t.Errorf("got: %v\nwant: %s", err, test.reason)
			}
		})
	}
	whole := archive(t, module, file("data", strings.Repeat("x", 5000)))
	for name, test := range map[string]struct {
		stdin  []byte
		reason string
	}{
		"no archive":     {[]byte(strings.Repeat("{ pkgs, ... }: { }\n", 100)), "no good tar archive"},
		"nothing":        {nil, "standard input is empty"},
		"one byte":       {[]byte("x"), "no good tar archive"},
		"truncated":      {whole[:3000], "it ends too early"},
		"truncated gzip": {[]byte{0x1f, 0x8b, 8, 0}, "it ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, "-", bytes.NewReader(test.stdin))
			var refused *Refused
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An archive that is all headers, or a gzip bomb, comes to an end.
func TestReadIsBounded(t *testing.T) {
	endless := &endlessReader{block: archive(t, member{tar.Header{Name: "./", Typeflag: tar.TypeDir}, ""})[:512]}
	_, err := Read(context.Background(), Source{Path: "-", Stdin: endless, Caller: self(), Limits: Limits{Bytes: 1 << 20, Entries: 100}})
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
	if endless.read > 4<<20 {
		t.Errorf("%d bytes were read", endless.read)
	}
}

type endlessReader struct {
	block []byte
	read  int
}

func (e *endlessReader) Read(data []byte) (int, error) {
	for i := range data {
		data[i] = e.block[(e.read+i)%len(e.block)]
	}
	e.read += len(data)
	return len(data), nil
}

func write(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		nixtest.Write(t, filepath.Join(folder, name), content)
	}
}

func TestReadFolder(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, map[string]string{"provision.nix": "{ }", "sub/data": "1", "run.sh": "#!", ".git/config": "x", "sub/.git": "x"})
	if err := os.Chmod(filepath.Join(folder, "run.sh"), 0o4711); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/data", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{".": "folder", "provision.nix": "{ }", "sub": "folder", "sub/data": "1", "run.sh": "x #!", "empty": "folder", "link": "-> sub/data"}
	tree, err := read(t, folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contents(tree)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	t.Run("hash", func(t *testing.T) {
		now := time.Unix(1, 0)
		if err := os.Chtimes(filepath.Join(folder, "provision.nix"), now, now); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(folder, "provision.nix"), 0o600); err != nil {
			t.Fatal(err)
		}
		same, err := read(t, folder, nil)
		if err != nil || same.Hash() != tree.Hash() {
			t.Errorf("mtime or mode changed the hash: %v", err)
		}
		if err := os.Chmod(filepath.Join(folder, "provision.nix"), 0o700); err != nil {
			t.Fatal(err)
		}
		other, err := read(t, folder, nil)
		if err != nil || other.Hash() == tree.Hash() {
			t.Errorf("the executable bit did not change the hash: %v", err)
		}
	})
	t.Run("link out", func(t *testing.T) {
		if err := os.Symlink("/etc/hostname", filepath.Join(folder, "sub", "out")); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(folder, "sub", "out"))
		_, err := read(t, folder, nil)
		if err == nil || !strings.Contains(err.Error(), `"sub/out" is a link to "/etc/hostname", which is outside`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a pipe and a socket", func(t *testing.T) {
		pipe := filepath.Join(folder, "pipe")
		if err := syscall.Mkfifo(pipe, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, folder, nil); err == nil || !strings.Contains(err.Error(), `"pipe" is a device, socket or pipe`) {
			t.Errorf("pipe: %v", err)
		}
		if err := os.Remove(pipe); err != nil {
			t.Fatal(err)
		}
		t.Chdir(folder)
		listener, err := net.Listen("unix", "socket")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if _, err := read(t, folder, nil); err == nil || !strings.Contains(err.Error(), `"socket" is a device, socket or pipe`) {
			t.Errorf("socket: %v", err)
		}
	})
}

func TestReadFile(t *testing.T) {
	folder := t.TempDir()
	write(t, folder, map[string]string{"web.nix": "{ services.nginx.enable = true; }", "dir/provision.nix": "{ services.nginx.enable = true; }"})
	tree, err := read(t, filepath.Join(folder, "web.nix"), nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := read(t, filepath.Join(folder, "dir"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Hash() != whole.Hash() || tree.Module() != "provision.nix" {
		t.Errorf("a file is not what a folder with it as provision.nix is")
	}
	for name, path := range map[string]string{"missing": filepath.Join(folder, "none"), "a device": "/dev/null", "empty": "", "nul": "a\x00b"} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, path, nil)
			var refused *Refused
			var unreadable *Unreadable
			if !errors.As(err, &refused) && !errors.As(err, &unreadable) {
				t.Errorf("got %T: %v", err, err)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	target := filepath.Join(t.TempDir(), "provision")
	write(t, target, map[string]string{"old": "x"})
	tree, err := read(t, "-", bytes.NewReader(archive(t, file("provision.nix", "{ }"), member{tar.Header{Name: "a/run", Typeflag: tar.TypeReg, Mode: 0o6777}, "#!"}, link("a/l", "run"))))
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	if err := tree.Write(target); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(target, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(target, path)
		got[relative] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{".": "drwxr-xr-x", "a": "drwxr-xr-x", "a/run": "-rwxr-xr-x", "a/l": "Lrwxrwxrwx", "provision.nix": "-rw-r--r--"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
	again, err := read(t, target, nil)
	if err != nil || again.Hash() != tree.Hash() {
		t.Errorf("what was written reads differently: %v", err)
	}
	if module, err := Module(target); err != nil || module != "provision.nix" {
		t.Errorf("Module: %q, %v", module, err)
	}
	if left, err := filepath.Glob(target + "*"); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := tree.Write("/proc/none/provision"); err == nil {
		t.Error("writing to nowhere worked")
	}
}

// The hash is the one that Nix computes.
func TestHashAgreesWithNix(t *testing.T) {
	client := nixtest.Client(t)
	target := filepath.Join(t.TempDir(), "provision")
	tree, err := read(t, "-", bytes.NewReader(archive(t,
		file("provision.nix", "{ }"), file("a.nix", "1"), file("a/b", "2"), file("a-b", "3"), file("a0", "4"), file("B", "5"), file("ü", "6"),
		member{tar.Header{Name: "run", Typeflag: tar.TypeReg, Mode: 0o755}, "#!"}, link("l", "a/b"), member{tar.Header{Name: "empty", Typeflag: tar.TypeDir}, ""}, file("zero", ""),
	)))
	// "a" is a folder and "a.nix" a file: the order of the two is where naive
	// sorting goes wrong.
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Write(target); err != nil {
		t.Fatal(err)
	}
	path, err := client.AddPath(context.Background(), target, "provision")
	if err != nil {
		t.Fatal(err)
	}
	hash, err := client.NarHash(context.Background(), path)
	if err != nil || hash != tree.Hash() {
		t.Errorf("got %s, Nix has %s, %v", tree.Hash(), hash, err)
	}
}

// On behalf of somebody else, everything is read by processes with their
// rights.
func TestReadAsCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to act for somebody else")
	}
	nobody := nixtest.Nobody()
	as := func(path string) (*Tree, error) {
		return Read(context.Background(), Source{Path: path, Caller: nobody, Runner: execx.New()})
	}
	folder := nixtest.PublicDir(t)
	write(t, folder, map[string]string{"env/provision.nix": "{ }", "env/sub/x": "1", "env/.git/config": "x", "web.nix": "{ }", "-o/provision.nix": "{ }"})
	if err := os.Symlink("sub/x", folder+"/env/l"); err != nil {
		t.Fatal(err)
	}
	own, err := read(t, folder+"/env", nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := as(folder + "/env")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents(own), contents(theirs)); diff != "" || own.Hash() != theirs.Hash() {
		t.Errorf("the two ways differ (-self +caller):\n%s", diff)
	}
	if tree, err := as(folder + "/web.nix"); err != nil || tree.Module() != "provision.nix" {
		t.Errorf("a file: %v", err)
	}
	t.Run("relative and option-like", func(t *testing.T) {
		t.Chdir(folder)
		if _, err := as("-o"); err != nil {
			t.Errorf("got %v", err)
		}
	})
	for name, path := range map[string]string{"folder": folder + "/env", "file": folder + "/web.nix", "inner": folder + "/env"} {
		t.Run("forbidden "+name, func(t *testing.T) {
			locked := path
			if name == "inner" {
				locked = folder + "/env/sub/x"
			}
			info, err := os.Stat(locked)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(locked, 0o700); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(locked, info.Mode())
			_, err = as(path)
			var unreadable *Unreadable
			if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "Permission denied") {
				t.Errorf("nobody: %v", err)
			}
			if _, err := read(t, path, nil); err != nil {
				t.Errorf("control: root: %v", err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		_, err := as(folder + "/none")
		var unreadable *Unreadable
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		_, err := Read(context.Background(), Source{Path: folder + "/env", Caller: nobody, Runner: execx.New(), Limits: Limits{Bytes: 2, Entries: 100}})
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Errorf("got %T: %v", err, err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := Read(ctx, Source{Path: folder + "/env", Caller: nobody, Runner: execx.New()})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %T: %v", err, err)
		}
	})
}

func TestSecrets(t *testing.T) {
	tree := newTree(DefaultLimits)
	for name, content := range map[string]string{
		"key.pem":  "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n",
		"cert.pem": "-----BEGIN CERTIFICATE-----\n",
		"provision.nix": strings.Join([]string{
			`{`,
			`  services.x.password = "hunter2";`,
			`  services.x.passwordFile = "/run/secrets/x";`,
			`  users.users.a.hashedPassword = "$6$abc";`,
			`  users.users.a.password = "";`,
			`  a.token = "${config.x}";`,
			`  # password = "an example";`,
			`  environment.variables.AWS_SECRET_ACCESS_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY";`,
			`  a.apiKey = "abcdef";`,
			`  a.secret = config.x;`,
			`  a.passwordAuthentication = "no";`,
			`  a.users = { "db_password" = "x1"; };`,
			`}`,
		}, "\n"),
		"provision.sh": "export DB_PASSWORD=geheim\nPASSWORD=$1\nTOKEN=\"$(cat x)\"\necho password\n",
		"ci.yaml":      "token: ghp_" + strings.Repeat("a", 36) + "\n",
		"aws":          "AKIAIOSFODNN7EXAMPLE\n",
		"age":          "AGE-SECRET-KEY-1" + strings.Repeat("Q", 58) + "\n",
		"binary":       "\x00-----BEGIN RSA PRIVATE KEY-----\n",
	} {
		if err := tree.add(name, &entry{data: []byte(content)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, finding := range tree.Secrets() {
		got = append(got, finding.String())
	}
	want := []string{
		"age:1: a private key of age",
		"aws:1: an access key of AWS",
		"ci.yaml:1: an access token",
		"key.pem:1: a private key",
		"provision.nix:2: a password or token in clear text",
		"provision.nix:8: a secret key of AWS",
		"provision.nix:9: a password or token in clear text",
		"provision.nix:12: a password or token in clear text",
		"provision.sh:1: a password or token in clear text",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func FuzzReadArchive(f *testing.F) {
	f.Add(archive(f, file("provision.nix", "{ }"), link("l", "provision.nix")))
	f.Add(archive(f, file("provision.nix", "{ }"), link("a/l", "../../x")))
	f.Add(archive(f, file("../x", "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Read(context.Background(), Source{Path: "-", Stdin: bytes.NewReader(data), Caller: self(), Limits: Limits{Bytes: 1 << 16, Entries: 100}})
		if err != nil {
			return
		}
		parent := t.TempDir()
		if err := tree.Write(filepath.Join(parent, "provision")); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(parent)
		if err != nil || len(entries) != 1 {
			t.Fatalf("it wrote outside: %v, %v", entries, err)
		}
		again, err := Read(context.Background(), Source{Path: filepath.Join(parent, "provision"), Caller: self(), Limits: DefaultLimits})
		if err != nil || again.Hash() != tree.Hash() {
			t.Fatalf("what was written reads differently: %v", err)
		}
	})
}

func BenchmarkReadSmall(b *testing.B) {
	folder := b.TempDir()
	nixtest.Write(b, folder+"/provision.nix", "{ }")
	nixtest.Write(b, folder+"/provision.sh", "#!/bin/sh\n")
	for b.Loop() {
		if _, err := Read(context.Background(), Source{Path: folder, Caller: self()}); err != nil {
			b.Fatal(err)
		}
	}
}
