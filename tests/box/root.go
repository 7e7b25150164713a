package box

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
	"devhost/internal/nix"
)

// fromDistribution are the files of /etc that the box has as the machine's
// distribution installed them: patterns of path.Match. What is missing is left out.
var fromDistribution = []string{
	"alternatives", "bash.bashrc", "ca-certificates.conf", "dbus-1", "debian_version", "default", "environment", "gai.conf",
	"host.conf", "init.d", "inputrc", "iproute2", "issue", "issue.net", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"locale.alias", "localtime", "login.defs", "mime.types", "networks", "nsswitch.conf", "os-release",
	"pam.conf", "pam.d", "perl", "polkit-1", "postgresql-common", "profile", "profile.d", "protocols", "python3*", "redis", "rpc", "security",
	"services", "shells", "skel", "ssl", "subgid", "subuid", "sudo.conf", "terminfo", "timezone", "xattr.conf",
}

// firstDeveloper is the uid and gid of the first of Developers.
const firstDeveloper = 1001

// text is a file that the harness writes.
type text struct {
	path, content string
	mode          fs.FileMode
}

// makeRoot makes the root folder: a Debian host on which an admin has installed
// Nix and made accounts.
func (b *Box) makeRoot(ctx context.Context, options Options) error {
	for _, folder := range []string{
		"usr", "etc", "var/log/journal", "var/tmp", "nix", "root", "srv", "opt", "home", "tmp", "run", "proc", "sys", "dev", "mnt", "media",
		"etc/ssh", "etc/sudoers.d", "etc/nix", "etc/systemd/network",
		"etc/systemd/system/multi-user.target.wants", "etc/systemd/system/sockets.target.wants",
	} {
		if err := os.MkdirAll(filepath.Join(b.Root, folder), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(
		os.Chmod(filepath.Join(b.Root, "var/tmp"), 0o777|fs.ModeSticky), os.Chmod(filepath.Join(b.Root, "root"), 0o700),
		os.MkdirAll(filepath.Join(b.Folder, "usr-local", "bin"), 0o755), os.MkdirAll(filepath.Join(b.Folder, "usr-local", "sbin"), 0o755),
		os.Mkdir(filepath.Join(b.Folder, "keys"), 0o700),
	); err != nil {
		return err
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if target, err := os.Readlink("/" + name); err == nil {
			if err := os.Symlink(target, filepath.Join(b.Root, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range fromDistribution {
		found, err := filepath.Glob(filepath.Join("/etc", name))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := b.copyIn(ctx, path, filepath.Join(b.Root, "etc")); err != nil {
				return err
			}
		}
	}
	for _, source := range []string{"channels", "examples"} {
		if err := b.copyIn(ctx, filepath.Join(options.Sources, source), filepath.Join(b.Root, "srv")); err != nil {
			return err
		}
	}
	if err := b.copyIn(ctx, options.Program, filepath.Join(b.Root, "root/devhost")); err != nil {
		return err
	}
	texts, err := b.texts()
	if err != nil {
		return err
	}
	for _, one := range texts {
		if err := b.write(one); err != nil {
			return err
		}
	}
	if err := b.makeAccounts(ctx); err != nil {
		return err
	}
	return b.enableUnits()
}

// copyIn copies a file or folder with owners and modes; what is missing is left
// out.
func (b *Box) copyIn(ctx context.Context, source, target string) error {
	if _, err := os.Lstat(source); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return execx.New().Run(ctx, execx.Command{Name: "cp", Args: []string{"-a", "--no-preserve=xattr", "--", source, target}})
}

func (b *Box) write(one text) error {
	path := filepath.Join(b.Root, one.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// What was copied may be a link.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(one.content), one.mode); err != nil {
		return err
	}
	return os.Chmod(path, one.mode)
}

// texts are the files that make a host of the root folder.
func (b *Box) texts() ([]text, error) {
	accounts, err := systemAccounts()
	if err != nil {
		return nil, err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return nil, err
	}
	return append(accounts,
		text{"etc/machine-id", strings.ReplaceAll(string(id), "-", ""), 0o444},
		text{"etc/hostname", "box\n", 0o644},
		text{"etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box\n", 0o644},
		// Nobody answers there: the box is offline.
		text{"etc/resolv.conf", "nameserver " + OutsideAddress4 + "\n", 0o644},
		text{"etc/fstab", "", 0o644},
		text{"etc/motd", "", 0o644},
		text{"etc/sudoers", "Defaults env_reset\nDefaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440},
		text{"etc/ssh/sshd_config", sshdConfig, 0o644},
		// channels/offline is built from the host's /usr. This is the whole
		// list, not an addition: see internal/nix/build.go.
		text{"etc/nix/nix.conf", "sandbox = true\nsubstituters =\nsandbox-paths = " + strings.Join(nix.HostSandboxPaths(), " ") + "\n", 0o644},
		text{"etc/systemd/system/nix-daemon.socket", nixSocket, 0o644},
		text{"etc/systemd/system/nix-daemon.service", nixService, 0o644},
		text{"etc/systemd/network/10-eth0.network", uplink, 0o644},
		text{"etc/systemd/journald.conf.d/box.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=200M\n", 0o644},
	), nil
}

const sshdConfig = `UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
# Tests open many connections at once.
MaxStartups 200
MaxSessions 200
`

const nixSocket = `[Unit]
Description=Nix daemon socket

[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket

[Install]
WantedBy=sockets.target
`

const nixService = `[Unit]
Description=Nix daemon
Requires=nix-daemon.socket

[Service]
# The installer of Nix does this: several connections to a daemon without a
# database get into each other's way.
ExecStartPre=/usr/bin/env NIX_REMOTE=local nix-store --init
ExecStart=/usr/bin/env nix-daemon --daemon
KillMode=process
LimitNOFILE=1048576
TasksMax=infinity
`

const uplink = `[Match]
Name=eth0

[Network]
Address=` + Address4 + `/24
Address=` + Address6 + `/64
Gateway=` + OutsideAddress4 + `
Gateway=` + OutsideAddress6 + `
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
`

// lastSystemID is the highest id of accounts that packages make, see
// login.defs(5).
const lastSystemID = 999

// The build users of the box. No account of the box has the id of a build user of
// the machine: a Nix daemon kills all processes of a build user whom it is about to use, and the
// machine's sees those in the box.
const (
	buildGroup   = "nixbld"
	firstBuildID = 30000
	buildUsers   = 8
)

// systemAccounts are passwd, group and shadow with the accounts that the
// machine's packages made, without those that devhost makes.
func systemAccounts() ([]text, error) {
	var files []text
	logins := map[string]bool{}
	for _, name := range []string{"passwd", "group"} {
		data, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			return nil, err
		}
		var content strings.Builder
		for line := range strings.Lines(string(data)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			var id int
			if len(fields) < 4 {
				continue
			}
			if _, err := fmt.Sscan(fields[2], &id); err != nil || id > lastSystemID && id < 65534 || strings.HasPrefix(fields[0], "devhost") {
				continue
			}
			if strings.HasPrefix(fields[0], buildGroup) {
				// Nobody in the box may get the id: see buildUsers.
				fields[0] = fmt.Sprint("taken-", id)
				line = strings.Join(fields, ":") + "\n"
			}
			if name == "passwd" {
				logins[fields[0]] = true
				if fields[0] == "root" {
					line = "root:x:0:0:root:/root:/bin/bash\n"
				}
			} else {
				line = strings.Join(fields[:3], ":") + ":\n"
			}
			content.WriteString(line)
		}
		if name == "group" {
			var members []string
			for n := range buildUsers {
				members = append(members, fmt.Sprint(buildGroup, n+1))
			}
			fmt.Fprintf(&content, "%s:x:%d:%s\n", buildGroup, firstBuildID, strings.Join(members, ","))
		} else {
			for n := range buildUsers {
				login := fmt.Sprint(buildGroup, n+1)
				logins[login] = true
				fmt.Fprintf(&content, "%s:x:%d:%d:Nix build user %d:/var/empty:/usr/sbin/nologin\n", login, firstBuildID+n+1, firstBuildID, n+1)
			}
		}
		files = append(files, text{"etc/" + name, content.String(), 0o644})
	}
	var shadow strings.Builder
	for login := range logins {
		shadow.WriteString(login + ":*:19000:0:99999:7:::\n")
	}
	return append(files, text{"etc/shadow", shadow.String(), 0o640}, text{"etc/gshadow", "", 0o640}), nil
}

// makeAccounts makes the developers' accounts, and keys for them and for root.
func (b *Box) makeAccounts(ctx context.Context) error {
	for i, login := range append([]string{"root"}, Developers...) {
		uid, home := 0, filepath.Join(b.Root, "root")
		if login != "root" {
			uid, home = firstDeveloper+i-1, filepath.Join(b.Root, "home", login)
			for path, line := range map[string]string{
				"etc/passwd": fmt.Sprintf("%s:x:%d:%d:%s:/home/%s:/bin/bash\n", login, uid, uid, login, login),
				"etc/group":  fmt.Sprintf("%s:x:%d:\n", login, uid),
				"etc/shadow": login + ":*:19000:0:99999:7:::\n",
			} {
				if err := appendTo(filepath.Join(b.Root, path), line); err != nil {
					return err
				}
			}
		}
		if err := execx.New().Run(ctx, execx.Command{Name: "ssh-keygen", Args: []string{"-q", "-t", "ed25519", "-N", "", "-C", login, "-f", b.Key(login)}}); err != nil {
			return err
		}
		public, err := os.ReadFile(b.Key(login) + ".pub")
		if err != nil {
			return err
		}
		keys := filepath.Join(home, ".ssh")
		if err := errors.Join(
			os.MkdirAll(keys, 0o700), os.WriteFile(filepath.Join(keys, "authorized_keys"), public, 0o600),
			os.Chown(home, uid, uid), os.Chown(keys, uid, uid), os.Chown(filepath.Join(keys, "authorized_keys"), uid, uid),
			os.Chmod(home, 0o700),
		); err != nil {
			return err
		}
	}
	// Host keys, and what ssh of the users shall know of them.
	hostKey := filepath.Join(b.Root, "etc/ssh/ssh_host_ed25519_key")
	if err := execx.New().Run(ctx, execx.Command{Name: "ssh-keygen", Args: []string{"-q", "-t", "ed25519", "-N", "", "-C", "box", "-f", hostKey}}); err != nil {
		return err
	}
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		return err
	}
	known := fmt.Sprintf("box %s", public)
	return errors.Join(
		os.WriteFile(b.knownHosts(), []byte(known), 0o600),
		os.WriteFile(b.SSHConfig(), []byte(b.sshConfig()), 0o600),
	)
}

func appendTo(path, line string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(line)
	return errors.Join(err, file.Close())
}

// enableUnits enables what a server has running, and turns off what has no
// business in a box.
func (b *Box) enableUnits() error {
	system := filepath.Join(b.Root, "etc/systemd/system")
	for link, target := range map[string]string{
		"multi-user.target.wants/systemd-networkd.service": "/usr/lib/systemd/system/systemd-networkd.service",
		"sockets.target.wants/systemd-networkd.socket":     "/usr/lib/systemd/system/systemd-networkd.socket",
		"dbus-org.freedesktop.network1.service":            "/usr/lib/systemd/system/systemd-networkd.service",
		"multi-user.target.wants/ssh.service":              "/usr/lib/systemd/system/ssh.service",
		"sshd.service":                                     "/usr/lib/systemd/system/ssh.service",
		"multi-user.target.wants/machines.target":          "/usr/lib/systemd/system/machines.target",
		"sockets.target.wants/nix-daemon.socket":           "/etc/systemd/system/nix-daemon.socket",
		"default.target":                                   "/usr/lib/systemd/system/multi-user.target",
		"systemd-networkd-wait-online.service":             "/dev/null",
		"sys-kernel-debug.mount":                           "/dev/null",
		"sys-kernel-tracing.mount":                         "/dev/null",
		"sys-kernel-config.mount":                          "/dev/null",
		"sys-fs-fuse-connections.mount":                    "/dev/null",
		"modprobe@.service":                                "/dev/null",
		"systemd-update-utmp.service":                      "/dev/null",
		"systemd-update-utmp-runlevel.service":             "/dev/null",
		"systemd-binfmt.service":                           "/dev/null",
		"proc-sys-fs-binfmt_misc.automount":                "/dev/null",
		"systemd-modules-load.service":                     "/dev/null",
		"dev-hugepages.mount":                              "/dev/null",
		"getty.target":                                     "/dev/null",
		"console-getty.service":                            "/dev/null",
		"systemd-sysctl.service":                           "/dev/null",
	} {
		if err := os.Symlink(target, filepath.Join(system, link)); err != nil {
			return err
		}
	}
	return nil
}

// removeFiles removes the files of a box, also those that a guest made
// immutable.
func removeFiles(folder string) error {
	err := os.RemoveAll(folder)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walkErr := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			clearFlags(path)
		}
		return err
	})
	return errors.Join(walkErr, os.RemoveAll(folder))
}

// clearFlags makes a folder removable; what it cannot do, the removal says.
func clearFlags(path string) {
	folder, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer folder.Close()
	_ = unix.IoctlSetPointerInt(int(folder.Fd()), unix.FS_IOC_SETFLAGS, 0)
}
