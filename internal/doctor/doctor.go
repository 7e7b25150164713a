// Package doctor looks at a host and says whether it can run containers, and
// what to do about what is missing.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"devhost/internal/engine/supervisor"
	"devhost/internal/execx"
	"devhost/internal/idmap"
	"devhost/internal/network"
	"devhost/internal/nix"
)

// Level says how bad a finding is.
type Level string

// The levels of findings. Only Problem keeps containers from working.
const (
	Good    Level = "ok"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	// Remedy is what to do, "" where nothing is to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Host is what doctor looks at. The fields are for tests to replace.
type Host struct {
	Runner execx.Runner
	// StateDir is the state folder, or where it will be.
	StateDir string
	// Domain is the public domain below which containers are reached.
	Domain string
	// Ports are the TCP ports that the ingress wants.
	Ports []int
	// Root is where /proc, /etc and /nix are read, "/" in life.
	Root string
	// UID is the effective user id.
	UID int
	// Idmap makes an idmapped mount of a folder and removes it: TryIdmap.
	Idmap func(ctx context.Context, folder string) error
	// Listen is that of net.ListenConfig.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	// Free is how much room, in bytes, the file system of a folder has: FreeBytes.
	Free func(folder string) (int64, error)
	// Quotas says whether the file system of a folder bounds what projects hold:
	// disk.Host's Enforces.
	Quotas func(folder string) bool
	// LookupHost is that of net.Resolver.
	LookupHost func(ctx context.Context, name string) ([]string, error)
	// ForwardDrops finds rules of others that drop forwarded traffic.
	ForwardDrops func() ([]network.Finding, error)
	// Containers says what is wrong with the network of the containers that
	// there are.
	Containers func() ([]network.Trouble, error)
	// Resolvers are those of containers: network.ResolvConf.
	Resolvers func() (network.Resolvers, error)
	// Settings says what keeps the host's settings from being used.
	Settings func() error
	// Certificates are findings about the ingress's certificates.
	Certificates func() []Finding
}

// The oldest versions that are known to work.
const (
	oldestNspawn = "252"
	oldestNix    = "2.8"
)

// Examine makes all checks, in a fixed order.
func (h *Host) Examine(ctx context.Context) []Finding {
	var findings []Finding
	for _, check := range []func(context.Context) []Finding{
		h.root, h.settings, h.userNamespaces, h.inotify, h.idmappedMounts, h.diskLimits, h.nspawn, h.nix, h.buildUsers, h.store, h.nftables, h.containers, h.resolvers, h.ports, h.certificates, h.dns,
	} {
		findings = append(findings, check(ctx)...)
	}
	return findings
}

// Healthy tells whether no finding is a problem.
func Healthy(findings []Finding) bool {
	for _, finding := range findings {
		if finding.Level == Problem {
			return false
		}
	}
	return true
}

func one(check string, level Level, detail, remedy string) []Finding {
	return []Finding{{Check: check, Level: level, Detail: detail, Remedy: remedy}}
}

func (h *Host) path(path string) string { return filepath.Join(h.Root, path) }

func (h *Host) root(context.Context) []Finding {
	if h.UID == 0 {
		return one("root", Good, "running as root", "")
	}
	return one("root", Warning, "not running as root: some checks cannot be made", "run: sudo devhost doctor")
}

func (h *Host) userNamespaces(context.Context) []Finding {
	const check = "user namespaces"
	data, err := os.ReadFile(h.path("/proc/sys/user/max_user_namespaces"))
	if err != nil {
		return one(check, Problem, "the kernel has none", "use a kernel with CONFIG_USER_NS")
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || most == 0 {
		return one(check, Problem, "they are switched off", "run: sysctl -w user.max_user_namespaces=65536, and put it into /etc/sysctl.d/devhost.conf")
	}
	return one(check, Good, fmt.Sprintf("up to %d", most), "")
}

// existing is the nearest existing folder of a path.
func existing(path string) string {
	for {
		if info, err := os.Stat(path); (err == nil && info.IsDir()) || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}

func (h *Host) idmappedMounts(ctx context.Context) []Finding {
	const check = "idmapped mounts"
	folder := existing(h.StateDir)
	if h.UID != 0 {
		return one(check, Warning, "cannot be tried without root", "run: sudo devhost doctor")
	}
	if err := h.Idmap(ctx, folder); err != nil {
		return one(check, Problem, fmt.Sprintf("do not work at %s: %v", folder, err),
			"use Linux 5.12 or newer and a state folder on ext4, btrfs or xfs (--state-dir, or mount one at "+h.StateDir+")")
	}
	return one(check, Good, "work at "+folder, "")
}

// TryIdmap makes an idmapped mount of the folder that is attached nowhere. It
// needs root.
func TryIdmap(ctx context.Context, runner execx.Runner, folder string) error {
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer opened.Close()
	mapped := []idmap.Mapping{{Disk: 0, Shown: 1 << 20, Size: 1 << 16}}
	tree, err := idmap.Tree(ctx, runner, opened, mapped, mapped)
	if err != nil {
		return err
	}
	return tree.Close()
}

var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)*`)

func (h *Host) programVersion(ctx context.Context, program string) (string, error) {
	// Nix looks into HOME even for this, and aborts where it may not (after su
	// or setpriv, HOME can be that of root).
	environment := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	output, err := h.Runner.Output(ctx, execx.Command{Name: program, Args: []string{"--version"}, Env: environment, Timeout: 30 * time.Second})
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(output), "\n")
	version := versionNumber.FindString(first)
	if version == "" {
		return "", fmt.Errorf("%s --version says %q", program, first)
	}
	return version, nil
}

func missing(err error) bool {
	var failed *execx.Error
	return errors.As(err, &failed) && failed.NotFound
}

func (h *Host) nspawn(ctx context.Context) []Finding {
	return h.program(ctx, "systemd-nspawn", "systemd-nspawn", oldestNspawn,
		"install it: apt-get install systemd-container (Debian 12 or newer, Ubuntu 24.04)")
}

func (h *Host) nix(ctx context.Context) []Finding {
	return h.program(ctx, "Nix", "nix", oldestNix, "install it: apt-get install nix-bin, or see https://nixos.org/download")
}

// program checks that a program is there and new enough.
func (h *Host) program(ctx context.Context, check, program, oldest, remedy string) []Finding {
	version, err := h.programVersion(ctx, program)
	switch {
	case missing(err):
		return one(check, Problem, "is not installed", remedy)
	case err != nil:
		return one(check, Problem, err.Error(), fmt.Sprintf("see what %s --version says, and install it again", program))
	case older(version, oldest):
		return one(check, Problem, fmt.Sprintf("version %s is too old: %s or newer is needed", version, oldest), remedy)
	}
	return one(check, Good, "version "+version, "")
}

// older compares dotted version numbers.
func older(version, than string) bool {
	a, b := strings.Split(version, "."), strings.Split(than, ".")
	for i := range b {
		if i >= len(a) {
			return true
		}
		x, _ := strconv.Atoi(a[i])
		y, _ := strconv.Atoi(b[i])
		if x != y {
			return x < y
		}
	}
	return false
}

func (h *Host) buildUsers(ctx context.Context) []Finding {
	const check = "build users"
	settings, err := nix.ReadSettings(h.Root)
	if err != nil {
		return one(check, Problem, err.Error(), "mend "+nix.ConfigFile+", see: man nix.conf")
	}
	findings := h.buildGroup(ctx, check, settings)
	if setting, found := settings["sandbox"]; found && setting != "true" {
		findings = append(findings, Finding{Check: check, Level: Problem, Detail: fmt.Sprintf("sandbox = %s in %s: builders would see the host's files", setting, nix.ConfigFile), Remedy: "set sandbox = true there and restart nix-daemon"})
	}
	return findings
}

func (h *Host) buildGroup(ctx context.Context, check string, settings map[string]string) []Finding {
	users, err := nix.FindBuildUsers(ctx, h.Runner, h.Root, settings)
	var none *nix.NoBuildUsers
	switch {
	case errors.As(err, &none):
		return one(check, Problem, none.Reason+": builders would be root", none.Remedy())
	case err != nil:
		return one(check, Problem, err.Error(), "see what this says: getent group nixbld")
	case users.Allocated:
		return one(check, Good, "Nix allocates them (auto-allocate-uids)", "")
	}
	return one(check, Good, fmt.Sprintf("%d in group %s", users.Members, users.Group), "")
}

// inotify says how many guests the kernel's limit lets run. It is no problem:
// what starts a container raises the limit.
func (h *Host) inotify(context.Context) []Finding {
	const (
		check = "inotify instances"
		name  = "fs.inotify.max_user_instances"
	)
	text, err := os.ReadFile(h.path("/proc/sys/fs/inotify/max_user_instances"))
	if err != nil {
		return one(check, Warning, "cannot be looked at: "+err.Error(), "use a kernel with CONFIG_INOTIFY_USER, and mount /proc")
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	switch {
	case err != nil:
		return one(check, Warning, fmt.Sprintf("%s is %q", name, text), fmt.Sprintf("run: sysctl -w %s=%d", name, supervisor.InotifyInstances))
	case most < supervisor.InotifyInstances:
		return one(check, Good, fmt.Sprintf("%d (%s), which is enough for few containers; devhost raises it to %d when it starts one", most, name, supervisor.InotifyInstances), "")
	}
	return one(check, Good, fmt.Sprintf("up to %d", most), "")
}

// resolvers says what containers resolve names with.
func (h *Host) resolvers(context.Context) []Finding {
	const check = "resolvers"
	resolvers, err := h.Resolvers()
	if err != nil {
		return one(check, Warning, err.Error(), "mend /etc/resolv.conf, see: man resolv.conf")
	}
	var findings []Finding
	if len(resolvers.Upstream) > 0 {
		addresses := make([]string, len(resolvers.Upstream))
		for i, address := range resolvers.Upstream {
			addresses[i] = address.String()
		}
		findings = one(check, Good, fmt.Sprintf("containers use %s (%s)", strings.Join(addresses, ", "), resolvers.Source), "")
	}
	for _, note := range resolvers.Notes {
		detail := strings.TrimSuffix(note, "; "+network.ResolverRemedy)
		findings = append(findings, Finding{Check: check, Level: Warning, Detail: detail, Remedy: network.ResolverRemedy})
	}
	return findings
}

func (h *Host) store(ctx context.Context) []Finding {
	const check = "store"
	var findings []Finding
	if nix.Answers(ctx, h.path(nix.DefaultSocket)) == nil {
		findings = one(check, Good, "a Nix daemon answers", "")
	} else {
		findings = one(check, Good, "no Nix daemon runs yet; devhost starts one when it needs it", "")
	}
	folder := existing(h.path("/nix/store"))
	free, err := h.Free(folder)
	if err != nil {
		return append(findings, Finding{Check: check, Level: Problem, Detail: fmt.Sprintf("cannot look at %s: %v", folder, err), Remedy: "make the file system of /nix available"})
	}
	const least = 4 << 30
	if free < least {
		return append(findings, Finding{Check: check, Level: Warning, Detail: fmt.Sprintf("only %.1f GiB free at %s", float64(free)/(1<<30), folder), Remedy: "free space: nix-collect-garbage --delete-older-than 30d"})
	}
	return append(findings, Finding{Check: check, Level: Good, Detail: fmt.Sprintf("%.0f GiB free at %s", float64(free)/(1<<30), folder)})
}

// FreeBytes is how much users who are not root can still write at a folder.
func FreeBytes(folder string) (int64, error) {
	var free unix.Statfs_t
	if err := unix.Statfs(folder, &free); err != nil {
		return 0, err
	}
	return int64(free.Bavail) * free.Bsize, nil
}

func (h *Host) nftables(context.Context) []Finding {
	const check = "nftables"
	if h.UID != 0 {
		return one(check, Warning, "cannot be read without root", "run: sudo devhost doctor")
	}
	drops, err := h.ForwardDrops()
	if err != nil {
		return one(check, Problem, err.Error(), "use a kernel with nf_tables (modprobe nf_tables)")
	}
	findings := one(check, Good, "can be used", "")
	for _, drop := range drops {
		detail := fmt.Sprintf("%s table %s, chain %s: %s", drop.Family, drop.Table, drop.Chain, drop.What)
		findings = append(findings, Finding{Check: "foreign forward rules", Level: Warning, Detail: detail, Remedy: drop.Remedy})
	}
	if len(drops) == 0 {
		findings = append(findings, Finding{Check: "foreign forward rules", Level: Good, Detail: "none drops the traffic of containers"})
	}
	return findings
}

func (h *Host) containers(context.Context) []Finding {
	const check = "containers' network"
	if h.UID != 0 {
		return one(check, Warning, "cannot be looked at without root", "run: sudo devhost doctor")
	}
	troubles, err := h.Containers()
	if err != nil {
		return one(check, Warning, err.Error(), "make it anew: sudo devhost boot")
	}
	if len(troubles) == 0 {
		return one(check, Good, "as it shall be", "")
	}
	findings := make([]Finding, len(troubles))
	for i, trouble := range troubles {
		findings[i] = Finding{Check: check, Level: Warning, Detail: trouble.What, Remedy: trouble.Remedy}
	}
	return findings
}

func (h *Host) ports(ctx context.Context) []Finding {
	var findings []Finding
	for _, port := range h.Ports {
		check := fmt.Sprintf("port %d", port)
		listener, err := h.Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		switch {
		case err == nil:
			_ = listener.Close()
			findings = append(findings, Finding{Check: check, Level: Good, Detail: "is free"})
		case errors.Is(err, fs.ErrPermission):
			findings = append(findings, Finding{Check: check, Level: Warning, Detail: "cannot be tried without root", Remedy: "run: sudo devhost doctor"})
		default:
			findings = append(findings, Finding{Check: check, Level: Warning, Detail: "is taken", Remedy: fmt.Sprintf("if that is not devhost's ingress, stop what holds it (ss -ltnp 'sport = :%d'), or choose other ports for devhost ingress", port)})
		}
	}
	return findings
}

func (h *Host) dns(ctx context.Context) []Finding {
	const check = "DNS"
	if h.Domain == "localhost" || strings.HasSuffix(h.Domain, ".localhost") {
		return one(check, Good, h.Domain+" is this machine by itself; for others, choose a public domain with --domain", "")
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	remedy := fmt.Sprintf("add to the zone: %s and *.%s as A/AAAA (or CNAME) of this host's public address", h.Domain, h.Domain)
	var findings []Finding
	for _, name := range []string{h.Domain, "check-" + hex.EncodeToString(random) + "." + h.Domain} {
		limited, cancel := context.WithTimeout(ctx, 3*time.Second)
		addresses, err := h.LookupHost(limited, name)
		cancel()
		if err != nil || len(addresses) == 0 {
			findings = append(findings, Finding{Check: check, Level: Warning, Detail: name + " does not resolve", Remedy: remedy})
			continue
		}
		findings = append(findings, Finding{Check: check, Level: Good, Detail: name + " is " + strings.Join(addresses, ", ")})
	}
	return findings
}

func (h *Host) certificates(context.Context) []Finding { return h.Certificates() }

func (h *Host) settings(context.Context) []Finding {
	if err := h.Settings(); err != nil {
		return []Finding{{Check: "settings", Level: Problem, Detail: strings.Join(strings.Fields(err.Error()), " "), Remedy: "correct the file, and check it with: devhost host check"}}
	}
	return []Finding{{Check: "settings", Level: Good, Detail: "they can be used"}}
}
