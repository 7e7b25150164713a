package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/seed"
)

// Where a FAT16 boot sector has the label, by "Microsoft FAT Specification", 3.2.
const (
	labelOffset = 43
	labelSize   = 11
	bootSector  = 512
)

// findSeed waits for the disk with the label of a seed. It is found by its boot
// sector: its letter differs between hypervisors.
func (i *Installer) findSeed(ctx context.Context) (string, error) {
	var found []string
	ok, err := i.waitFor(ctx, func() (bool, error) {
		names, err := i.disks()
		if err != nil {
			return false, err
		}
		found = nil
		for _, name := range names {
			if path := filepath.Join(i.Devices, name); hasLabel(path, seed.Label) {
				found = append(found, path)
			}
		}
		return len(found) > 0, nil
	})
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("there is no seed disk (a FAT file system with the label %s) on this machine, which has %s; start the ISO by devbox-cli init, which makes one", seed.Label, i.describeDisks())
	case len(found) > 1:
		return "", fmt.Errorf("%s all are seed disks; attach one", strings.Join(found, " and "))
	}
	return found[0], nil
}

func hasLabel(path, label string) bool {
	device, err := os.Open(path)
	if err != nil {
		return false
	}
	defer device.Close()
	sector := make([]byte, bootSector)
	if _, err := io.ReadFull(device, sector); err != nil {
		return false
	}
	return strings.TrimRight(string(sector[labelOffset:labelOffset+labelSize]), " ") == label
}

// disks are the names of the block devices that are no partitions and that are
// not made of other files or of memory.
func (i *Installer) disks() ([]string, error) {
	entries, err := os.ReadDir(i.Blocks)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if _, err := os.Stat(filepath.Join(i.Blocks, name, "partition")); err == nil {
			continue
		}
		if prefix := strings.TrimRight(name, "0123456789"); prefix == "loop" || prefix == "ram" || prefix == "zram" || prefix == "dm-" {
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// waitFor asks until it is so, there is an error, or disks had their time.
func (i *Installer) waitFor(ctx context.Context, isSo func() (bool, error)) (bool, error) {
	end := time.Now().Add(i.Wait)
	for {
		if so, err := isSo(); so || err != nil {
			return so, err
		}
		if time.Now().After(end) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

// describeDisks lists the disks with their sizes.
func (i *Installer) describeDisks() string {
	names, err := i.disks()
	if err != nil || len(names) == 0 {
		return "no disk at all"
	}
	for n, name := range names {
		names[n] = filepath.Join(i.Devices, name)
		if size, err := sizeOf(names[n]); err == nil {
			names[n] += " (" + bytesText(size) + ")"
		}
	}
	return strings.Join(names, ", ")
}

// sizeOf is the size of a disk or file in bytes.
func sizeOf(path string) (int64, error) {
	device, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	size, err := device.Seek(0, io.SeekEnd)
	return size, errors.Join(err, device.Close())
}
