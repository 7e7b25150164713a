package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/go-units"
	"github.com/moby/sys/mountinfo"

	"devhost/internal/execx"
)

const (
	mebibyte = int64(1) << 20

	// bootSize is that of the EFI system partition.
	bootSize = 512 * mebibyte
	// slack is what a system needs besides its closure: the journal of ext4,
	// its reserve for root and what the system writes when it runs.
	slack = 512 * mebibyte
	// bootstrapSize is what a system that is made here needs, by experience.
	bootstrapSize = 6 << 10 * mebibyte

	// bootLabel and rootLabel are the labels of the file systems.
	bootLabel, rootLabel = "boot", "nixos"

	// The names of the partitions. The second one has partitionInstalling until
	// the installation is complete: a disk with that is gone on with, one with
	// another holds data.
	partitionBoot       = "devbox-boot"
	partitionInstalling = "devbox-installing"
	partitionRoot       = "devbox-root"

	// The kinds of partition, by the UEFI specification and the Discoverable
	// Partitions Specification.
	kindESP   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	kindLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

	// blank is how much of the start and the end of a disk must be zeros where it
	// holds nothing. Partition tables and the first blocks of every file system,
	// volume and array lie there.
	blank = 4 * mebibyte
	// samples is at how many places between them a disk is looked at, of
	// sampleSize bytes: the start of a disk may have been wiped, and what is on it
	// still be of use.
	samples    = 1024
	sampleSize = 64 << 10
	// rootSlack is by how much less than a disk's end the last partition may end.
	rootSlack = 8 * mebibyte
)

// target is the disk that is installed to.
type target struct {
	// path is the device, with no link in it.
	path string
	size int64
	// resumed says that an earlier run has partitioned it.
	resumed bool
}

// partition is the device of a partition, which counts from 1: /dev/vda1, and
// /dev/nvme0n1p1 behind a digit.
func (d *target) partition(number int) string {
	separator := ""
	if last := d.path[len(d.path)-1]; last >= '0' && last <= '9' {
		separator = "p"
	}
	return fmt.Sprintf("%s%s%d", d.path, separator, number)
}

func (d *target) boot() string { return d.partition(1) }
func (d *target) root() string { return d.partition(2) }

// copies are where btrfs and ext4 have the second super block, on a whole disk
// and in a partition that starts at the first mebibyte.
var copies = []int64{64 * mebibyte, 65 * mebibyte, 128 * mebibyte, 129 * mebibyte}

// chooseDisk waits for the disk, and refuses one that is too small, in use, or
// that holds data.
func (i *Installer) chooseDisk(ctx context.Context) (outcome, error) {
	ok, err := i.waitFor(ctx, func() (bool, error) {
		info, err := os.Stat(i.settings.Disk)
		return err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice, nil
	})
	switch {
	case err != nil:
		return outcome{}, err
	case !ok:
		return outcome{}, fmt.Errorf("there is no disk %s; this machine has %s; set devbox.install.disk to one of them", i.settings.Disk, i.describeDisks())
	}
	path, err := filepath.EvalSymlinks(i.settings.Disk)
	if err != nil {
		return outcome{}, err
	}
	i.disk = target{path: path}
	if err := i.notInUse(path); err != nil {
		return outcome{}, err
	}
	if err := i.isDisk(path); err != nil {
		return outcome{}, err
	}
	if i.disk.size, err = sizeOf(path); err != nil {
		return outcome{}, err
	}
	need, err := i.needed(ctx)
	if err != nil {
		return outcome{}, err
	}
	if i.disk.size < need {
		return outcome{}, fmt.Errorf("the disk %s is too small: it has %s, and the system needs about %s; set devbox.vm.diskGB to %d or more",
			path, bytesText(i.disk.size), bytesText(need), (need+units.GiB-1)/units.GiB)
	}
	table, err := i.readTable(ctx)
	if err != nil {
		return outcome{}, err
	}
	if i.disk.resumed = table.unfinished(i.disk.size); i.disk.resumed {
		return outcome{message: "an installation was begun on " + path + "; going on with it"}, nil
	}
	holds, err := i.holds(ctx)
	if err != nil {
		return outcome{}, err
	}
	if holds != "" && !i.settings.Overwrite {
		return outcome{}, fmt.Errorf("the disk %s holds data: %s; nothing was changed; install on a new disk (devbox-cli rm, then init)", path, holds)
	}
	if holds != "" {
		return outcome{message: fmt.Sprintf("%s (%s) is overwritten; it holds %s", path, bytesText(i.disk.size), holds)}, nil
	}
	return outcome{message: fmt.Sprintf("%s (%s) is blank", path, bytesText(i.disk.size))}, nil
}

// isDisk refuses a partition and a disk that cannot be written to.
func (i *Installer) isDisk(path string) error {
	folder := filepath.Join(i.Blocks, filepath.Base(path))
	if _, err := os.Stat(filepath.Join(folder, "partition")); err == nil {
		return fmt.Errorf("%s is a partition; this machine has %s; set devbox.install.disk to one of them", path, i.describeDisks())
	}
	if readOnly, err := os.ReadFile(filepath.Join(folder, "ro")); err == nil && strings.TrimSpace(string(readOnly)) == "1" {
		return fmt.Errorf("the disk %s is read-only; attach it so that it can be written to, or set devbox.install.disk to another one; this machine has %s", path, i.describeDisks())
	}
	return nil
}

// notInUse refuses a disk that the kernel uses, such as the ISO's own.
func (i *Installer) notInUse(path string) error {
	device, err := os.OpenFile(path, os.O_RDONLY|syscall.O_EXCL, 0)
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("the disk %s is in use by this installer itself; this machine has %s; set devbox.install.disk to another one of them", path, i.describeDisks())
	}
	if err != nil {
		return err
	}
	return device.Close()
}

// needed is how large a disk must be, in bytes.
func (i *Installer) needed(ctx context.Context) (int64, error) {
	if i.Config.System == "" {
		return bootSize + bootstrapSize, nil
	}
	size, err := i.closureSize(ctx)
	// Files are rounded up to blocks.
	return bootSize + slack + size + size/10, err
}

// table is a partition table, as sfdisk(8) --json prints it.
type table struct {
	Label      string `json:"label"`
	SectorSize int64  `json:"sectorsize"`
	Partitions []struct {
		Start int64  `json:"start"`
		Size  int64  `json:"size"`
		Type  string `json:"type"`
		Name  string `json:"name"`
	} `json:"partitions"`
}

// readTable reads the partition table; one without partitions where there is
// none.
func (i *Installer) readTable(ctx context.Context) (table, error) {
	output, err := i.Runner.Output(ctx, execx.Command{Name: "sfdisk", Args: []string{"--json", i.disk.path}})
	var failed *execx.Error
	if errors.As(err, &failed) && failed.ExitCode == 1 {
		return table{}, nil
	}
	if err != nil {
		return table{}, err
	}
	var read struct {
		Table table `json:"partitiontable"`
	}
	if err := json.Unmarshal(output, &read); err != nil {
		return table{}, fmt.Errorf("sfdisk --json %s printed no JSON: %w", i.disk.path, err)
	}
	return read.Table, nil
}

// unfinished says whether a table is one that the phase partition has made for
// a disk of that size, and whose installation was not finished.
func (t table) unfinished(size int64) bool {
	if t.Label != "gpt" || len(t.Partitions) != 2 || t.Partitions[0].Name != partitionBoot || t.Partitions[1].Name != partitionInstalling {
		return false
	}
	sector := t.SectorSize
	if sector == 0 {
		sector = 512 // what sfdisk before 2.35 does not say
	}
	end := (t.Partitions[1].Start + t.Partitions[1].Size) * sector
	// A disk that was made larger since is partitioned anew.
	return t.Partitions[0].Size*sector == bootSize && size-end < rootSlack
}

// holds says what a disk holds, "" for a blank one.
func (i *Installer) holds(ctx context.Context) (string, error) {
	device, err := os.Open(i.disk.path)
	if err != nil {
		return "", err
	}
	defer device.Close()
	for _, part := range looked(i.disk.size) {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		zeros, err := isZero(io.NewSectionReader(device, part.start, part.size))
		if err != nil {
			return "", fmt.Errorf("cannot read the disk %s: %w", i.disk.path, err)
		}
		if !zeros {
			return i.describeData(ctx), nil
		}
	}
	return "", nil
}

// part is one of a disk, in bytes.
type part struct{ start, size int64 }

// looked are the parts of a disk that must be zeros where it holds nothing.
func looked(size int64) []part {
	parts := []part{{0, blank}, {max(0, size-blank), blank}}
	for _, start := range copies {
		if start < size {
			parts = append(parts, part{start, sampleSize})
		}
	}
	// Aligned, as a disk is read.
	step := max(sampleSize, size/samples/sampleSize*sampleSize)
	for start := blank; start < size-blank; start += step {
		parts = append(parts, part{start, sampleSize})
	}
	return parts
}

func isZero(reader io.Reader) (bool, error) {
	part := make([]byte, 64<<10)
	zeros := make([]byte, len(part))
	for {
		count, err := io.ReadFull(reader, part)
		if !bytes.Equal(part[:count], zeros[:count]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// describeData says in a few words what is on the disk.
func (i *Installer) describeData(ctx context.Context) string {
	found, err := i.probe(ctx, i.disk.path)
	table, tableErr := i.readTable(ctx)
	switch {
	case tableErr == nil && len(table.Partitions) > 0:
		var names []string
		for _, partition := range table.Partitions {
			if partition.Name != "" {
				names = append(names, partition.Name)
			}
		}
		text := fmt.Sprintf("a partition table (%s) with %d partitions", table.Label, len(table.Partitions))
		if len(names) > 0 {
			text += " (" + strings.Join(names, ", ") + ")"
		}
		return text
	case err == nil && found["TYPE"] != "":
		return fmt.Sprintf("a file system (%s, label %q)", found["TYPE"], found["LABEL"])
	case err == nil && found["PTTYPE"] != "":
		return "a partition table (" + found["PTTYPE"] + ")"
	}
	return "something that is no file system known here"
}

// probe asks blkid(8) what is on a device; nothing where there is nothing.
func (i *Installer) probe(ctx context.Context, device string) (map[string]string, error) {
	output, err := i.Runner.Output(ctx, execx.Command{Name: "blkid", Args: []string{"--probe", "--output", "export", device}})
	var failed *execx.Error
	// 2: nothing, or nothing known. 8: more than one thing.
	if errors.As(err, &failed) && (failed.ExitCode == 2 || failed.ExitCode == 8) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(output)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			found[key] = value
		}
	}
	return found, nil
}

// layout is what sfdisk(8) reads.
func layout() string {
	return fmt.Sprintf("label: gpt\nsize=%dMiB, type=%s, name=%q\ntype=%s, name=%q\n",
		bootSize/mebibyte, kindESP, partitionBoot, kindLinux, partitionInstalling)
}

func (i *Installer) partition(ctx context.Context) (outcome, error) {
	if i.disk.resumed {
		return outcome{skipped: true}, nil
	}
	err := i.Runner.Run(ctx, execx.Command{
		Name: "sfdisk", Args: []string{"--wipe", "always", "--wipe-partitions", "always", i.disk.path},
		Stdin: strings.NewReader(layout()), Stdout: i.Console, Stderr: i.Console,
	})
	if err != nil {
		return outcome{}, err
	}
	return outcome{}, i.waitForPartitions(ctx)
}

func (i *Installer) waitForPartitions(ctx context.Context) error {
	ok, err := i.waitFor(ctx, func() (bool, error) {
		for _, path := range []string{i.disk.boot(), i.disk.root()} {
			if _, err := os.Stat(path); err != nil {
				return false, nil
			}
		}
		return true, nil
	})
	if err == nil && !ok {
		err = fmt.Errorf("the kernel shows no partitions %s and %s", i.disk.boot(), i.disk.root())
	}
	return err
}

// format makes the file systems. That of the boot loader is made always: what
// is on it comes from the phase boot alone.
func (i *Installer) format(ctx context.Context) (outcome, error) {
	if err := i.waitForPartitions(ctx); err != nil {
		return outcome{}, err
	}
	if err := i.command(ctx, "mkfs.vfat", "-F", "32", "-n", bootLabel, i.disk.boot()); err != nil {
		return outcome{}, err
	}
	if i.disk.resumed {
		whole, err := i.rootIsWhole(ctx)
		if whole || err != nil {
			return outcome{skipped: true, message: "the file system of the earlier run is kept"}, err
		}
	}
	return outcome{}, i.command(ctx, "mkfs.ext4", "-q", "-F", "-L", rootLabel, i.disk.root())
}

// rootIsWhole says whether there is a root file system that can be gone on
// with. mkfs.ext4 writes the super block, and the label in it, at its end.
func (i *Installer) rootIsWhole(ctx context.Context) (bool, error) {
	found, err := i.probe(ctx, i.disk.root())
	if err != nil || found["TYPE"] != "ext4" || found["LABEL"] != rootLabel {
		return false, err
	}
	err = i.command(ctx, "e2fsck", "-p", i.disk.root())
	var failed *execx.Error
	if errors.As(err, &failed) && failed.ExitCode > 0 {
		// 1 and 2: errors were corrected.
		const corrected = 1 | 2
		return failed.ExitCode&^corrected == 0, nil
	}
	return err == nil, err
}

// mount mounts the new system's file systems, with an empty Nix store or with
// what an earlier run has put there.
func (i *Installer) mount(ctx context.Context) (outcome, error) {
	if err := os.MkdirAll(i.Root, 0o755); err != nil {
		return outcome{}, err
	}
	if err := i.command(ctx, "mount", "-t", "ext4", i.disk.root(), i.Root); err != nil {
		return outcome{}, err
	}
	if err := i.initStore(ctx); err != nil {
		return outcome{}, err
	}
	boot := filepath.Join(i.Root, "boot")
	if err := os.MkdirAll(boot, 0o755); err != nil {
		return outcome{}, err
	}
	return outcome{}, i.command(ctx, "mount", "-t", "vfat", "-o", "umask=0077", i.disk.boot(), boot)
}

// unmount unmounts a folder with all below it, if it is mounted.
func (i *Installer) unmount(ctx context.Context, folder string) error {
	mounts, err := os.Open(i.Mounts)
	if err != nil {
		return err
	}
	defer mounts.Close()
	found, err := mountinfo.GetMountsFromReader(mounts, mountinfo.SingleEntryFilter(folder))
	if err != nil || len(found) == 0 {
		return err
	}
	return i.command(ctx, "umount", "--recursive", folder)
}

// finish writes all to the disk and says in its partition table that it is
// complete.
func (i *Installer) finish(ctx context.Context) (outcome, error) {
	if err := i.unmount(ctx, i.Root); err != nil {
		return outcome{}, err
	}
	if err := i.command(ctx, "sfdisk", "--part-label", i.disk.path, "2", partitionRoot); err != nil {
		return outcome{}, err
	}
	device, err := os.Open(i.disk.path)
	if err != nil {
		return outcome{}, err
	}
	err = device.Sync()
	return outcome{}, errors.Join(err, device.Close())
}

func bytesText(size int64) string { return units.BytesSize(float64(size)) }
