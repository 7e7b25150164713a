// Package vm tests devbox in real virtual machines, by QEMU. What make e2e-vm
// runs is here.
//
// There is no NixOS in these tests, which they could not download: the ISO has
// Debian's kernel, busybox, Nix and what else devbox-auto-install calls, as the
// distribution installed them. Nix and devbox-auto-install are real, and so is all
// that they do. The system that they install is a small one (guest/), with sshd.
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// modules are the kernel modules of live and installed system.
var modules = []string{
	"virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio-rng", "sr_mod", "isofs", "overlay",
	"button", "evdev", "vfat", "nls_cp437", "nls_iso8859-1", "nls_ascii", "nls_utf8", "crc32c_generic",
}

// ISO is an installer, with a system on it.
type ISO struct {
	// Path is the image; Kernel and Initrd are those on it, to boot it without
	// firmware.
	Path, Kernel, Initrd string
	// System is the store path of the system on it, root a link that keeps it.
	System, root string
}

// KernelFolder is where scripts/vm-kernel unpacks a kernel.
func KernelFolder() (string, error) {
	if folder := os.Getenv("DEVHOST_VM_KERNEL"); folder != "" {
		return folder, nil
	}
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "devhost", "vm-kernel"), err
}

// BuildISO makes an ISO and the system on it, in a folder. installer is
// devbox-auto-install, guest the folder tests/vm/guest.
func BuildISO(ctx context.Context, folder, installer, guest string) (*ISO, error) {
	builder := &builder{ctx: ctx, folder: folder, installer: installer, guest: guest}
	if err := builder.findKernel(); err != nil {
		return nil, err
	}
	system, err := builder.system()
	if err != nil {
		return nil, fmt.Errorf("the system to install: %w", err)
	}
	iso, err := builder.iso(system)
	if err != nil {
		return nil, fmt.Errorf("the ISO: %w", err)
	}
	return iso, nil
}

type builder struct {
	ctx                      context.Context
	folder, installer, guest string
	// kernelFolder has boot/vmlinuz-VERSION and lib/modules/VERSION.
	kernelFolder, kernel, version string
}

func (b *builder) path(names ...string) string {
	return filepath.Join(append([]string{b.folder}, names...)...)
}

// run runs a program and returns its standard output.
func (b *builder) run(name string, arguments ...string) (string, error) {
	command := exec.CommandContext(b.ctx, name, arguments...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %q: %w\n%s", name, arguments, err, stderr.String())
	}
	return strings.TrimSpace(string(output)), nil
}

func (b *builder) findKernel() error {
	var err error
	if b.kernelFolder, err = KernelFolder(); err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(b.kernelFolder, "boot", "vmlinuz-*"))
	if err != nil || len(found) == 0 {
		return errors.Join(fmt.Errorf("there is no kernel in %s; run scripts/vm-kernel", b.kernelFolder), err)
	}
	b.kernel = found[len(found)-1]
	b.version = strings.TrimPrefix(filepath.Base(b.kernel), "vmlinuz-")
	_, err = b.run("depmod", "-b", b.kernelFolder, b.version)
	return err
}

// initrd makes an initial RAM disk of busybox, the modules and an init.
func (b *builder) initrd(name, init string) (string, error) {
	root := b.path(name)
	for _, folder := range []string{"bin", "modules", "proc", "sys", "dev", "root", "iso", "rw", "run"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			return "", err
		}
	}
	if err := copyFile("/bin/busybox", filepath.Join(root, "bin", "busybox"), 0o755); err != nil {
		return "", err
	}
	var order strings.Builder
	seen := map[string]bool{}
	for _, module := range modules {
		lines, err := b.run("modprobe", "-d", b.kernelFolder, "-S", b.version, "--show-depends", module)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(lines) {
			path, ok := strings.CutPrefix(strings.TrimSpace(line), "insmod ")
			if path = strings.TrimSpace(path); !ok || seen[path] {
				continue
			}
			seen[path] = true
			order.WriteString(filepath.Base(path) + "\n")
			if err := copyFile(path, filepath.Join(root, "modules", filepath.Base(path)), 0o644); err != nil {
				return "", err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "modules", "order"), []byte(order.String()), 0o644); err != nil {
		return "", err
	}
	if err := copyFile(init, filepath.Join(root, "init"), 0o755); err != nil {
		return "", err
	}
	image := b.path(name + ".img")
	_, err := b.run("sh", "-c", `cd "$1" && find . | busybox cpio -o -H newc -R 0:0 >"$2"`, "sh", root, image)
	return image, err
}

// programs copies programs of the distribution to folder/bin, and the libraries
// that they need to folder/lib and folder/lib64.
func (b *builder) programs(folder string, names ...string) error {
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range names {
		path, err := lookPath(name)
		if err != nil {
			return err
		}
		if err := copyFile(path, filepath.Join(folder, "bin", filepath.Base(name)), 0o755); err != nil {
			return err
		}
		libraries, err := b.run("ldd", path)
		if err != nil {
			if strings.Contains(err.Error(), "not a dynamic executable") {
				continue
			}
			return err
		}
		for _, word := range strings.Fields(libraries) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			target := filepath.Join(folder, "lib", filepath.Base(word))
			if strings.HasPrefix(filepath.Base(word), "ld-linux") {
				target = filepath.Join(folder, "lib64", filepath.Base(word))
			}
			if err := copyFile(word, target, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookPath finds a program, also in the folders of the administrator.
func lookPath(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	for _, folder := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path := filepath.Join(folder, name); isFile(path) {
			return path, nil
		}
	}
	return exec.LookPath(name)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// system builds the system that is installed, by Nix, and returns its store path.
func (b *builder) system() (string, error) {
	tools, boot := b.path("tools"), b.path("boot")
	if err := b.programs(tools, "/bin/busybox", "/usr/sbin/sshd"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(boot, 0o755); err != nil {
		return "", err
	}
	initrd, err := b.initrd("installed-initrd", filepath.Join(b.guest, "installed-initrd.sh"))
	if err != nil {
		return "", err
	}
	if err := errors.Join(copyFile(b.kernel, filepath.Join(boot, "kernel"), 0o644), copyFile(initrd, filepath.Join(boot, "initrd"), 0o644)); err != nil {
		return "", err
	}
	if _, err := b.run("grub-mkstandalone", "-O", "x86_64-efi", "-o", filepath.Join(boot, "BOOTX64.EFI"),
		"--modules=part_gpt fat search search_fs_file", "--install-modules=linux normal", "--fonts=", "--locales=", "--themes=",
		"boot/grub/grub.cfg="+filepath.Join(b.guest, "installed-grub.cfg")); err != nil {
		return "", err
	}
	return b.run("nix-build", "--out-link", b.path("system"), "--option", "substituters", "", filepath.Join(b.guest, "system.nix"),
		"--argstr", "tools", tools, "--argstr", "boot", boot, "--argstr", "guest", b.guest)
}

// iso makes the ISO, whose root folder is that of the live system.
func (b *builder) iso(system string) (*ISO, error) {
	root := b.path("iso")
	if err := b.programs(root, "/bin/busybox", "nix", "mount", "umount", "unshare", "sfdisk", "blkid", "mkfs.vfat", "mkfs.ext4", "e2fsck"); err != nil {
		return nil, err
	}
	for _, folder := range []string{"sbin", "etc/devbox", "proc", "sys", "dev", "run", "tmp", "mnt", "root", "boot/grub"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			return nil, err
		}
	}
	for _, link := range []string{"nix-store", "nix-env"} {
		if err := os.Symlink("nix", filepath.Join(root, "bin", link)); err != nil {
			return nil, err
		}
	}
	configs := map[string]map[string]any{
		"direct":    {"version": 1, "system": system, "console": "ttyS0", "stateVersion": ""},
		"bootstrap": {"version": 1, "system": "", "console": "ttyS0", "stateVersion": "26.05"},
	}
	for name, config := range configs {
		data, err := json.Marshal(config)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(root, "etc/devbox", name+".json"), data, 0o644); err != nil {
			return nil, err
		}
	}
	initrd, err := b.initrd("live-initrd", filepath.Join(b.guest, "live-initrd.sh"))
	if err != nil {
		return nil, err
	}
	files := []struct {
		from, to string
		mode     fs.FileMode
	}{
		{b.installer, "bin/devbox-auto-install", 0o755},
		{filepath.Join(b.guest, "live-init.sh"), "sbin/init", 0o755},
		{filepath.Join(b.guest, "nixos-install.sh"), "bin/nixos-install", 0o755},
		{filepath.Join(b.guest, "nixos-generate-config.sh"), "bin/nixos-generate-config", 0o755},
		{filepath.Join(b.guest, "passwd"), "etc/passwd", 0o644},
		{filepath.Join(b.guest, "group"), "etc/group", 0o644},
		{filepath.Join(b.guest, "live-grub.cfg"), "boot/grub/grub.cfg", 0o644},
		{b.kernel, "boot/kernel", 0o644},
		{initrd, "boot/initrd", 0o644},
	}
	for _, file := range files {
		if err := copyFile(file.from, filepath.Join(root, file.to), file.mode); err != nil {
			return nil, err
		}
	}
	if _, err := b.run("nix", "--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--to", root, system); err != nil {
		return nil, err
	}
	made := &ISO{Path: b.path("installer.iso"), Kernel: b.kernel, Initrd: initrd, System: system, root: b.path("system")}
	_, err = b.run("grub-mkrescue", "-d", "/usr/lib/grub/x86_64-efi", "--fonts=", "--locales=", "--themes=", "-o", made.Path, root)
	return made, err
}

func copyFile(from, to string, mode fs.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Chmod(mode), target.Close())
}

// Forget deletes from the store what was built for an ISO, if nothing else
// needs it.
func (i *ISO) Forget(ctx context.Context) {
	_ = os.Remove(i.root)
	query := func(arguments ...string) []string {
		output, err := exec.CommandContext(ctx, "nix-store", append([]string{"--query"}, arguments...)...).Output()
		if err != nil {
			return nil
		}
		return strings.Fields(string(output))
	}
	paths := query(append([]string{"--requisites", i.System}, query("--deriver", i.System)...)...)
	// What refers to others comes after them.
	for _, path := range slices.Backward(paths) {
		_ = exec.CommandContext(ctx, "nix-store", "--delete", path).Run()
	}
}
