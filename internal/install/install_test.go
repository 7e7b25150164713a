package install

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/seed"
)

var update = flag.Bool("update", false, "write the golden files")

const system = "/nix/store/00000000000000000000000000000000-nixos-system-dev"

// newInstaller has folders of its own and a runner that expects nothing yet.
func newInstaller(t *testing.T, config Config) (*Installer, *execxtest.Fake, *bytes.Buffer) {
	t.Helper()
	folder := t.TempDir()
	runner := execxtest.New(t)
	console := &bytes.Buffer{}
	i := &Installer{
		Runner: runner, Config: config, Console: console,
		Root: filepath.Join(folder, "mnt"), SeedFolder: filepath.Join(folder, "seed"),
		Devices: filepath.Join(folder, "dev"), Blocks: filepath.Join(folder, "block"), Mounts: filepath.Join(folder, "mountinfo"),
		reporter: &seed.Reporter{Console: console},
		disk:     target{path: filepath.Join(folder, "dev", "vda")},
	}
	for _, path := range []string{i.Root, i.Devices, i.Blocks} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(i.Mounts, nil)
	for _, name := range []string{"vda", "vda1", "vda2"} {
		write(filepath.Join(i.Devices, name), make([]byte, 4096))
	}
	return i, runner, console
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"direct", `{"version":1,"system":"` + system + `","console":"ttyS0","stateVersion":""}`, ""},
		{"bootstrap", `{"version":1,"system":"","console":"hvc0","stateVersion":"26.05"}`, ""},
		{"another version", `{"version":2,"system":"","console":"hvc0","stateVersion":"26.05"}`, "its version is 2; this program reads version 1"},
		{"an unknown field", `{"version":1,"disk":"/dev/vda"}`, `unknown field "disk"`},
		{"no JSON", `version=1`, "says wrongly what the ISO holds"},
		{"a system elsewhere", `{"version":1,"system":"/nix/store/a/b","console":"hvc0"}`, "it is a path in /nix/store/"},
		{"a system that leaves the store", `{"version":1,"system":"/nix/store/..","console":"hvc0"}`, "it is a path in /nix/store/"},
		{"a console that is a path", `{"version":1,"system":"` + system + `","console":"/dev/ttyS0"}`, "it is a name such as ttyS0"},
		{"nothing to install", `{"version":1,"system":"","console":"hvc0","stateVersion":""}`, "there is no system, and no stateVersion"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadConfig(path)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// What sfdisk 2.38 prints of the layout.
const partitioned = `{
   "partitiontable": {
      "label":"gpt",
      "id":"EF451633-DC62-7946-8704-AF6D91576602",
      "device":"/dev/vda",
      "unit":"sectors",
      "firstlba":2048,
      "lastlba":4194270,
      "sectorsize":512,
      "partitions": [
         {"node":"/dev/vda1", "start":2048, "size":1048576, "type":"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "uuid":"E4C91BD4-B3F2-5E44-9D7C-08E1FDB4E2A8", "name":"devbox-boot"},
         {"node":"/dev/vda2", "start":1050624, "size":3141632, "type":"0FC63DAF-8483-4772-8E79-3D69D8477DE4", "uuid":"6B0E5B8C-BD0C-0C44-AE0D-2B7B8E8B7F2B", "name":"devbox-installing"}
      ]
   }
}`

func TestUnfinished(t *testing.T) {
	const size = 2048 * mebibyte
	tests := []struct {
		name, text string
		size       int64
		want       bool
	}{
		{"one that was begun", partitioned, size, true},
		{"one that was begun, by an sfdisk that does not tell the size of sectors", strings.Replace(partitioned, `"sectorsize":512,`, "", 1), size, true},
		{"a disk that has grown", partitioned, 2 * size, false},
		{"a complete one", strings.Replace(partitioned, partitionInstalling, partitionRoot, 1), size, false},
		{"somebody else's names", strings.Replace(partitioned, partitionBoot, "ESP", 1), size, false},
		{"another kind of table", strings.Replace(partitioned, "gpt", "dos", 1), size, false},
		{"another size of the first partition", strings.Replace(partitioned, "1048576", "1048575", 1), size, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, runner, _ := newInstaller(t, Config{})
			runner.Expect(`^sfdisk --json /`, test.text, nil)
			table, err := i.readTable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := table.unfinished(test.size); got != test.want {
				t.Errorf("unfinished: %v", got)
			}
		})
	}

	t.Run("no table", func(t *testing.T) {
		i, runner, _ := newInstaller(t, Config{})
		runner.Expect(`^sfdisk --json`, "", &execx.Error{ExitCode: 1, Tail: []string{"does not contain a recognized partition table"}})
		table, err := i.readTable(t.Context())
		if err != nil || table.unfinished(size) {
			t.Errorf("%v, %v", table, err)
		}
	})
	t.Run("no sfdisk", func(t *testing.T) {
		i, runner, _ := newInstaller(t, Config{})
		runner.Expect(`^sfdisk --json`, "", &execx.Error{Argv: []string{"sfdisk"}, ExitCode: -1, NotFound: true})
		if _, err := i.readTable(t.Context()); err == nil {
			t.Error("no error")
		}
	})
}

func TestPartitionNames(t *testing.T) {
	for disk, want := range map[string]string{"/dev/vda": "/dev/vda2", "/dev/nvme0n1": "/dev/nvme0n1p2", "/dev/sdb": "/dev/sdb2", "/dev/mmcblk0": "/dev/mmcblk0p2"} {
		if got := (&target{path: disk}).root(); got != want {
			t.Errorf("%s: %s, want %s", disk, got, want)
		}
	}
}

func TestHolds(t *testing.T) {
	const size = 16 * mebibyte
	tests := []struct {
		name string
		at   int64
		want string
	}{
		{"blank", -1, ""},
		{"its first byte", 0, "a file system"},
		{"where a super block is", 1 << 20, "a file system"},
		{"its last byte", size - 1, "a file system"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, runner, _ := newInstaller(t, Config{})
			i.disk.size = size
			file, err := os.OpenFile(i.disk.path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if err := file.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if test.at >= 0 {
				if _, err := file.WriteAt([]byte{1}, test.at); err != nil {
					t.Fatal(err)
				}
				runner.Expect(`^blkid --probe`, "TYPE=xfs\nLABEL=data\n", nil)
				runner.Expect(`^sfdisk --json`, "", &execx.Error{ExitCode: 1})
			}
			got, err := i.holds(t.Context())
			if err != nil || !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// commands are what was run, with the folders of the test by their names.
func commands(i *Installer, runner *execxtest.Fake) string {
	var text strings.Builder
	for _, call := range runner.Calls() {
		line := strings.ReplaceAll(execx.Quote(call.Argv()), "\n", "\\n")
		line = strings.NewReplacer(i.Root, "ROOT", i.SeedFolder, "SEED", i.Devices, "/dev").Replace(line)
		text.WriteString(line + "\n")
		if call.Stdin != nil {
			text.WriteString("    " + strings.ReplaceAll(strings.TrimSpace(layout()), "\n", "\n    ") + "\n")
		}
	}
	return text.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it):\n%s", path, diff)
	}
}

// Every program that is run, with its arguments.
func TestCommands(t *testing.T) {
	contents := seed.Contents{Settings: seed.Settings{
		Mode: seed.Direct, Disk: "/dev/vda", Login: "alice", HostName: "dev",
		Substituters: []string{"https://a.example.org", "https://b.example.org"}, TrustedPublicKeys: []string{"a.example.org-1:AAAA="},
	}}
	tests := []struct {
		name    string
		resumed bool
		do      func(*Installer, context.Context) (outcome, error)
		skipped bool
		expect  func(*execxtest.Fake)
	}{
		{name: "partition", do: (*Installer).partition, expect: func(f *execxtest.Fake) { f.Expect("sfdisk", "", nil) }},
		{name: "partition-again", resumed: true, do: (*Installer).partition, skipped: true, expect: func(*execxtest.Fake) {}},
		{name: "format", do: (*Installer).format, expect: func(f *execxtest.Fake) {
			f.Expect("^mkfs.vfat", "", nil)
			f.Expect("^mkfs.ext4", "", nil)
		}},
		{name: "format-again", resumed: true, do: (*Installer).format, skipped: true, expect: func(f *execxtest.Fake) {
			f.Expect("^mkfs.vfat", "", nil)
			f.Expect("^blkid", "DEVNAME=/dev/vda2\nLABEL=nixos\nTYPE=ext4\n", nil)
			f.Expect("^e2fsck", "", &execx.Error{ExitCode: 1})
		}},
		{name: "format-after-damage", resumed: true, do: (*Installer).format, expect: func(f *execxtest.Fake) {
			f.Expect("^mkfs.vfat", "", nil)
			f.Expect("^blkid", "LABEL=nixos\nTYPE=ext4\n", nil)
			f.Expect("^e2fsck", "", &execx.Error{ExitCode: 4})
			f.Expect("^mkfs.ext4", "", nil)
		}},
		{name: "format-cut-short", resumed: true, do: (*Installer).format, expect: func(f *execxtest.Fake) {
			f.Expect("^mkfs.vfat", "", nil)
			f.Expect("^blkid", "", &execx.Error{ExitCode: 2})
			f.Expect("^mkfs.ext4", "", nil)
		}},
		{name: "mount", do: (*Installer).mount, expect: func(f *execxtest.Fake) {
			f.Expect("^mount -t ext4", "", nil)
			f.Expect("--init$", "", nil)
			f.Expect("^mount -t vfat", "", nil)
		}},
		{name: "mount-with-a-damaged-store", do: (*Installer).mount, expect: func(f *execxtest.Fake) {
			f.Expect("^mount -t ext4", "", nil)
			f.Expect("--init$", "", &execx.Error{ExitCode: 1})
			f.Expect("--init$", "", nil)
			f.Expect("^mount -t vfat", "", nil)
		}},
		{name: "copy", do: (*Installer).copySystem, expect: func(f *execxtest.Fake) {
			f.Expect("^nix copy", "", nil)
			f.Expect("^nix-env", "", nil)
		}},
		{name: "boot", do: (*Installer).installBoot, expect: func(f *execxtest.Fake) {
			f.Expect("^mount --rbind", "", nil)
			f.Expect("^mount --rbind", "", nil)
			f.Expect("^unshare", "", nil)
			f.Expect("^umount", "", nil)
			f.Expect("^umount", "", nil)
		}},
		{name: "install", do: (*Installer).installBootstrap, expect: func(f *execxtest.Fake) { f.Expect("^nixos-install", "", nil) }},
		{name: "finish", do: (*Installer).finish, expect: func(f *execxtest.Fake) { f.Expect("^sfdisk --part-label", "", nil) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, runner, _ := newInstaller(t, Config{Version: 1, System: system, Console: "ttyS0"})
			i.contents, i.settings = contents, contents.Settings
			i.disk.resumed = test.resumed
			test.expect(runner)
			got, err := test.do(i, t.Context())
			if err != nil || got.skipped != test.skipped {
				t.Fatalf("skipped: %v, error: %v", got.skipped, err)
			}
			golden(t, "commands-"+test.name+".txt", commands(i, runner))
		})
	}
}

// Only the store survives a power cut.
func TestInitStoreKeepsTheStore(t *testing.T) {
	i, runner, _ := newInstaller(t, Config{})
	for _, name := range []string{"nix/store/a", "etc/passwd", "var/lib/b", "lost+found/c"} {
		path := filepath.Join(i.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []string {
		entries, err := os.ReadDir(i.Root)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}
	runner.Expect("--init$", "", nil)
	if err := i.initStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"lost+found", "nix"}, left()); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	runner.Expect("--init$", "", &execx.Error{ExitCode: 1})
	runner.Expect("--init$", "", nil)
	if err := i.initStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"lost+found"}, left()); diff != "" {
		t.Errorf("left of a damaged store (-want +got):\n%s", diff)
	}
}

func TestClosureSize(t *testing.T) {
	i, runner, _ := newInstaller(t, Config{System: system})
	paths := make([]string, 1500)
	for n := range paths {
		paths[n] = fmt.Sprintf("/nix/store/%032d-x", n)
	}
	runner.Expect(`--requisites`, strings.Join(paths, "\n")+"\n", nil)
	for range 2 {
		runner.ExpectFunc(`--size`, func(command execx.Command) (string, error) {
			return strings.Repeat("10\n", len(command.Args)-2), nil
		})
	}
	size, err := i.closureSize(t.Context())
	if err != nil || size != 15000 {
		t.Errorf("%d, %v", size, err)
	}
}

// A plain text, so that a wrong one is seen; scripts/check-nix evaluates it.
func TestConfiguration(t *testing.T) {
	contents := seed.Contents{
		Settings: seed.Settings{
			Login: "alice", HostName: "dev",
			Substituters: []string{"https://cache.example.org"}, TrustedPublicKeys: []string{"cache.example.org-1:0000000000000000000000000000000000000000000="},
		},
		AuthorizedKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo own", `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBar a "quoted" ${comment} \ of mine`},
		UserKey:        []byte("-----BEGIN OPENSSH PRIVATE KEY-----"),
	}
	got, err := renderConfiguration(contents, Config{Console: "ttyS0", StateVersion: "24.05"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got, "PRIVATE") {
		t.Error("the private key is in it")
	}
	golden(t, "configuration.nix", got)
}

func TestConfigureReplacesWhatIsGenerated(t *testing.T) {
	i, runner, _ := newInstaller(t, Config{Console: "hvc0", StateVersion: "26.05"})
	i.settings = seed.Settings{Login: "alice", HostName: "dev"}
	i.contents.Settings = i.settings
	path := filepath.Join(i.Root, "etc/nixos/configuration.nix")
	runner.ExpectFunc("^nixos-generate-config --root ", func(execx.Command) (string, error) {
		return "", errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("generated"), 0o644))
	})
	if _, err := i.configure(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `networking.hostName = "dev";`) {
		t.Errorf("%s, %v", text, err)
	}
}

func newKey(t *testing.T, passphrase string) []byte {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func TestKeys(t *testing.T) {
	passwd := fmt.Sprintf("root:x:0:0::/root:/bin/sh\nalice:x:%d:%d::/home/alice:/bin/sh\nodd:x:a:b::/home/odd:/bin/sh\n", os.Getuid(), os.Getgid())
	tests := []struct {
		name, login string
		key         []byte
		want        string
	}{
		{"no private key", "nobody-yet", nil, ""},
		{"a private key", "alice", newKey(t, ""), ""},
		{"one with a passphrase", "alice", newKey(t, "secret"), ""},
		{"something else", "alice", []byte("something else"), "is none that ssh reads"},
		{"a private key for nobody", "bob", newKey(t, ""), "has no user bob yet"},
		{"a strange account", "odd", newKey(t, ""), "/etc/passwd says of odd"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, _, console := newInstaller(t, Config{})
			i.settings = seed.Settings{Login: test.login, HostName: "dev"}
			i.contents = seed.Contents{AuthorizedKeys: []string{"ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"}, UserKey: test.key}
			if err := errors.Join(os.Mkdir(filepath.Join(i.Root, "etc"), 0o755), os.WriteFile(filepath.Join(i.Root, "etc/passwd"), []byte(passwd), 0o644)); err != nil {
				t.Fatal(err)
			}
			// A second run changes nothing.
			var hostKeys []byte
			for range 2 {
				_, err := i.installKeys(t.Context())
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want %q", err, test.want)
				}
				key, err := os.ReadFile(filepath.Join(i.Root, hostKeyFile))
				if err != nil || hostKeys != nil && !bytes.Equal(key, hostKeys) {
					t.Fatalf("the host key has changed, %v", err)
				}
				hostKeys = key
			}
			if test.want != "" {
				return
			}
			if strings.Contains(console.String(), "PRIVATE KEY") || !strings.Contains(console.String(), `"hostKey":"ssh-ed25519 `) {
				t.Errorf("console: %s", console)
			}
			want := map[string]string{
				"etc/ssh/ssh_host_ed25519_key":                   "-rw-------",
				"etc/ssh/ssh_host_ed25519_key.pub":               "-rw-r--r--",
				"var/lib/devbox/authorized_keys.d":               "drwxr-xr-x",
				"var/lib/devbox/authorized_keys.d/" + test.login: "-rw-r--r--",
			}
			if test.key != nil {
				want["home/alice/.ssh"] = "drwx------"
				want["home/alice/.ssh/id_ed25519"] = "-rw-------"
			}
			got := map[string]string{}
			for path := range want {
				if info, err := os.Stat(filepath.Join(i.Root, path)); err == nil {
					got[path] = info.Mode().String()
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("modes (-want +got):\n%s", diff)
			}
			keys, err := os.ReadFile(filepath.Join(i.Root, authorizedFolder, test.login))
			if err != nil || string(keys) != "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n" {
				t.Errorf("%q, %v", keys, err)
			}
		})
	}
}

// A link of the new system's must not lead out of it.
func TestKeysStayInside(t *testing.T) {
	i, _, _ := newInstaller(t, Config{})
	outside := t.TempDir()
	i.settings = seed.Settings{Login: "alice"}
	i.contents = seed.Contents{UserKey: newKey(t, "")}
	if err := errors.Join(
		os.Mkdir(filepath.Join(i.Root, "etc"), 0o755),
		os.WriteFile(filepath.Join(i.Root, "etc/passwd"), []byte("alice:x:1000:100::/home/alice:/bin/sh\n"), 0o644),
		os.Symlink(outside, filepath.Join(i.Root, "home")),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := i.installKeys(t.Context()); err == nil {
		t.Error("no error")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestExplain(t *testing.T) {
	full := &execx.Error{Argv: []string{"nix", "copy"}, ExitCode: 1, Tail: []string{"error: writing to file: No space left on device"}}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"a full disk, by a program", &step{"copying", full}, "copying ended with exit code 1\n  error: writing to file: No space left on device\nThe disk is full: raise devbox.vm.diskGB, and install again"},
		{"a full disk, by the kernel", fmt.Errorf("write: %w", syscall.ENOSPC), "write: no space left on device\nThe disk is full: raise devbox.vm.diskGB, and install again"},
		{"an interruption", &execx.Error{Argv: []string{"nix"}, ExitCode: -1, Cancelled: true}, "nix: was interrupted\nIt was interrupted; install again to go on with it"},
		{"another", errors.New("so it is"), "so it is"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := explain(test.err); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// run runs the whole installer, whose seed disk holds contents. mount stands in
// for the kernel.
func run(t *testing.T, config Config, contents *seed.Contents) (*Installer, []seed.Event, error) {
	t.Helper()
	i, runner, console := newInstaller(t, config)
	if contents != nil {
		image := filepath.Join(i.Devices, "vdb")
		if err := errors.Join(seed.Create(image, *contents), os.MkdirAll(filepath.Join(i.Blocks, "vdb"), 0o755)); err != nil {
			t.Fatal(err)
		}
		runner.ExpectFunc("^mount -t vfat .*vdb", func(execx.Command) (string, error) {
			text := fmt.Sprintf(`{"version":1,"mode":%q,"disk":%q,"login":%q}`, contents.Settings.Mode, contents.Settings.Disk, contents.Settings.Login)
			return "", os.WriteFile(filepath.Join(i.SeedFolder, seed.SettingsFile), []byte(text), 0o600)
		})
	}
	err := i.Run(t.Context())
	var events []seed.Event
	for line := range strings.Lines(console.String()) {
		if event, ok := seed.ParseConsole(strings.TrimSpace(line)); ok {
			events = append(events, event)
		}
	}
	return i, events, err
}

func TestRunReportsWhatIsWrong(t *testing.T) {
	settings := seed.Settings{Version: 1, Mode: seed.Direct, Disk: "/dev/does-not-exist", Login: "alice"}
	with := func(change func(*seed.Settings)) *seed.Contents {
		changed := settings
		change(&changed)
		return &seed.Contents{Settings: changed}
	}
	direct, bootstrap := Config{System: system}, Config{StateVersion: "26.05"}
	tests := []struct {
		name     string
		config   Config
		contents *seed.Contents
		phase    string
		want     string
	}{
		{"no seed disk", direct, nil, "seed", "there is no seed disk (a FAT file system with the label DEVBOX-SEED) on this machine, which has no disk at all"},
		{"no disk", direct, with(func(*seed.Settings) {}), "disk", "there is no disk /dev/does-not-exist; this machine has "},
		{"the ISO has no system", bootstrap, with(func(*seed.Settings) {}), "seed", "this ISO has no prebuilt system"},
		{"the ISO has a system", direct, with(func(s *seed.Settings) { s.Mode = seed.Bootstrap }), "seed", "this ISO is for direct"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, events, err := run(t, test.config, test.contents)
			if err == nil {
				t.Error("no error")
			}
			verdict := seed.Verdict(events)
			if verdict == nil || verdict.Verdict != seed.InstallFails || verdict.Phase != test.phase || !strings.Contains(verdict.Message, test.want) {
				t.Fatalf("verdict: %v, want %q", verdict, test.want)
			}
			if test.contents == nil {
				return
			}
			report, err := os.ReadFile(filepath.Join(i.SeedFolder, seed.ReportFile))
			if err != nil || !strings.Contains(string(report), `"verdict":"failed"`) {
				t.Errorf("the report on the seed disk: %s, %v", report, err)
			}
		})
	}
}

func TestPhaseNamesAreUnlike(t *testing.T) {
	for mode, config := range map[string]Config{seed.Direct: {System: system}, seed.Bootstrap: {}} {
		i := &Installer{Config: config, settings: seed.Settings{Mode: mode}}
		phases, err := i.phases()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, phase := range phases {
			if slices.Contains(names, phase.name) {
				t.Errorf("%s has two phases %s", mode, phase.name)
			}
			names = append(names, phase.name)
		}
	}
}
