package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

// Place is one cgroup in every hierarchy, into which processes are started.
type Place struct {
	// legacy are folders of v1 hierarchies; unified is that of v2, "" for none.
	legacy  []string
	unified string
}

// Top is the container's cgroup itself: where its first process starts.
func (g *Group) Top() Place {
	var place Place
	for _, one := range g.tree.hierarchies {
		if one.unified {
			place.unified = g.folder(one)
		} else {
			place.legacy = append(place.legacy, g.folder(one))
		}
	}
	return place
}

// payload is the cgroup that nspawn makes for the guest, below the one it was
// started in: the root of the guest's cgroup namespace.
const payload = "payload"

// visitors is the leaf for processes that enter a running container. On v2,
// the guest's own cgroups hand controllers down, and may therefore hold no
// processes themselves.
const visitors = "devhost-exec"

// Enter makes and returns the place for processes that enter a running
// container. It lies below the container's limits and inside of what the
// guest sees as its cgroups.
func (g *Group) Enter() (Place, error) {
	var place Place
	for _, one := range g.tree.hierarchies {
		folder := g.folder(one)
		if inside := filepath.Join(folder, payload); isFolder(inside) {
			folder = inside
		}
		if !one.unified {
			place.legacy = append(place.legacy, folder)
			continue
		}
		place.unified = filepath.Join(folder, visitors)
		if err := os.Mkdir(place.unified, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return Place{}, fmt.Errorf("cannot make a cgroup for the command: %w", err)
		}
	}
	return place, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Start starts a process that is in the place from its first instruction on.
func (p Place) Start(runner execx.Runner, command execx.Command) (execx.Process, error) {
	done := make(chan started, 1)
	go p.startFromOwnThread(runner, command, done)
	result := <-done
	return result.process, result.err
}

type started struct {
	process execx.Process
	err     error
}

// startFromOwnThread moves its thread into the v1 cgroups, so that what it
// starts is born there, and lets the thread end with its goroutine. This
// process itself never counts as a member: a process is where its first
// thread is.
func (p Place) startFromOwnThread(runner execx.Runner, command execx.Command, done chan<- started) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot be given up; while it is held here, another
		// goroutine gets another one.
		inner := make(chan started, 1)
		go p.startFromOwnThread(runner, command, inner)
		done <- <-inner
		runtime.UnlockOSThread()
		return
	}
	process, err := p.start(runner, command)
	done <- started{process, err}
}

func (p Place) start(runner execx.Runner, command execx.Command) (execx.Process, error) {
	thread := strconv.Itoa(unix.Gettid())
	for _, folder := range p.legacy {
		if err := writeFile(filepath.Join(folder, "tasks"), thread); err != nil {
			return nil, fmt.Errorf("cannot enter the container's cgroup: %w", err)
		}
	}
	attributes := syscall.SysProcAttr{}
	if command.SysProcAttr != nil {
		attributes = *command.SysProcAttr
	}
	if p.unified != "" {
		folder, err := os.Open(p.unified)
		if err != nil {
			return nil, fmt.Errorf("cannot enter the container's cgroup: %w", err)
		}
		defer folder.Close()
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(folder.Fd())
	}
	command.SysProcAttr = &attributes
	return runner.Start(command)
}
