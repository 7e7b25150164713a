package vm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"devhost/internal/seed"
)

// longest bounds one life of a machine. Emulation is slow, and a machine that
// other tests share is slower.
const longest = 12 * time.Minute

// installation is a disk and a seed, for a test.
type installation struct {
	t      *testing.T
	iso    *ISO
	folder string
	disk   string
	seed   string
}

// newInstallation has a blank disk of a size in MiB, none for 0.
func newInstallation(t *testing.T, size int64, contents seed.Contents) *installation {
	t.Helper()
	i := &installation{t: t, iso: sharedISO(t), folder: t.TempDir()}
	i.seed = filepath.Join(i.folder, "seed.img")
	if size > 0 {
		i.disk = filepath.Join(i.folder, "disk.img")
		if err := NewDisk(i.disk, size); err != nil {
			t.Fatal(err)
		}
	}
	i.plant(contents)
	return i
}

// plant makes the seed disk anew.
func (i *installation) plant(contents seed.Contents) {
	i.t.Helper()
	if err := seed.Create(i.seed, contents); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) run(machine Machine) string {
	i.t.Helper()
	machine.Folder = i.folder
	ctx, cancel := context.WithTimeout(i.t.Context(), longest)
	defer cancel()
	console, err := machine.Run(ctx)
	if err != nil {
		i.t.Fatalf("QEMU: %v\n%s", err, console)
	}
	return console
}

// install boots the ISO without firmware and returns what was reported and
// printed.
func (i *installation) install(words string) ([]seed.Event, string) {
	i.t.Helper()
	console := i.run(Machine{Disk: i.disk, Seed: i.seed, ISO: i.iso, Append: "test.wait=10s " + words})
	return i.report(), console
}

func (i *installation) report() []seed.Event {
	i.t.Helper()
	events, err := seed.ReadReport(i.seed)
	if err != nil {
		i.t.Fatal(err)
	}
	return events
}

// states are the last states of the phases of the last run.
func states(events []seed.Event) map[string]seed.State {
	found := map[string]seed.State{}
	for _, event := range events {
		if event.Kind != seed.PhaseEvent {
			continue
		}
		if event.Number == 1 && event.State == seed.Started {
			clear(found)
		}
		found[event.Phase] = event.State
	}
	return found
}

// verdict is the last one, with its message.
func verdict(events []seed.Event) string {
	found := seed.Verdict(events)
	if found == nil {
		return "none"
	}
	return strings.TrimSpace(found.Verdict + " " + found.Phase + ": " + found.Message)
}

func settings(mode string) seed.Settings {
	return seed.Settings{
		Mode: mode, Disk: "/dev/vda", Login: "alice", HostName: "dev",
		Substituters: []string{"https://cache.example.org"}, TrustedPublicKeys: []string{"cache.example.org-1:AAAA="},
	}
}

// newKey is a private key, and its public half as a line.
func newKey(t *testing.T) (private []byte, public string) {
	t.Helper()
	publicKey, privateKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(privateKey, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(publicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// A blank disk, the ISO by UEFI firmware, and then the disk alone.
func TestDirect(t *testing.T) {
	private, public := newKey(t)
	contents := seed.Contents{Settings: settings(seed.Direct), AuthorizedKeys: []string{public}, UserKey: private}
	i := newInstallation(t, 2048, contents)

	t.Run("nothing secret is in the ISO", func(t *testing.T) {
		secret := bytes.Split(private, []byte("\n"))[2]
		for path, want := range map[string]bool{i.seed: true, i.iso.Path: false} {
			if contains(t, path, secret) != want {
				t.Errorf("the private key is found in %s: %v, want %v", path, !want, want)
			}
		}
	})

	console := i.run(Machine{Disk: i.disk, Seed: i.seed, ISO: i.iso})
	events := i.report()
	if got := verdict(events); got != "installed :" {
		t.Fatalf("verdict: %s\n%s", got, console)
	}
	done := map[string]seed.State{}
	for _, phase := range []string{"disk", "partition", "format", "mount", "copy", "boot", "keys", "finish"} {
		done[phase] = seed.Done
	}
	if diff := cmp.Diff(done, states(events)); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	var printed []seed.Event
	for line := range strings.Lines(console) {
		if event, ok := seed.ParseConsole(strings.TrimSpace(line)); ok {
			printed = append(printed, event)
		}
	}
	if diff := cmp.Diff(events, printed); diff != "" {
		t.Errorf("the console and the seed disk differ (-seed +console):\n%s", diff)
	}
	if strings.Contains(console, "PRIVATE KEY") {
		t.Error("a private key is printed")
	}

	t.Run("the disk", func(t *testing.T) { i.inspect(t) })

	t.Run("it boots, and is as it must be", func(t *testing.T) {
		keys := seed.HostKeys(events)
		if len(keys) != 1 {
			t.Fatalf("host keys: %q", keys)
		}
		console := i.run(Machine{Disk: i.disk})
		for _, want := range []string{
			"test: started " + i.iso.System,
			"test: root /dev/vda2",
			"test: /var/lib/devbox/authorized_keys.d 0:0 755",
			"test: /var/lib/devbox/authorized_keys.d/alice 0:0 644",
			"test: /home/alice/.ssh 1000:100 700",
			"test: /home/alice/.ssh/id_ed25519 1000:100 600",
			"test: /etc/ssh/ssh_host_ed25519_key 0:0 600",
			"test: host key " + keys[0],
			"test: done",
		} {
			if !strings.Contains(console, want+"\r\n") {
				t.Errorf("the installed system does not say %q", want)
			}
		}
		if t.Failed() {
			t.Log(console)
		}
	})

	t.Run("it is not installed over", func(t *testing.T) {
		before := sum(t, i.disk)
		i.plant(contents)
		events, console := i.install("")
		if got := verdict(events); !strings.HasPrefix(got, "failed disk: the disk /dev/vda holds data: a partition table (gpt) with 2 partitions (devbox-boot, devbox-root); nothing was changed") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
		if sum(t, i.disk) != before {
			t.Error("the disk was changed")
		}
	})

	t.Run("it is when that is said", func(t *testing.T) {
		contents.Settings.Overwrite = true
		i.plant(contents)
		events, console := i.install("")
		if got := verdict(events); got != "installed :" || states(events)["format"] != seed.Done {
			t.Errorf("verdict: %s, format: %s\n%s", got, states(events)["format"], console)
		}
	})
}

// inspect looks at the disk from the host, with the host's own programs.
func (i *installation) inspect(t *testing.T) {
	run := func(name string, arguments ...string) string {
		t.Helper()
		output, err := exec.Command(name, arguments...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, arguments, err, output)
		}
		return string(output)
	}
	table := run("sfdisk", "--dump", i.disk)
	for _, want := range []string{
		"label: gpt\n",
		`size=     1048576, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B`, `name="devbox-boot"`,
		"type=0FC63DAF-8483-4772-8E79-3D69D8477DE4", `name="devbox-root"`,
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the partition table lacks %q:\n%s", want, table)
		}
	}
	const start, sector = 2048, 512
	boot := fmt.Sprintf("%s@@%d", i.disk, start*sector)
	if label := run("mlabel", "-s", "-i", boot, "::"); !strings.Contains(label, "boot") {
		t.Errorf("the label of the first partition: %s", label)
	}
	run("mdir", "-i", boot, "::/EFI/BOOT/BOOTX64.EFI")

	rootStart := start*sector + 512<<20
	if found := run("blkid", "--probe", "--offset", fmt.Sprint(rootStart), "--output", "export", i.disk); !strings.Contains(found, "LABEL=nixos\n") || !strings.Contains(found, "TYPE=ext4\n") {
		t.Errorf("the second partition: %s", found)
	}
	mounted := filepath.Join(i.folder, "root")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	run("mount", "-o", fmt.Sprintf("loop,ro,offset=%d", rootStart), i.disk, mounted)
	defer run("umount", mounted)
	target, err := os.Readlink(filepath.Join(mounted, "nix/var/nix/profiles/system"))
	if err != nil {
		t.Fatal(err)
	}
	if target, err = os.Readlink(filepath.Join(mounted, "nix/var/nix/profiles", target)); err != nil || target != i.iso.System {
		t.Errorf("the system's profile: %s, %v", target, err)
	}
	// What Nix on the new system knows, from a copy: a data base is written to when
	// it is read.
	store := filepath.Join(i.folder, "store")
	if err := os.MkdirAll(filepath.Join(store, "nix"), 0o755); err != nil {
		t.Fatal(err)
	}
	run("cp", "-a", filepath.Join(mounted, "nix/var"), filepath.Join(mounted, "nix/store"), filepath.Join(store, "nix"))
	defer run("chmod", "-R", "u+w", store)
	want := strings.Fields(run("nix-store", "--query", "--requisites", i.iso.System))
	if len(want) < 3 {
		t.Fatalf("the system refers to too little: %q", want)
	}
	got := strings.Fields(run("nix-store", "--store", store, "--query", "--requisites", i.iso.System))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is registered (-want +got):\n%s", diff)
	}
	run("nix-store", "--store", store, "--verify-path", i.iso.System, want[0], want[1])
}

func contains(t *testing.T, path string, text []byte) bool {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, text)
}

func sum(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}
