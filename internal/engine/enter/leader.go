package enter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"devhost/internal/process"
)

// leader is the /proc folder of the guest's PID 1. Descriptors below it are of
// that process or fail; they never become those of a successor.
type leader struct{ folder *os.File }

func openLeader(guest Guest) (*leader, error) {
	if guest.Leader.PID <= 0 {
		return nil, &NotRunning{Name: guest.Name}
	}
	folder, err := os.Open("/proc/" + strconv.Itoa(guest.Leader.PID))
	if errors.Is(err, os.ErrNotExist) {
		return nil, &NotRunning{Name: guest.Name}
	}
	if err != nil {
		return nil, &Error{Name: guest.Name, Reason: err.Error(), Status: statusCannotEnter, Err: err}
	}
	opened := &leader{folder: folder}
	text, err := opened.read("stat")
	if err == nil {
		var stat process.Stat
		stat, err = process.ParseStat(text)
		if err == nil && (stat.Start != guest.Leader.Start || stat.Dead()) {
			err = os.ErrProcessDone
		}
	}
	if err != nil {
		_ = folder.Close()
		return nil, &NotRunning{Name: guest.Name}
	}
	return opened, nil
}

func (l *leader) open(path string, flags int) (*os.File, error) {
	descriptor, err := unix.Openat(int(l.folder.Fd()), path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: l.folder.Name() + "/" + path, Err: err}
	}
	return os.NewFile(uintptr(descriptor), path), nil
}

func (l *leader) read(path string) ([]byte, error) {
	file, err := l.open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// namespace is one namespace of the guest, with nsenter's option for it.
type namespace struct {
	option string
	file   *os.File
}

// namespaces opens all namespaces of the guest that are not the host's. What it
// returns is to be closed also with an error.
func (l *leader) namespaces() ([]namespace, error) {
	var opened []namespace
	for _, kind := range []struct{ option, link string }{
		{"user", "user"}, {"mount", "mnt"}, {"uts", "uts"}, {"ipc", "ipc"}, {"net", "net"}, {"pid", "pid"}, {"cgroup", "cgroup"}, {"time", "time"},
	} {
		var own unix.Stat_t
		if err := unix.Stat("/proc/self/ns/"+kind.link, &own); err != nil {
			// This kernel has no such namespaces.
			continue
		}
		file, err := l.open("ns/"+kind.link, unix.O_RDONLY)
		if err != nil {
			return opened, err
		}
		var theirs unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &theirs); err != nil {
			_ = file.Close()
			return opened, err
		}
		if theirs.Ino == own.Ino && theirs.Dev == own.Dev {
			_ = file.Close()
			continue
		}
		opened = append(opened, namespace{option: kind.option, file: file})
	}
	return opened, nil
}

// boundingSet is the set of capabilities that no process of the guest can go
// beyond, as in /proc/PID/status.
func (l *leader) boundingSet() (uint64, error) {
	text, err := l.read("status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "CapBnd:"); found {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.New("the kernel does not say which capabilities the guest has")
}

// rootIDs are the host's ids of the guest's root user and group.
func (l *leader) rootIDs() (uid, gid int, err error) {
	if uid, err = l.rootID("uid_map"); err != nil {
		return 0, 0, err
	}
	gid, err = l.rootID("gid_map")
	return uid, gid, err
}

func (l *leader) rootID(file string) (int, error) {
	text, err := l.read(file)
	if err != nil {
		return 0, err
	}
	return process.RootID(string(text))
}

// onlyChild finds the session that nsenter started.
func onlyChild(parent int) (process.ID, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		return process.ID{}, err
	}
	children := strings.Fields(string(text))
	if len(children) != 1 {
		return process.ID{}, fmt.Errorf("nsenter has %d children", len(children))
	}
	pid, err := strconv.Atoi(children[0])
	if err != nil {
		return process.ID{}, err
	}
	return process.Of(pid)
}

// copyLimits gives a process the resource limits and the standing with the
// out-of-memory killer that another one has. Without CAP_SYS_RESOURCE limits
// cannot be raised: the session then has what its caller has.
func copyLimits(from, to int) error {
	const limits = unix.RLIMIT_RTTIME + 1
	for resource := range limits {
		var limit unix.Rlimit
		if err := prlimit(from, resource, nil, &limit); err != nil {
			return err
		}
		err := prlimit(to, resource, &limit, nil)
		if errors.Is(err, unix.EPERM) {
			var own unix.Rlimit
			if err := prlimit(to, resource, nil, &own); err != nil {
				return err
			}
			limit.Max = min(limit.Max, own.Max)
			limit.Cur = min(limit.Cur, limit.Max)
			err = prlimit(to, resource, &limit, nil)
		}
		if err != nil {
			return err
		}
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", from))
	if err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", to), score, 0)
}

func prlimit(pid, resource int, set, get *unix.Rlimit) error {
	if err := unix.Prlimit(pid, resource, set, get); err != nil {
		return fmt.Errorf("prlimit %d: %w", resource, err)
	}
	return nil
}
