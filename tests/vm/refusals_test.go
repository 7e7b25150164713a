package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"devhost/internal/seed"
)

// What the installer refuses, it says on the seed disk, and changes nothing.
func TestRefusals(t *testing.T) {
	contents := seed.Contents{Settings: settings(seed.Direct)}

	t.Run("a disk that holds data", func(t *testing.T) {
		i := newInstallation(t, 2048, contents)
		const words = "somebody's data, of no kind that is known"
		disk, err := os.OpenFile(i.disk, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := disk.WriteAt([]byte(words), 1<<20); err != nil {
			t.Fatal(err)
		}
		disk.Close()
		before := sum(t, i.disk)
		events, console := i.install("")
		if got := verdict(events); !strings.HasPrefix(got, "failed disk: the disk /dev/vda holds data: something that is no file system known here; nothing was changed") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
		if sum(t, i.disk) != before {
			t.Error("the disk was changed")
		}
	})

	t.Run("a disk that is too small", func(t *testing.T) {
		i := newInstallation(t, 600, contents)
		events, console := i.install("")
		got := verdict(events)
		if !strings.HasPrefix(got, "failed disk: the disk /dev/vda is too small: it has 600MiB, and the system needs about 1.") || !strings.HasSuffix(got, "set devbox.vm.diskGB to 2 or more") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
	})

	t.Run("no disk", func(t *testing.T) {
		other := contents
		other.Settings.Disk = "/dev/vdz"
		i := newInstallation(t, 64, other)
		events, console := i.install("")
		if got := verdict(events); !strings.HasPrefix(got, "failed disk: there is no disk /dev/vdz; this machine has /dev/sr0") || !strings.Contains(got, "/dev/vda (64MiB), /dev/vdb (16MiB); set devbox.install.disk to one of them") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
	})

	for _, used := range []string{"/dev/vdb", "/dev/sr0"} {
		t.Run("the installer's own "+strings.TrimPrefix(used, "/dev/"), func(t *testing.T) {
			other := contents
			other.Settings.Disk, other.Settings.Overwrite = used, true
			i := newInstallation(t, 64, other)
			events, console := i.install("")
			if got := verdict(events); !strings.HasPrefix(got, "failed disk: the disk "+used+" is in use by this installer itself; this machine has ") {
				t.Errorf("verdict: %s\n%s", got, console)
			}
		})
	}

	t.Run("the mode of another ISO", func(t *testing.T) {
		i := newInstallation(t, 64, contents)
		events, console := i.install("test.config=bootstrap")
		if got := verdict(events); !strings.HasPrefix(got, "failed seed: the seed disk says direct, and this ISO has no prebuilt system") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
	})

	t.Run("no seed disk", func(t *testing.T) {
		i := newInstallation(t, 64, contents)
		console := i.run(Machine{Disk: i.disk, ISO: i.iso, Append: "test.wait=1s"})
		var events []seed.Event
		for line := range strings.Lines(console) {
			if event, ok := seed.ParseConsole(line); ok {
				events = append(events, event)
			}
		}
		if got := verdict(events); !strings.HasPrefix(got, "failed seed: there is no seed disk (a FAT file system with the label DEVBOX-SEED) on this machine, which has /dev/sr0") {
			t.Errorf("verdict: %s\n%s", got, console)
		}
		if !strings.Contains(console, "devbox-auto-install ended with 1") {
			t.Error("its exit code is not 1")
		}
	})
}

// cutShort is an installation after three power cuts. On a busy machine a cut can
// come when the installer is done; then all begins anew.
func cutShort(t *testing.T) *installation {
	t.Helper()
	reached := func(phase string, state seed.State) func(string) bool {
		return func(line string) bool {
			event, ok := seed.ParseConsole(line)
			return ok && event.Phase == phase && event.State == state
		}
	}
	cuts := []struct {
		phase string
		state seed.State
	}{{"format", seed.Started}, {"copy", seed.Started}, {"boot", seed.Done}}
	const attempts = 5
next:
	for range attempts {
		i := newInstallation(t, 2048, seed.Contents{Settings: settings(seed.Direct)})
		for _, cut := range cuts {
			console := i.run(Machine{Disk: i.disk, Seed: i.seed, ISO: i.iso, Append: "test.wait=10s", Line: reached(cut.phase, cut.state)})
			found := seed.Verdict(i.report())
			if found != nil && found.Verdict == seed.Installed {
				t.Logf("the installer was done before the cut at %s, %s", cut.phase, cut.state)
				continue next
			}
			if found != nil {
				t.Fatalf("the installer ended before %s is %s: %v\n%s", cut.phase, cut.state, found, console)
			}
		}
		return i
	}
	t.Fatalf("none of %d installations was cut short", attempts)
	return nil
}

// The power fails in the middle of an installation, three times.
func TestResume(t *testing.T) {
	i := cutShort(t)
	events, console := i.install("")
	if got := verdict(events); got != "installed :" {
		t.Fatalf("verdict: %s\n%s", got, console)
	}
	got := fmt.Sprint(states(events))
	if want := "map[boot:done copy:done disk:done finish:done format:skipped keys:done mount:done partition:skipped]"; got != want {
		t.Errorf("phases: %s, want %s\n%s", got, want, console)
	}
	console = i.run(Machine{Disk: i.disk})
	if !strings.Contains(console, "test: done\r\n") {
		t.Errorf("the disk does not boot:\n%s", console)
	}
}

// nixos-install and nixos-generate-config are stand-ins here that record how
// they are called.
func TestBootstrap(t *testing.T) {
	private, public := newKey(t)
	contents := seed.Contents{Settings: settings(seed.Bootstrap), AuthorizedKeys: []string{public}, UserKey: private}
	contents.Settings.Disk = "/dev/disk/by-id/virtio-test"
	// Its size is checked as for a real one; it takes no space.
	i := newInstallation(t, 8192, contents)

	events, console := i.install("test.config=bootstrap test.fill")
	if got := verdict(events); !strings.HasPrefix(got, "failed install: ") || !strings.HasSuffix(got, "The disk is full: raise devbox.vm.diskGB, and install again") {
		t.Fatalf("verdict: %s\n%s", got, console)
	}
	// A larger disk, as devbox.vm.diskGB says then.
	if err := os.Truncate(i.disk, 9<<30); err != nil {
		t.Fatal(err)
	}
	contents.Settings.Overwrite = true
	i.plant(contents)
	events, console = i.install("test.config=bootstrap")
	if got := verdict(events); got != "installed :" || states(events)["partition"] != seed.Done {
		t.Fatalf("verdict: %s, partition: %s\n%s", got, states(events)["partition"], console)
	}
	for _, want := range []string{
		"test: nixos-install --root /mnt --no-root-passwd --option sync-before-registering true --option extra-substituters https://cache.example.org --option extra-trusted-public-keys cache.example.org-1:AAAA=\r\n",
		`test: configuration:   networking.hostName = "dev";`,
		"test: configuration:       \"" + public + "\"\r\n",
	} {
		if !strings.Contains(console, want) {
			t.Errorf("the console lacks %q:\n%s", want, console)
		}
	}
	if strings.Contains(console, "PRIVATE KEY") {
		t.Error("the private key is printed")
	}
}
