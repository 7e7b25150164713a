package devhost

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/person"
)

// keptVariables may be handed on by who calls sudo: the language and the
// terminal, who called, and what devhost itself reads and checks. A name that
// ends with _ stands for all that begin so.
var keptVariables = []string{
	"TERM", "COLORTERM", "NO_COLOR", "LANG", "LANGUAGE", "LC_", "TZ",
	"SUDO_", "PKEXEC_UID", "DOAS_USER", "DEVHOST_STATE_DIR", "DEVHOST_DEBUG", "DEVHOST_DOMAIN",
}

// cleanEnvironment takes away what a person who speaks through root could have
// set: variables, where sudo was told to keep them (programs that run as root
// read PATH, LD_PRELOAD, NIX_CONFIG, GIT_SSH_COMMAND, TMPDIR ...), the umask and
// resource limits.
func cleanEnvironment() {
	if os.Geteuid() != 0 {
		return
	}
	if speaker, err := person.Current(); err == nil && speaker.UID == 0 {
		return
	}
	home := "/root"
	if root, err := person.Lookup("0"); err == nil && root.Home != "" {
		home = root.Home
	}
	kept := cleaned(os.Environ(), home)
	os.Clearenv()
	for name, value := range kept {
		_ = os.Setenv(name, value)
	}
	// Files that all must read, and those that root writes, are neither closed
	// nor cut off by what a shell's umask and ulimit say.
	const usualMask = 0o022
	_ = unix.Umask(usualMask)
	usualLimits()
}

// usualLimits takes the resource limits of the host's first process, as far as
// that is allowed.
func usualLimits() {
	const resources = unix.RLIMIT_RTTIME + 1
	for resource := range resources {
		var usual, own unix.Rlimit
		if unix.Prlimit(1, resource, nil, &usual) != nil || unix.Prlimit(0, resource, &usual, nil) == nil {
			continue
		}
		// Without CAP_SYS_RESOURCE, hard limits only go down.
		if unix.Prlimit(0, resource, nil, &own) == nil {
			_ = unix.Prlimit(0, resource, &unix.Rlimit{Cur: min(usual.Cur, own.Max), Max: own.Max}, nil)
		}
	}
}

// cleaned is what of an environment stays.
func cleaned(environ []string, home string) map[string]string {
	kept, path := map[string]string{}, ""
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if name == "PATH" {
			path = value
		}
		if slices.ContainsFunc(keptVariables, func(allowed string) bool {
			return name == allowed || strings.HasSuffix(allowed, "_") && strings.HasPrefix(name, allowed)
		}) {
			kept[name] = value
		}
	}
	kept["PATH"], kept["HOME"], kept["USER"], kept["LOGNAME"] = rootsFolders(path), home, "root", "root"
	return kept
}

// usualPath is for who has no folder of root's on their PATH.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// rootsFolders are the folders of a PATH in which only root can put programs.
func rootsFolders(path string) string {
	var kept []string
	for _, folder := range filepath.SplitList(path) {
		if filepath.IsAbs(folder) && onlyRoots(folder) {
			kept = append(kept, folder)
		}
	}
	if len(kept) == 0 {
		return usualPath
	}
	return strings.Join(kept, string(filepath.ListSeparator))
}

// onlyRoots tells whether only root can change what a path leads to.
func onlyRoots(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	// Both ways down count: that of the links, and that to where they lead.
	for _, way := range []string{filepath.Clean(path), real} {
		for at := way; ; at = filepath.Dir(at) {
			info, err := os.Lstat(at)
			if err != nil {
				return false
			}
			status, ok := info.Sys().(*syscall.Stat_t)
			const othersWrite = 0o022
			isLink := info.Mode()&os.ModeSymlink != 0
			// In a folder with the sticky bit, what is root's stays.
			shared := !isLink && info.Mode().Perm()&othersWrite != 0 && (info.Mode()&os.ModeSticky == 0 || at == way)
			if !ok || status.Uid != 0 || shared {
				return false
			}
			if at == "/" {
				break
			}
		}
	}
	return true
}
