package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/registry"
)

const (
	// clonedBytes is the state of the container that is cloned.
	clonedBytes = 1 << 30
	// imageBytes is the size of the file system that it lies on; the image
	// takes what is written to it.
	imageBytes = 6 << 30
)

// clone: devhost clone of a container with 1 GiB of state, on a file system
// that shares blocks: that of the folder, or an xfs in a file.
func (b *bench) clone(ctx context.Context) (err error) {
	way, err := disk.Host{}.WayIn(b.folder)
	if err != nil {
		return err
	}
	if way != disk.Reflink {
		unmount, reason := b.mountReflink(ctx, filepath.Join(b.folder, clones))
		if reason != "" {
			b.table.information("clone of a container with 1 GiB of state: skipped, "+reason, "-", 0)
			return nil
		}
		defer func() { err = errors.Join(err, unmount()) }()
	}
	layout := b.clonesLayout()
	defer func() { err = errors.Join(err, b.clearClones(context.WithoutCancel(ctx))) }()
	if _, err := b.devhostIn(ctx, layout, nil, "ensure", "source", "--channel", b.channel, "--provision", b.minimal); err != nil {
		return err
	}
	if err := fill(filepath.Join(layout.Root("source"), "var/state"), clonedBytes); err != nil {
		return err
	}
	var destroys samples
	one := func(args ...string) measured {
		return func(ctx context.Context) (time.Duration, error) {
			took, err := b.devhostIn(ctx, layout, nil, append([]string{"clone", "source", "copy"}, args...)...)
			if err != nil {
				return 0, err
			}
			destroyed, err := b.devhostIn(ctx, layout, nil, "destroy", "copy")
			destroys = append(destroys, destroyed)
			return took, err
		}
	}
	taken, err := b.alternate(ctx, one(), one("--no-start"))
	if err != nil {
		return err
	}
	const bound = 2 * time.Second
	b.table.below("clone of a running container with 1 GiB of state, until it is up", taken[0], bound)
	b.table.below("  the same, left stopped", taken[1], bound)
	b.table.information("  destroy of such a clone", destroys[2*warmUps:].String(), len(destroys)-2*warmUps)
	return nil
}

// clones is the folder of this figure, where another file system may lie.
const clones = "clones"

func (b *bench) clonesLayout() registry.Layout {
	return registry.Layout{State: filepath.Join(b.folder, clones, "state")}
}

// clearClones destroys the containers of this figure, or of an earlier run.
func (b *bench) clearClones(ctx context.Context) error {
	if left, err := os.ReadDir(b.clonesLayout().Containers()); err != nil || len(left) == 0 {
		return nil
	}
	_, err := b.devhostIn(ctx, b.clonesLayout(), nil, "destroy", "--missing-ok", "copy", "source")
	return err
}

// fill writes a file of random bytes to the disk.
func fill(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, rand.Reader, size)
	return errors.Join(err, file.Sync(), file.Close())
}

// mountReflink mounts an xfs in a file. reason says why that cannot be.
func (b *bench) mountReflink(ctx context.Context, mount string) (unmount func() error, reason string) {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		return nil, "this file system shares no blocks, and xfsprogs is not installed"
	}
	image := filepath.Join(b.folder, "clones.img")
	file, err := os.Create(image)
	if err == nil {
		err = errors.Join(file.Truncate(imageBytes), file.Close(), os.MkdirAll(mount, 0o700))
	}
	for _, argv := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mount", "-o", "loop", image, mount}} {
		if err == nil {
			err = b.runner.Run(ctx, execx.Command{Name: argv[0], Args: argv[1:], Dir: "/"})
		}
	}
	if err != nil {
		return nil, "this file system shares no blocks, and none that does can be mounted here"
	}
	return func() error { return unmountAt(mount) }, ""
}

// unmountAt unmounts what an earlier run may have left mounted, too.
func unmountAt(mount string) error {
	err := unix.Unmount(mount, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// idle is how many containers run for the figure of idle containers.
const (
	idle = 50
	// settling is how long the last one is left alone before anything is
	// measured.
	settling = 10 * time.Second
)

// weight is what one container takes, in KiB.
type weight struct {
	// proportional is the sum of its processes' proportional set sizes, of the
	// supervisor too where it has one.
	proportional int
	// charged is what its cgroup is charged for but for files that can be
	// dropped, which includes the kernel's own memory.
	charged int
}

// idleContainers: what many containers of one channel take, against as many
// that systemd-nspawn runs alone.
func (b *bench) idleContainers(ctx context.Context) error {
	var names []string
	systems := map[string]bool{}
	for i := range idle {
		name := fmt.Sprintf("idle-%02d", i)
		names = append(names, name)
		system, err := b.build(ctx, name)
		if err != nil {
			return err
		}
		systems[system] = true
	}
	ours, err := b.weighAll(ctx, b.layout, names, true)
	if err != nil {
		return err
	}
	if err := b.destroyAll(ctx); err != nil {
		return err
	}
	bare, err := b.weighBare(ctx, systems)
	if err != nil {
		return err
	}
	const most = 15 << 10
	b.table.bound(fmt.Sprintf("systems of %d containers of one channel", idle), strconv.Itoa(len(systems)), "1", idle, len(systems) == 1)
	beyond := ours.proportional - bare.proportional
	b.table.bound("one idle container of 50, proportional memory beyond bare nspawn", mebibytes(beyond), "<= 15 MiB", idle, beyond <= most)
	b.table.information("  devhost: guest, nspawn and supervisor", mebibytes(ours.proportional), idle)
	b.table.information("  bare: guest and nspawn", mebibytes(bare.proportional), idle)
	b.table.information("  devhost: charged to the cgroup, without files", mebibytes(ours.charged), idle)
	b.table.information("  bare: charged to the cgroup, without files", mebibytes(bare.charged), idle)
	return nil
}

func mebibytes(kibibytes int) string { return fmt.Sprintf("%.1f MiB", float64(kibibytes)/1024) }

// weighBare runs as many containers by nspawn alone.
func (b *bench) weighBare(ctx context.Context, systems map[string]bool) (found weight, err error) {
	var system string
	for system = range systems {
		break
	}
	var names []string
	var guests []*bareHost
	defer func() {
		for _, guest := range guests {
			err = errors.Join(err, guest.powerOff(), guest.clearGuest(context.WithoutCancel(ctx)))
		}
	}()
	for i := range idle {
		guest := &bareHost{runner: b.runner, layout: b.bare.layout, name: fmt.Sprintf("bare-%02d", i), others: guests}
		guests = append(guests, guest)
		names = append(names, guest.name)
		if _, err := guest.start(ctx, system); err != nil {
			return found, err
		}
	}
	return b.weighAll(ctx, b.bare.layout, names, false)
}

// weighAll weighs running containers and returns the average.
func (b *bench) weighAll(ctx context.Context, layout registry.Layout, names []string, supervised bool) (sum weight, err error) {
	select {
	case <-ctx.Done():
		return sum, ctx.Err()
	case <-time.After(settling):
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return sum, err
	}
	for _, name := range names {
		group := tree.Group(layout.Instance(), name)
		pids, err := group.PIDs()
		if err != nil {
			return sum, err
		}
		if len(pids) < 2 {
			return sum, fmt.Errorf("container %s does not run", name)
		}
		if supervised {
			record, err := supervisor.ReadRecord(layout, name)
			if err != nil {
				return sum, err
			}
			if record == nil || !record.Supervisor.Alive() {
				return sum, fmt.Errorf("container %s has no supervisor", name)
			}
			pids = append(pids, record.Supervisor.PID)
		}
		for _, pid := range pids {
			size, err := proportional(pid)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				// It has ended meanwhile.
				continue
			}
			if err != nil {
				return sum, err
			}
			sum.proportional += size
		}
		charged, err := chargedTo(layout, name)
		if err != nil {
			return sum, err
		}
		sum.charged += charged
	}
	return weight{sum.proportional / len(names), sum.charged / len(names)}, nil
}

// chargedTo is what the cgroup of a container is charged for, in KiB, without
// the files that can be dropped. See cgroups(7): v2 has memory.current, v1
// memory.usage_in_bytes.
func chargedTo(layout registry.Layout, name string) (int, error) {
	below := filepath.Join("devhost-"+layout.Instance(), name)
	for _, kind := range []struct{ folder, total, files string }{
		{"/sys/fs/cgroup/memory", "memory.usage_in_bytes", "total_inactive_file total_active_file"},
		{"/sys/fs/cgroup", "memory.current", "inactive_file active_file"},
		{"/sys/fs/cgroup/unified", "memory.current", "inactive_file active_file"},
	} {
		text, err := os.ReadFile(filepath.Join(kind.folder, below, kind.total))
		if err != nil {
			continue
		}
		total, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, err
		}
		details, err := os.ReadFile(filepath.Join(kind.folder, below, "memory.stat"))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(details)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if strings.Contains(" "+kind.files+" ", " "+key+" ") {
				bytes, err := strconv.Atoi(value)
				if err != nil {
					return 0, err
				}
				total -= bytes
			}
		}
		return total >> 10, nil
	}
	return 0, fmt.Errorf("the memory of container %s is not accounted for", name)
}
