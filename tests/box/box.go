// Package box is a dev host in a box: a complete systemd host (dbus, machined,
// networkd, sshd, sudo, a Nix daemon, developers' accounts) inside
// systemd-nspawn, and a network namespace from which it is used as from another
// machine. The machine around it needs no systemd as PID 1.
//
// The host's /usr is the machine's, read-only; everything else is the box's own:
// /etc, /var, /nix, /usr/local, users, network.
package box

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
)

// The network between the box and the machine that its users sit at. Prefixes
// for documentation: RFC 5737, RFC 3849.
const (
	Address4        = "198.51.100.1"
	Address6        = "2001:db8:b0::1"
	OutsideAddress4 = "198.51.100.2"
	OutsideAddress6 = "2001:db8:b0::2"
)

// Domain is the public domain of the box: its settings say so.
const Domain = "box.example"

// Developers are the accounts of people: alice and bob are in the group
// devhost, mallory is not. Each logs in by the key Box.Key.
var Developers = []string{"alice", "bob", "mallory"}

// cgroupInstance is the folder of all boxes in every cgroup hierarchy, with
// the prefix that internal/engine/cgroup gives it.
const cgroupInstance = "boxes"

// bootLimit is far more than a boot takes, which is 3 seconds.
const bootLimit = 5 * time.Minute

// Box is one dev host in a box.
type Box struct {
	// Folder holds all files of the box: root, keys, logs. Root is its root
	// folder.
	Folder, Root string

	id    string
	log   func(format string, args ...any)
	group *cgroup.Group

	// life guards what follows.
	life sync.Mutex
	// stopping says that an end of nspawn is wanted; ended is closed when it
	// will not be started again.
	stopping bool
	ended    chan struct{}
	// failure is why the box ended by itself.
	failure error

	// removal guards removed, which says that nothing is left.
	removal sync.Mutex
	removed bool
}

// Options say how a box is made.
type Options struct {
	// Folder must not exist or be empty; all files of the box go there.
	Folder string
	// Program is the devhost binary that the box gets.
	Program string
	// Sources is the root of devhost's source tree: channels and examples are
	// taken from there.
	Sources string
	// Log gets a line for each step; may be nil.
	Log func(format string, args ...any)
}

// Boot makes the files of a box and boots it. It returns when sshd lets users
// in and systemd says that it is up. Nothing of devhost is installed yet but a
// copy of the program at /root/devhost. Who calls it must call Remove, also
// after an error.
func Boot(ctx context.Context, options Options) (*Box, error) {
	b := &Box{Folder: options.Folder, Root: filepath.Join(options.Folder, "root"), log: options.Log, ended: make(chan struct{})}
	// Nothing runs yet.
	close(b.ended)
	if b.log == nil {
		b.log = func(string, ...any) {}
	}
	if err := b.boot(ctx, options); err != nil {
		return b, fmt.Errorf("cannot boot a dev host in a box: %w%s", err, b.consoleTail())
	}
	return b, nil
}

func (b *Box) boot(ctx context.Context, options Options) error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root")
	}
	if err := removeStale(ctx); err != nil {
		return err
	}
	if err := b.claim(); err != nil {
		return err
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	b.group = tree.Group(cgroupInstance, b.id)
	if err := b.makeRoot(ctx, options); err != nil {
		return err
	}
	if err := b.makeNetwork(ctx); err != nil {
		return err
	}
	b.ended = make(chan struct{})
	started := make(chan error, 1)
	go b.live(tree.Unified(), started)
	if err := <-started; err != nil {
		return err
	}
	return b.awaitUp(ctx, "")
}

// live runs nspawn, again for each reboot, until the box ends. It keeps its
// thread: the kernel kills nspawn when the thread that started it ends, so that
// a killed test leaves no running box.
func (b *Box) live(unified bool, started chan<- error) {
	runtime.LockOSThread()
	defer close(b.ended)
	for first := true; ; first = false {
		nspawnProcess, err := b.startNspawn(unified)
		if first {
			started <- err
		}
		if err == nil {
			err = nspawnProcess.Wait()
		}
		var failure *execx.Error
		reboot := errors.As(err, &failure) && failure.ExitCode == nspawn.RebootStatus
		b.life.Lock()
		stopping := b.stopping
		if !stopping && !reboot {
			b.failure = fmt.Errorf("the box ended by itself: %v", err) //nolint:errorlint // nil is an end, too
		}
		b.life.Unlock()
		if stopping || !reboot {
			return
		}
		if err := b.clearGroup(context.Background()); err != nil {
			b.log("%v", err)
		}
	}
}

func (b *Box) startNspawn(unified bool) (execx.Process, error) {
	if err := b.group.Create(); err != nil {
		return nil, err
	}
	console, err := os.OpenFile(b.console(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer console.Close()
	environment := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb",
		// /proc/sys/net is that of the box; the rest of /proc/sys is the
		// machine's and stays read-only.
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
	}
	if unified {
		environment = append(environment, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	}
	return b.group.Top().Start(execx.New(), execx.Command{
		Name: nspawn.Program, Args: b.nspawnArguments(), Env: environment, Dir: "/",
		Stdout: console, Stderr: console,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
}

func machine(id string) string { return "devhost-box-" + id }

// firstProgram starts systemd. nspawn gives its guests a boot id of their own by
// a mount, which services with a /proc of their own (ProtectKernelTunables) would
// not see: a host has one boot id.
//
// Where the box has got a NixOS system, it starts that one, in an /etc of its own.
const firstProgram = "while umount /proc/sys/kernel/random/boot_id 2>/dev/null; do :; done; " +
	"if [ -e " + SystemProfile + "/init ]; then " +
	"if [ -e /etc/debian_version ]; then mkdir -p /etc.nixos/ssh && cp -p /etc/ssh/ssh_host_* /etc.nixos/ssh/ && mv /etc /etc.before && mv /etc.nixos /etc; fi; " +
	"exec $(readlink -f " + SystemProfile + ")/init; fi; " +
	"exec " + initProgram

// SystemProfile is the profile of the host's own system, if that is NixOS.
const SystemProfile = "/nix/var/nix/profiles/system"

// initProgram is the host's PID 1.
const initProgram = "/usr/lib/systemd/systemd"

func (b *Box) nspawnArguments() []string {
	arguments := []string{
		"--quiet", "--settings=no", "--register=no", "--keep-unit",
		"--machine=" + machine(b.id), "--hostname=box",
		"--directory=" + b.Root,
		"--bind-ro=/usr:/usr:norbind",
		// Admins install there.
		"--bind=" + filepath.Join(b.Folder, "usr-local") + ":/usr/local:norbind",
		"--network-namespace-path=" + namespacePath(hostNamespace(b.id)),
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		// A host has them all; what it runs makes containers of its own.
		"--capability=all",
		"--system-call-filter=@keyring bpf perf_event_open",
		"--console=read-only",
	}
	return append(arguments, "--", "/bin/sh", "-c", firstProgram)
}

func (b *Box) console() string { return filepath.Join(b.Folder, "console.log") }

// consoleTail is the end of what the box said while it booted, for errors.
func (b *Box) consoleTail() string {
	const most = 4000
	data, err := os.ReadFile(b.console())
	if err != nil || len(data) == 0 {
		return ""
	}
	return "\nThe end of its console:\n" + string(data[max(0, len(data)-most):])
}

// lifeOfBox tells one life of the box from the next: when its PID 1 was started.
const lifeOfBox = "cut -d ' ' -f 22 /proc/1/stat"

// awaitUp returns when users can log in and all units have been started; the
// life must not be the one of before, if one is given.
func (b *Box) awaitUp(ctx context.Context, before string) error {
	waiting, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	for {
		result := b.run(waiting, "root", lifeOfBox, nil)
		if result.Status == 0 && strings.TrimSpace(result.Stdout) != before {
			break
		}
		select {
		case <-b.ended:
			return b.failed()
		case <-waiting.Done():
			return fmt.Errorf("nobody can log in after %s: %s", bootLimit, result.Stderr)
		case <-time.After(100 * time.Millisecond):
		}
	}
	var result Result
	for {
		result = b.run(waiting, "root", "systemctl is-system-running --wait; systemctl --failed --no-legend --plain", nil)
		// A login during a boot can be cut short.
		if result.Stdout != "" {
			break
		}
		select {
		case <-b.ended:
			return b.failed()
		case <-waiting.Done():
			return fmt.Errorf("systemd does not say within %s whether it is up: %s", bootLimit, result.Stderr)
		case <-time.After(100 * time.Millisecond):
		}
	}
	state, failed, _ := strings.Cut(result.Stdout, "\n")
	if state != "running" {
		return fmt.Errorf("the box is %s; units that failed:\n%s%s", state, failed, result.Stderr)
	}
	return nil
}

func (b *Box) failed() error {
	b.life.Lock()
	defer b.life.Unlock()
	return b.failure
}

// Reboot reboots the box as root of it would, and returns when it is up again.
func (b *Box) Reboot(ctx context.Context) error {
	before := b.run(ctx, "root", lifeOfBox, nil)
	if before.Status != 0 {
		return fmt.Errorf("cannot reboot the box: %s", before.Stderr)
	}
	// The connection may break before the command has ended.
	b.run(ctx, "root", "systemctl reboot", nil)
	if err := b.awaitUp(ctx, strings.TrimSpace(before.Stdout)); err != nil {
		return fmt.Errorf("the box does not come back from its reboot: %w%s", err, b.consoleTail())
	}
	return nil
}

// Remove ends the box, at once, and removes everything that was made for it. It
// may be called several times, also at once.
func (b *Box) Remove(ctx context.Context) error {
	b.life.Lock()
	b.stopping = true
	b.life.Unlock()
	b.removal.Lock()
	defer b.removal.Unlock()
	if b.id == "" || b.removed {
		return nil
	}
	err := remove(ctx, b.id, b.Folder, b.ended)
	b.removed = err == nil
	return err
}

// clearGroup kills what is left of the box' processes and removes its cgroup.
func (b *Box) clearGroup(ctx context.Context) error { return clearGroup(ctx, b.group) }

func clearGroup(ctx context.Context, group *cgroup.Group) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := group.Kill(limited); err != nil {
		return err
	}
	return group.Remove(limited)
}

// Ended is closed when the box was shut down and does not come back.
func (b *Box) Ended() <-chan struct{} { return b.ended }
