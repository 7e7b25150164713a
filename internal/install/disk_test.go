package install

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/seed"
)

// What real programs put on a disk is found and named, also what is left of it
// when the start of the disk is wiped.
func TestHoldsWhatProgramsMake(t *testing.T) {
	const (
		size = 512 * mebibyte
		// A partition at the first mebibyte.
		gpt = `printf 'label: gpt\nsize=400MiB, name="home"\n' | sfdisk -q "$1"`
		dos = `printf 'label: dos\nsize=400MiB\n' | sfdisk -q "$1"`
		// The rest of the disk stays as it is.
		inPartition = ` && mkfs.ext4 -q -F -L home -E offset=1048576 "$1" 400M 2>/dev/null`
		wipe        = ` && dd if=/dev/zero of="$1" bs=1M conv=notrunc status=none count=`
	)
	tests := []struct {
		name, make, want string
	}{
		{"nothing", `:`, ""},
		{"ext4", `mkfs.ext4 -q -F -L home "$1"`, `a file system (ext4, label "home")`},
		{"xfs", `mkfs.xfs -q -L home "$1"`, `a file system (xfs, label "home")`},
		{"btrfs without a partition", `mkfs.btrfs -q -L home "$1"`, `a file system (btrfs, label "home")`},
		{"swap", `mkswap -q -L home "$1"`, `a file system (swap, label "home")`},
		{"LUKS", `printf 'LUKS\272\276\0\001' | dd of="$1" conv=notrunc status=none`, ""},
		{"a table without partitions", `printf 'label: gpt\n' | sfdisk -q "$1"`, "a partition table (gpt)"},
		{"a table of MBR", dos, "a partition table (dos) with 1 partitions"},
		{"a table of GPT", gpt, "a partition table (gpt) with 1 partitions (home)"},
		{"a table of GPT whose first copy is damaged", gpt + ` && dd if=/dev/zero of="$1" bs=512 seek=1 count=1 conv=notrunc status=none`, "a partition table (gpt) with 1 partitions (home)"},
		{"a file system behind a table that is gone", dos + inPartition + wipe + "1", ""},
		{"ext4 whose start is gone", dos + inPartition + wipe + "8", ""},
		{"btrfs whose start is gone", `mkfs.btrfs -q "$1"` + wipe + "8", ""},
		{"data in its middle", `dd if=/dev/urandom of="$1" bs=1M seek=200 count=2 conv=notrunc status=none`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, _, _ := newInstaller(t, Config{})
			i.Runner = execx.New()
			i.disk.size = size
			if err := os.Truncate(i.disk.path, size); err != nil {
				t.Fatal(err)
			}
			program, _, _ := strings.Cut(test.make, " ")
			for _, needed := range []string{program, "sfdisk", "blkid", "mkfs.ext4"} {
				if _, err := exec.LookPath(needed); err != nil && needed != ":" {
					t.Skip("makes and names the data: ", err)
				}
			}
			if err := i.Runner.Run(t.Context(), execx.Command{Name: "sh", Args: []string{"-c", test.make, "sh", i.disk.path}}); err != nil {
				t.Fatal(err)
			}
			got, err := i.holds(t.Context())
			if err != nil || (got == "") != (test.name == "nothing") || test.want != "" && got != test.want {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestIsDisk(t *testing.T) {
	tests := []struct {
		name, file, text, want string
	}{
		{"a disk", "ro", "0\n", ""},
		{"one that nothing is known of", "size", "8\n", ""},
		{"a partition", "partition", "1\n", "vda is a partition; this machine has "},
		{"a disk that is read-only", "ro", "1\n", "vda is read-only; attach it so that it can be written to"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, _, _ := newInstaller(t, Config{})
			folder := filepath.Join(i.Blocks, "vda")
			if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, test.file), []byte(test.text), 0o644)); err != nil {
				t.Fatal(err)
			}
			err := i.isDisk(i.disk.path)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A character device would be read for ever, and never be installed to.
func TestOnlyBlockDevicesAreDisks(t *testing.T) {
	i, _, _ := newInstaller(t, Config{System: system})
	i.settings = seed.Settings{Disk: "/dev/zero"}
	if _, err := i.chooseDisk(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no disk /dev/zero; this machine has ") {
		t.Errorf("error %v", err)
	}
}
