// Package nspawn knows systemd-nspawn: its arguments, what it needs before it
// starts, and what it leaves when it is killed. The arguments are those of
// systemd-nspawn(1), version 252 and newer.
package nspawn

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"devhost/internal/disk"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// Program is the program's name, looked up on PATH.
const Program = "systemd-nspawn"

// RebootStatus is the exit status by which nspawn says that the guest wants to
// be started again (EXIT_FORCE_RESTART of systemd).
const RebootStatus = 133

// PowerOffSignal makes systemd as PID 1 power off: SIGRTMIN+4, see systemd(1).
// SIGRTMIN is 34, because the C library keeps 32 and 33.
const PowerOffSignal = 34 + 4

// Config is all that the arguments depend on.
type Config struct {
	// Machine is nspawn's name of the container, unique on the host.
	Machine string
	// Hostname is the guest's host name.
	Hostname string
	// Root is the container's root folder and Guest the host-owned folder that
	// the guest sees at /run/devhost.
	Root, Guest string
	// Store is the folder of store paths, bound at the same path.
	Store string
	// NixSocket is the folder of the Nix daemon's socket, bound at the same
	// path; "" for none.
	NixSocket string
	// System is the store path whose init is the guest's PID 1.
	System string
	// HostUsr binds the host's /usr.
	HostUsr bool
	// HostInterface is the host's end of the virtual cable. With HostNetwork there
	// is none: the guest has the host's network.
	HostInterface string
	HostNetwork   bool
	// Nesting opens what container engines inside use, see nesting.
	Nesting bool
	// Binds are further folders, whose ids are mapped already.
	Binds []Bind
	// UIDBase is the host's uid of the guest's root, a multiple of 65536; 0 lets
	// nspawn choose.
	UIDBase int
	// Unit says that nspawn is the main process of a unit of systemd, to which
	// it reports, and that machined shall know the container.
	Unit bool
}

// Bind is a folder that the guest sees at Target.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// Arguments are those after the program's name.
func Arguments(config Config) []string {
	users := "pick"
	if config.UIDBase != 0 {
		users = fmt.Sprintf("%d:%d", config.UIDBase, process.GuestIDs)
	}
	arguments := []string{
		"--quiet",
		// No settings of others: nspawn would read /etc/systemd/nspawn/MACHINE.nspawn
		// and /run/systemd/nspawn/MACHINE.nspawn, which can bind any folder.
		"--settings=no",
		// machined is there where systemd is PID 1 only. In any case nspawn
		// stays in the cgroup that it was started in.
		"--register=" + yesNo(config.Unit), "--keep-unit",
		// Up is a guest whose PID 1 runs: one slow unit of it must not make its
		// start fail.
		"--notify-ready=no",
		"--machine=" + config.Machine,
		"--hostname=" + config.Hostname,
		"--directory=" + config.Root,
		"--private-users=" + users, "--private-users-ownership=auto",
		"--bind-ro=" + bind(config.Store, config.Store),
		"--bind-ro=" + bind(config.Guest, "/run/devhost"),
	}
	if config.NixSocket != "" {
		arguments = append(arguments, "--bind-ro="+bind(config.NixSocket, config.NixSocket))
	}
	if config.HostUsr {
		arguments = append(arguments, "--bind-ro="+bind("/usr", "/usr"))
	}
	for _, folder := range config.Binds {
		option := "--bind="
		if folder.ReadOnly {
			option = "--bind-ro="
		}
		arguments = append(arguments, option+escape(folder.Source)+":"+escape(folder.Target)+":norbind")
	}
	if config.Nesting {
		arguments = append(arguments, nesting...)
	}
	return append(arguments, network(config),
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--kill-signal=SIGRTMIN+4",
		// The console goes to standard output, which is our log, and reads
		// nothing.
		"--console=read-only",
		"--", filepath.Join(config.System, "init"))
}

// network is how the guest is connected. In the host's network the guest has no
// right over any of it, because it is root of its user namespace alone. nspawn
// leaves out the capability there by itself; that it is not there at all has
// systemd-networkd inside stay off, see ConditionCapability= in systemd.unit(5).
func network(config Config) string {
	if config.HostNetwork {
		return "--drop-capability=CAP_NET_ADMIN"
	}
	return "--network-veth-extra=" + config.HostInterface + ":host0"
}

// nesting is what OCI runtimes need beyond a plain container: they give each of
// theirs a session keyring, and nspawn's filter of system calls refuses that.
// The variable tells the guest, which finds it in the environment of its PID 1.
var nesting = []string{"--system-call-filter=keyctl", "--setenv=DEVHOST_NESTING=1"}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// bind is a bind mount whose files belong to the guest's root. nspawn splits
// at colons, so those in a path are escaped.
func bind(source, target string) string {
	return escape(source) + ":" + escape(target) + ":norbind,rootidmap"
}

func escape(path string) string {
	var escaped []byte
	for i := range len(path) {
		if path[i] == ':' || path[i] == '\\' {
			escaped = append(escaped, '\\')
		}
		escaped = append(escaped, path[i])
	}
	return string(escaped)
}

// Environment is nspawn's whole environment. unified says that the host has a
// cgroup v2 hierarchy: then the guest gets that one alone, because nspawn's own
// guess looks for systemd below /usr of the root, where NixOS has none, and
// would give it v1, which systemd 256 and newer refuse.
func Environment(notifySocket string, unified bool) []string {
	environment := []string{
		"PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"NOTIFY_SOCKET=" + notifySocket,
		// nspawn hands this on to PID 1: no colours in the log.
		"TERM=dumb",
	}
	if unified {
		environment = append(environment, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	}
	return environment
}

// MachineName is the name that nspawn knows a container by. It is the
// container's own in the default state folder; elsewhere it carries the
// instance, so that two state folders do not meet. At most 64 characters.
func MachineName(layout registry.Layout, name string) string {
	if layout.State == registry.DefaultStateDir {
		return name
	}
	const longest = 64
	suffix := "-" + layout.Instance()
	if len(name)+len(suffix) > longest {
		sum := sha256.Sum256([]byte(name))
		suffix = "-" + hex.EncodeToString(sum[:4]) + suffix
		name = name[:longest-len(suffix)]
	}
	return name + suffix
}

// hostUsrVersion is the version of devhost-system.json.
const hostUsrVersion = 1

// HostUsr says whether a system wants the host's /usr: its file
// devhost-system.json, which only channels/offline writes, says so.
func HostUsr(system string) (bool, error) {
	path := filepath.Join(system, "devhost-system.json")
	data, err := readInStore(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read what the system needs: %w", err)
	}
	var wishes struct {
		Version int  `json:"version"`
		HostUsr bool `json:"hostUsr"`
	}
	if err := json.Unmarshal(data, &wishes); err != nil {
		return false, fmt.Errorf("cannot read what the system needs: %s: %w", path, err)
	}
	if wishes.Version != hostUsrVersion {
		return false, fmt.Errorf("%s has version %d, this devhost reads version %d; use the devhost that belongs to the channel", path, wishes.Version, hostUsrVersion)
	}
	return wishes.HostUsr, nil
}

// readInStore reads a small file of a store object. What a guest has built lies
// there too, so links out of the store are not followed, nor is a device or pipe
// waited for.
func readInStore(path string) ([]byte, error) {
	const most = 64 << 10
	store, err := os.OpenRoot(filepath.Dir(filepath.Dir(path)))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	file, err := store.OpenFile(filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path)), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no file", path), err)
	}
	return io.ReadAll(io.LimitReader(file, most))
}

// PrepareRoot makes what nspawn wants to see in a root folder before it starts
// from it: /usr, and with the host's /usr also the links into it that the host
// has (/bin, /lib64 ...). What is there already stays, whatever it is: it
// belongs to the guest.
func PrepareRoot(root string, hostUsr bool) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("cannot make the root folder: %w", err)
	}
	// Mkdir and Symlink do not follow a link of the guest in the last place.
	if err := os.Mkdir(filepath.Join(root, "usr"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot prepare the root folder: %w", err)
	}
	if err := makeStoreFolder(root); err != nil {
		return fmt.Errorf("cannot prepare the root folder: %w", err)
	}
	if !hostUsr {
		return nil
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		target, err := os.Readlink("/" + link)
		if err != nil {
			continue
		}
		if filepath.IsAbs(target) {
			target = target[1:]
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot prepare the root folder: %w", err)
		}
	}
	return nil
}

// makeStoreFolder makes the places for the store and the socket of its daemon,
// and for the guest's own profiles: nspawn would leave /nix to an unmapped user. os.Root keeps a link of the guest from leading elsewhere.
func makeStoreFolder(root string) error {
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, folder := range []string{"nix", "nix/store", "nix/var", "nix/var/nix", "nix/var/nix/daemon-socket", "nix/var/nix/profiles"} {
		// Whatever the guest made of it: nspawn says what does not work.
		if err := inside.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// EmptyRoot makes the root folder of an ephemeral container an empty one, as it
// was first. Links in it are removed, not followed. A limit of what it holds
// stays, and so does the folder.
func EmptyRoot(root string) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	problems := []error{err}
	for _, entry := range entries {
		problems = append(problems, disk.RemoveFolder(filepath.Join(root, entry.Name())))
	}
	// nspawn takes the owner of the folder for that of what lies in it.
	problems = append(problems, os.Chown(root, 0, 0), os.Chmod(root, 0o755))
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("cannot empty the root folder of an ephemeral container: %w", err)
	}
	return nil
}
