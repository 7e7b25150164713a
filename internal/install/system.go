package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"devhost/internal/disk"
	"devhost/internal/execx"
)

// profile is that of the system, in the new system.
const profile = "/nix/var/nix/profiles/system"

// durable has Nix write a path to the disk before it says that it is there. So
// what is registered when the power fails is whole.
var durable = []string{"--option", "sync-before-registering", "true"}

// initStore makes the data base of the new system's store. Of what an earlier
// run has left, only the store is kept: files that were written shortly before
// a power cut can be empty, and all others are made anew by the phases to come.
func (i *Installer) initStore(ctx context.Context) error {
	const store = "nix"
	if err := emptyBut(i.Root, store); err != nil {
		return err
	}
	initialize := func() error { return i.command(ctx, "nix-store", "--store", i.Root, "--init") }
	err := initialize()
	var failed *execx.Error
	if errors.As(err, &failed) && failed.ExitCode > 0 {
		// It was cut short in here.
		if err := emptyBut(i.Root, ""); err != nil {
			return err
		}
		err = initialize()
	}
	syscall.Sync()
	return err
}

// emptyBut removes all from a folder but one entry, and where ext4 puts what
// e2fsck finds.
func emptyBut(folder, kept string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != kept && name != "lost+found" {
			if err := disk.RemoveFolder(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// noNetwork keeps Nix from asking binary caches for what the ISO holds.
var noNetwork = []string{"--option", "substituters", ""}

// closureSize is the size of the prebuilt system with all that it refers to, in
// bytes.
func (i *Installer) closureSize(ctx context.Context) (int64, error) {
	output, err := i.Runner.Output(ctx, execx.Command{Name: "nix-store", Args: []string{"--query", "--requisites", i.Config.System}, Stderr: i.Console})
	if err != nil {
		return 0, fmt.Errorf("the ISO does not hold the system %s whole: %w", i.Config.System, err)
	}
	paths := strings.Fields(string(output))
	var size int64
	// The kernel bounds an argument vector.
	const atOnce = 1000
	for len(paths) > 0 {
		count := min(atOnce, len(paths))
		output, err := i.Runner.Output(ctx, execx.Command{Name: "nix-store", Args: append([]string{"--query", "--size"}, paths[:count]...), Stderr: i.Console})
		if err != nil {
			return 0, err
		}
		for _, word := range strings.Fields(string(output)) {
			one, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("nix-store --query --size printed %q", word)
			}
			size += one
		}
		paths = paths[count:]
	}
	return size, nil
}

// copySystem copies the prebuilt system and makes it the system's profile, as
// nixos-install does. What an earlier run has copied is not copied again.
func (i *Installer) copySystem(ctx context.Context) (outcome, error) {
	// The ISO's own paths are trusted as the ISO is.
	copying := slices.Concat([]string{"copy", "--no-check-sigs", "--to", i.Root}, noNetwork, durable, []string{i.Config.System})
	err := i.Runner.Run(ctx, execx.Command{
		Name: "nix", Args: copying, Stdout: i.Console, Stderr: i.Console,
		// Not by an argument: Nix 2.3, which has none, needs none.
		Env: append(os.Environ(), "NIX_CONFIG="+os.Getenv("NIX_CONFIG")+"\nextra-experimental-features = nix-command"),
	})
	if err != nil {
		return outcome{}, err
	}
	setting := slices.Concat([]string{"--store", i.Root, "--profile", filepath.Join(i.Root, profile)}, noNetwork, []string{"--set", i.Config.System})
	return outcome{}, i.command(ctx, "nix-env", setting...)
}

// bootScript activates the system, which makes its users and /etc, and has it
// install its boot loader. Activation meets things in here that it does not
// meet in a running system, so that its status says little; nixos-enter ignores
// it too.
const bootScript = `
system=$1
"$system/activate" || echo "the activation of $system ended with $?" >&2
"$system/sw/bin/systemd-tmpfiles" --create --remove -E 2>/dev/null || true
export NIXOS_INSTALL_BOOTLOADER=1
exec "$system/bin/switch-to-configuration" boot
`

// installBoot has the new system install its boot loader, as nixos-install
// does: within it, in namespaces of its own.
func (i *Installer) installBoot(ctx context.Context) (_ outcome, err error) {
	etc := filepath.Join(i.Root, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return outcome{}, err
	}
	// switch-to-configuration looks for it.
	if err := os.WriteFile(filepath.Join(etc, "NIXOS"), nil, 0o644); err != nil {
		return outcome{}, err
	}
	// Boot loaders look there for what is mounted.
	if err := replaceLink(filepath.Join(etc, "mtab"), "/proc/mounts"); err != nil {
		return outcome{}, err
	}
	for _, folder := range []string{"dev", "sys", "proc"} {
		if err := os.MkdirAll(filepath.Join(i.Root, folder), 0o755); err != nil {
			return outcome{}, err
		}
	}
	for _, folder := range []string{"/dev", "/sys"} {
		target := filepath.Join(i.Root, folder)
		if err := i.command(ctx, "mount", "--rbind", "--make-rslave", folder, target); err != nil {
			return outcome{}, err
		}
		defer func() {
			cleanUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
			defer cancel()
			err = errors.Join(err, i.command(cleanUp, "umount", "--recursive", target))
		}()
	}
	system := i.Config.System
	err = i.Runner.Run(ctx, execx.Command{
		Name: "unshare",
		Args: []string{
			"--mount", "--uts", "--pid", "--fork", "--kill-child", "--root=" + i.Root, "--mount-proc=/proc", "--wd=/",
			system + "/sw/bin/bash", "-c", bootScript, "bash", system,
		},
		Env: []string{
			"PATH=" + system + "/sw/bin:" + system + "/sw/sbin", "HOME=/root", "IN_NIXOS_ENTER=1",
			"LOCALE_ARCHIVE=" + system + "/sw/lib/locale/locale-archive",
		},
		Stdout: i.Console, Stderr: i.Console,
	})
	if err != nil {
		return outcome{}, &step{"the boot step of the new system (bin/switch-to-configuration boot)", err}
	}
	return outcome{}, nil
}

// replaceLink makes a symbolic link, in place of one that is there.
func replaceLink(path, target string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
