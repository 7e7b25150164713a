package devbox

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/hypervisor"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckName(t *testing.T) {
	tests := []struct {
		name string
		want string
	}{
		{"my-devbox", ""}, {"Box_1.local", ""}, {"7", ""},
		{"", "it is empty"},
		{"-x", "it starts with '-'"},
		{"..", "it starts with '.'"},
		{"a/b", "it has the character '/'"},
		{"a b", "it has the character ' '"},
		{strings.Repeat("a", 64), "it has 64 characters"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := CheckName(test.name)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestParseReference(t *testing.T) {
	top := t.TempDir()
	write(t, filepath.Join(top, "repo/.git/HEAD"), "")
	write(t, filepath.Join(top, "repo/flake.nix"), "{}")
	write(t, filepath.Join(top, "repo/below/x"), "")
	write(t, filepath.Join(top, "none/x"), "")
	t.Chdir(filepath.Join(top, "repo"))
	tests := []struct {
		text string
		want Reference
		fail string
	}{
		{"#box", Reference{filepath.Join(top, "repo"), filepath.Join(top, "repo"), "box"}, ""},
		{".#box", Reference{filepath.Join(top, "repo"), filepath.Join(top, "repo"), "box"}, ""},
		{"./below#box", Reference{filepath.Join(top, "repo/below"), filepath.Join(top, "repo/below"), "box"}, ""},
		{"path:.#box", Reference{"path:" + filepath.Join(top, "repo"), filepath.Join(top, "repo"), "box"}, ""},
		{"github:example/flake#box", Reference{"github:example/flake", "", "box"}, ""},
		{"box", Reference{}, "there is no # in it"},
		{".#", Reference{}, "there is no host behind the #"},
		{".#a/b", Reference{}, "it has the character '/'"},
		{"--option#box", Reference{}, "it starts with a hyphen"},
		{"../none#box", Reference{}, "there is no flake.nix in " + filepath.Join(top, "none")},
		{"./missing#box", Reference{}, "there is no folder"},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			got, err := ParseReference(test.text)
			if test.fail != "" {
				var bad *BadReference
				if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.fail) {
					t.Errorf("error: %v", err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestSourceOf(t *testing.T) {
	top := t.TempDir()
	write(t, filepath.Join(top, "repo/.git/HEAD"), "")
	write(t, filepath.Join(top, "repo/sub/flake.nix"), "{}")
	write(t, filepath.Join(top, "repo/sub/hosts/x"), "")
	write(t, filepath.Join(top, "alone/flake.nix"), "{}")
	tests := []struct{ folder, top, below string }{
		{"repo/sub", "repo", "sub"},
		{"repo/sub/hosts", "repo", "sub"},
		{"alone", "alone", ""},
	}
	for _, test := range tests {
		t.Run(test.folder, func(t *testing.T) {
			gotTop, below := sourceOf(filepath.Join(top, test.folder))
			if gotTop != filepath.Join(top, test.top) || below != test.below {
				t.Errorf("%s, %s", gotTop, below)
			}
		})
	}
}

func TestPackSource(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "flake.nix"), "{}")
	write(t, filepath.Join(folder, "modules/a.nix"), "a")
	write(t, filepath.Join(folder, ".git/config"), "secret")
	write(t, filepath.Join(folder, "vendor/.git"), "gitdir: elsewhere")
	write(t, filepath.Join(folder, "results/kept"), "r")
	for link, target := range map[string]string{"result": "/nix/store/x", "result-doc": "/nix/store/y", "link": "flake.nix"} {
		if err := os.Symlink(target, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(folder, "modules/a.nix"), 0o444); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := packSource(&packed, folder); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for archive := tar.NewReader(&packed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Mode&0o200 == 0 && header.Typeflag != tar.TypeSymlink {
			t.Errorf("%s cannot be replaced: mode %o", header.Name, header.Mode)
		}
		got[header.Name] = string(data) + header.Linkname
	}
	want := map[string]string{"flake.nix": "{}", "link": "flake.nix", "modules/": "", "modules/a.nix": "a", "results/": "", "results/kept": "r", "vendor/": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

func TestISO(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "built/iso/nixos.iso"), "")
	write(t, filepath.Join(folder, "two/a.iso"), "")
	write(t, filepath.Join(folder, "two/b.iso"), "")
	tests := []struct{ path, want, fail string }{
		{"built", "built/iso/nixos.iso", ""},
		{"built/iso", "built/iso/nixos.iso", ""},
		{"two/a.iso", "two/a.iso", ""},
		{"two", "", "it holds several"},
		{"none", "", "there is no such file"},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			got, err := ISO(filepath.Join(folder, test.path))
			if test.fail != "" {
				if err == nil || !strings.Contains(err.Error(), test.fail) {
					t.Errorf("error: %v", err)
				}
				return
			}
			if err != nil || got != filepath.Join(folder, test.want) {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

func TestSSHArguments(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	state := filepath.Join(t.TempDir(), "a b")
	manager := &Manager{Layout: Layout{State: state}}
	endpoint := hypervisor.Endpoint{Address: "127.0.0.1", Port: 22001}
	got := strings.Join(manager.SSHArguments("box", "ada", endpoint), " ")
	want := `-F none -o User=ada -o Port=22001 -o HostKeyAlias=box -o UserKnownHostsFile="` + state + `/vms/box/ssh/known_hosts" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=accept-new -o UpdateHostKeys=no 127.0.0.1`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := manager.ownKey("box"); err != nil {
		t.Fatal(err)
	}
	keys := []string{"nonsense", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmxVNLDMAXXpYWzFkm9T4hLm9Yk0b8mUuFtUhPz4o3A root@box", "* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmxVNLDMAXXpYWzFkm9T4hLm9Yk0b8mUuFtUhPz4o3A"}
	if err := manager.pin("box", keys); err != nil {
		t.Fatal(err)
	}
	if known, _ := os.ReadFile(manager.KnownHosts("box")); string(known) != "box ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmxVNLDMAXXpYWzFkm9T4hLm9Yk0b8mUuFtUhPz4o3A\n" {
		t.Errorf("known_hosts: %s", known)
	}
	got = strings.Join(manager.SSHArguments("box", "ada", endpoint), " ")
	if !strings.Contains(got, "StrictHostKeyChecking=yes") || !strings.Contains(got, `IdentityFile="`+state+`/vms/box/ssh/id_ed25519"`) {
		t.Errorf("pinned: %s", got)
	}
	config := manager.SSHConfig("box", "ada", endpoint)
	if !strings.HasPrefix(config, "Host box\n  HostName 127.0.0.1\n  User ada\n  Port 22001\n  HostKeyAlias box\n") {
		t.Errorf("config: %s", config)
	}
}

func TestOwnKeyIsKept(t *testing.T) {
	layout := Layout{State: t.TempDir()}
	one, err := layout.ownKey("box")
	if err != nil {
		t.Fatal(err)
	}
	two, err := layout.ownKey("box")
	if err != nil || one != two {
		t.Errorf("%s, %s, %v", one, two, err)
	}
	if info, err := os.Stat(layout.Identity("box")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAppliedQuotes(t *testing.T) {
	if got, want := applied("f", `a"${b}\`), `(f) "a\"\${b}\\"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLostRecord(t *testing.T) {
	l := Layout{State: t.TempDir()}
	tests := []struct {
		name  string
		files []string
		lost  bool
	}{
		{"no folder", nil, false},
		{"a create that was killed", []string{"incomplete", "disk.qcow2"}, false},
		{"a record that was lost", []string{"disk.qcow2"}, true},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			vm := fmt.Sprint("box", i)
			for _, file := range test.files {
				write(t, filepath.Join(l.Folder(vm), file), "")
			}
			_, err := l.Load(vm)
			var broken *Broken
			var unknown *Unknown
			if errors.As(err, &broken) != test.lost || errors.As(err, &unknown) == test.lost {
				t.Errorf("error: %v", err)
			}
			if slices.Contains(l.Names(), vm) != test.lost {
				t.Errorf("names: %v", l.Names())
			}
		})
	}
}

func TestRecordCheck(t *testing.T) {
	tests := []struct{ record, want string }{
		{`{"version":1,"name":"box","hypervisor":"qemu","sshPort":2222,"login":"ada"}`, ""},
		{`{"version":2,"name":"box"}`, "it has version 2"},
		{`{"version":1,"name":"bx"}`, `it names VM "bx"`},
		{`{"version":1,"name":"box","sshPort":-5}`, "its sshPort is -5"},
		{`{"version":1,"name":"box","login":"a\nProxyCommand b"}`, "its login is"},
		{`[]`, "cannot unmarshal"}, {``, "unexpected end"}, {`null`, "it has version 0"},
	}
	l := Layout{State: t.TempDir()}
	for _, test := range tests {
		t.Run(test.record, func(t *testing.T) {
			write(t, l.Record("box"), test.record)
			_, err := l.Load("box")
			var broken *Broken
			if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &broken) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	var got answer
	for range 100 {
		_, _ = got.Write(bytes.Repeat([]byte("endless"), 1000))
	}
	if len(got.kept) > 8<<10 {
		t.Errorf("%d bytes kept", len(got.kept))
	}
	_, _ = io.WriteString(&got, "\nwarning\n/nix/store/x\x1b[2J\r\n")
	if line := got.lastLine(); line != "/nix/store/x" {
		t.Errorf("%q", line)
	}
}

func TestInStore(t *testing.T) {
	image := filepath.Join(t.TempDir(), "nixos.iso")
	if err := os.Symlink("/etc/hostname", image); err != nil {
		t.Fatal(err)
	}
	var bad *NoISO
	if got, err := inStore(image); !errors.As(err, &bad) {
		t.Errorf("%s, %v", got, err)
	}
}
