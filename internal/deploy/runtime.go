package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// runtimePrefix begins the names of runtime folders; the process' id follows.
const runtimePrefix = "dhd-"

// RuntimeFolder makes a folder for sockets that nobody else can look into. Its
// path is short: a socket's path has at most 104 characters on macOS, and ssh
// needs 17 of them for itself. The caller removes it; those of runs that were killed
// are removed by the next.
func RuntimeFolder() (string, error) {
	for _, base := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		const longestBase = 60
		if base == "" || len(base) > longestBase {
			continue
		}
		if folder, err := os.MkdirTemp(base, fmt.Sprintf("%s%d-", runtimePrefix, os.Getpid())); err == nil {
			sweep(base)
			return folder, nil
		}
	}
	return "", fmt.Errorf("cannot make a folder for ssh's sockets: neither %s nor /tmp can be written", os.TempDir())
}

// sweep removes the runtime folders of our own that killed runs have left. What
// their connections still do ends by itself.
func sweep(base string) {
	entries, _ := os.ReadDir(base)
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), runtimePrefix)
		number, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(number)
		if !ours || err != nil || pid <= 0 || !entry.IsDir() {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue
		}
		status, known := info.Sys().(*syscall.Stat_t)
		if known && int(status.Uid) == os.Geteuid() && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(filepath.Join(base, entry.Name()))
		}
	}
}
