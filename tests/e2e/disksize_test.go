package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"devhost/internal/container"
	"devhost/internal/disk"
	"devhost/internal/disk/disktest"
	"devhost/internal/execx"
)

func (h *host) disk(name string) *container.DiskUsage {
	h.t.Helper()
	var status struct{ Disk *container.DiskUsage }
	h.decode(&status, "status", name, "--json")
	return status.Disk
}

// TestDiskSizeIsRecorded on a file system without project quotas: that is said,
// and nothing fails.
func TestDiskSizeIsRecorded(t *testing.T) {
	needsFullRun(t)
	mount := disktest.Mount(t, disktest.Kind{Name: "ext4", Make: []string{"mkfs.ext4", "-q"}, Options: "defaults"}, 256<<20)
	h := hostAt(t, filepath.Join(mount, "state"))
	result := h.run("ensure", "box", "--channel", offline(t), "--provision", example(t, "minimal"), "--disk-size", "64M", "--json")
	var ensured container.EnsureResult
	if err := json.Unmarshal([]byte(result.stdout), &ensured); err != nil || result.status != 0 {
		t.Fatalf("ensure ended with %d: %v\n%s%s", result.status, err, result.stdout, result.stderr)
	}
	const said = "recorded, not enforced"
	if len(ensured.Warnings) != 1 || !strings.Contains(ensured.Warnings[0], said) || !strings.Contains(result.stderr, said) {
		t.Errorf("ensure says %q and\n%s", ensured.Warnings, result.stderr)
	}
	if status := h.status("box"); status.Limits.DiskBytes != 64<<20 {
		t.Errorf("status says %+v", status)
	}
	if usage := h.disk("box"); usage == nil || usage.Enforced || usage.LimitBytes != 64<<20 {
		t.Errorf("the usage is %+v", usage)
	}
	// It is said where it is asked for, and not each time.
	if result := h.run("ensure", "box"); result.status != 0 || strings.Contains(result.stderr, said) {
		t.Errorf("ensure ended with %d:\n%s", result.status, result.stderr)
	}
	if result := h.run("doctor"); !strings.Contains(result.stdout, said) {
		t.Errorf("doctor says\n%s", result.stdout)
	}
	for _, size := range []string{"-1", "1K", "lots"} {
		h.fails(2, []string{"--disk-size"}, "ensure", "box", "--disk-size", size)
	}
	h.must("ensure", "box", "--disk-size", "0")
	if usage := h.disk("box"); usage != nil {
		t.Errorf("without a limit the usage is %+v", usage)
	}
}

// TestDiskSize fills a container to its limit.
func TestDiskSize(t *testing.T) {
	needsFullRun(t)
	for _, kind := range []disktest.Kind{disktest.Ext4, disktest.XFS} {
		t.Run(kind.Name, func(t *testing.T) {
			mount := disktest.Mount(t, kind, 1<<30)
			h := hostAt(t, filepath.Join(mount, "state"))
			h.must("ensure", "box", "--channel", offline(t), "--provision", example(t, "minimal"), "--disk-size", "100M")
			h.must("ensure", "free", "--channel", offline(t), "--provision", example(t, "minimal"))
			write := func(h *host, name, megabytes string) result {
				return h.run("exec", name, "--", "sh", "-c", "LC_ALL=C dd if=/dev/zero of=/root/big bs=1M count="+megabytes+"; status=$?; rm -f /root/big; sync; exit $status")
			}
			isFull := func(t *testing.T, h *host, name, megabytes string) {
				t.Helper()
				result := write(h, name, megabytes)
				if result.status == 0 || (!strings.Contains(result.stderr, "quota exceeded") && !strings.Contains(result.stderr, "No space left")) {
					t.Errorf("%s MB in %s: %d\n%s", megabytes, name, result.status, result.stderr)
				}
			}
			fits := func(t *testing.T, h *host, name, megabytes string) {
				t.Helper()
				if result := write(h, name, megabytes); result.status != 0 {
					t.Errorf("%s MB in %s: %d\n%s", megabytes, name, result.status, result.stderr)
				}
			}
			fits(t, h, "box", "50")
			isFull(t, h, "box", "150")
			fits(t, h, "free", "150")
			if usage := h.disk("box"); usage == nil || !usage.Enforced || usage.LimitBytes != 100<<20 || usage.UsedBytes <= 0 {
				t.Errorf("the usage is %+v", usage)
			}
			if usage := h.disk("free"); usage != nil {
				t.Errorf("without a limit the usage is %+v", usage)
			}
			// A guest cannot leave its project.
			if text := h.inside("box", "chattr -p 0 /root 2>&1; chattr -P /root 2>&1; echo done"); !strings.HasSuffix(text, "done") {
				t.Errorf("it says %q", text)
			}
			isFull(t, h, "box", "150")
			// A running container gets another limit, another container its first.
			h.must("ensure", "box", "--disk-size", "300M")
			fits(t, h, "box", "150")
			h.must("ensure", "free", "--disk-size", "64M")
			isFull(t, h, "free", "150")
			h.must("ensure", "box", "--disk-size", "100M")
			// It holds after a restart, in a clone, and after a restore.
			h.must("restart", "box")
			isFull(t, h, "box", "150")
			h.must("clone", "box", "copy")
			isFull(t, h, "copy", "150")
			h.must("exec", "box", "--", "sh", "-c", "head -c 70M /dev/zero >/root/kept")
			h.must("snapshot", "create", "box", "full")
			h.must("snapshot", "restore", "box", "full")
			fits(t, h, "box", "10")
			isFull(t, h, "box", "50")
			h.must("rename", "box", "crate")
			isFull(t, h, "crate", "50")
			if usage := h.disk("crate"); usage == nil || usage.LimitBytes != 100<<20 || usage.UsedBytes < 70<<20 {
				t.Errorf("the usage is %+v", usage)
			}
			h.must("ensure", "crate", "--disk-size", "0")
			fits(t, h, "crate", "150")
			project, err := disk.Host{Runner: execx.New()}.ProjectOf(h.layout.Root("copy"))
			if err != nil || !disk.IsProject(project) {
				t.Fatalf("project %d, %v", project, err)
			}
			h.must("destroy", "crate", "copy", "free")
			if usage, err := (disk.Host{}).Usage(mount, project); err != nil || usage.Limit != 0 {
				t.Errorf("after the removal, project %d has %+v, %v", project, usage, err)
			}
		})
	}
}
