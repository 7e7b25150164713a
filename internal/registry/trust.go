package registry

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Untrusted says that somebody other than root could exchange the state folder
// or what is in it.
type Untrusted struct {
	// State is the state folder, Path the part of its path that is at fault.
	State, Path string
	Reason      string
}

func (u *Untrusted) Error() string {
	return fmt.Sprintf("the state folder %s cannot be used: %s %s, so root's files could be exchanged there; use a folder that is root's on the way down from /, such as %s",
		u.State, u.Path, u.Reason, DefaultStateDir)
}

// CheckTrusted refuses a state folder that somebody other than root could
// exchange for another one: who may run "sudo devhost" gives the path, and root
// makes, changes and removes what lies below it. The error is *Untrusted or
// that of the file system.
func (l Layout) CheckTrusted() error {
	const mostLinks = 40
	path := l.State
	for range mostLinks {
		target, err := l.checkWay(path)
		if err != nil || target == "" {
			return err
		}
		path = target
	}
	return &Untrusted{State: l.State, Path: path, Reason: "is a link without an end"}
}

// Unknown says that a state folder is not one that root has made containers in.
type Unknown struct{ State string }

func (u *Unknown) Error() string {
	return fmt.Sprintf("the state folder %s cannot be used by way of sudo: there, only %s and folders in which root has made a container count, because root's files can also lie where others write, as in the root folder of a container; whoever is root may make the first container in it as root itself: sudo env -u SUDO_UID devhost ...",
		u.State, DefaultStateDir)
}

// CheckKnown refuses a state folder that a person who speaks through root (by
// sudo) cannot have made themselves somewhere: what is published of it lies in
// /etc. The error is *Unknown.
func (l Layout) CheckKnown() error {
	if l.State == DefaultStateDir {
		return nil
	}
	// The folder's name holds only a short hash of the path.
	path, err := os.ReadFile(l.PublishedState())
	if err != nil || string(path) != l.State+"\n" {
		return &Unknown{State: l.State}
	}
	return nil
}

// checkWay checks each folder from / down to path. At a symbolic link it stops
// and returns where path really lies.
func (l Layout) checkWay(path string) (target string, err error) {
	at, shared := "/", false
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		switch {
		case os.IsNotExist(err) && shared:
			return "", &Untrusted{State: l.State, Path: at, Reason: "does not exist, and anybody could make it first"}
		case os.IsNotExist(err):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("cannot look at the state folder: %w", err)
		}
		if status, ok := info.Sys().(*syscall.Stat_t); ok && status.Uid != 0 {
			return "", &Untrusted{State: l.State, Path: at, Reason: fmt.Sprintf("belongs to uid %d", status.Uid)}
		}
		if info.Mode()&os.ModeSymlink != 0 {
			link, err := os.Readlink(at)
			if err != nil {
				return "", fmt.Errorf("cannot look at the state folder: %w", err)
			}
			// Behind the name of a link, ".." leads elsewhere than it reads.
			if strings.Contains("/"+strings.TrimLeft(link, "./")+"/", "/../") {
				return "", &Untrusted{State: l.State, Path: at, Reason: "is a link with '..' in the middle"}
			}
			if !filepath.IsAbs(link) {
				link = filepath.Join(filepath.Dir(at), link)
			}
			return filepath.Join(append([]string{link}, parts[i+1:]...)...), nil
		}
		if !info.IsDir() {
			return "", &Untrusted{State: l.State, Path: at, Reason: "is no folder"}
		}
		const othersWrite = 0o022
		shared = info.Mode().Perm()&othersWrite != 0
		last := i == len(parts)-1
		if _, err := os.Lstat(filepath.Join(at, filepath.Base(l.Marker()))); err == nil && !last {
			return "", &Untrusted{State: l.State, Path: at, Reason: "is a state folder itself, and guests write below it"}
		}
		if shared && (last || info.Mode()&os.ModeSticky == 0) {
			return "", &Untrusted{State: l.State, Path: at, Reason: "can be written by others"}
		}
	}
	return "", nil
}
