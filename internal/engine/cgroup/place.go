package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"devhost/internal/execx"
)

// Place is one cgroup in every hierarchy, into which processes are started.
type Place struct{ folders []string }

// Top is the container's cgroup itself: where its first process starts.
func (g *Group) Top() Place {
	var place Place
	for _, one := range g.tree.hierarchies {
		place.folders = append(place.folders, g.folder(one))
	}
	return place
}

// payload is the cgroup that nspawn makes for the guest, below the one it was
// started in: the root of the guest's cgroup namespace.
const payload = "payload"

// visitors is the leaf for processes that enter a running container. On v2, a
// cgroup that hands controllers down may hold no processes itself.
const visitors = "devhost-exec"

// Door makes and returns the place for what enters a running container from
// outside. It lies below the container's limits, but outside of what the guest
// sees: a process of another pid namespace would be pid 0 there, which systemd
// takes for an error.
func (g *Group) Door() (Place, error) {
	var place Place
	for _, one := range g.tree.hierarchies {
		folder := g.folder(one)
		if one.unified || isFolder(filepath.Join(folder, payload)) {
			folder = filepath.Join(folder, visitors)
			if err := makeLeaf(folder); err != nil {
				return Place{}, err
			}
		}
		place.folders = append(place.folders, folder)
	}
	return place, nil
}

// Admit moves a process that has entered to where the guest's own processes
// are.
func (g *Group) Admit(pid int) error {
	for _, one := range g.tree.hierarchies {
		folder := filepath.Join(g.folder(one), payload)
		if !isFolder(folder) {
			continue
		}
		if one.unified {
			folder = filepath.Join(folder, visitors)
			if err := makeLeaf(folder); err != nil {
				return err
			}
		}
		if err := writeFile(filepath.Join(folder, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cannot move the command to the guest's cgroup: %w", err)
		}
	}
	return nil
}

func makeLeaf(folder string) error {
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make a cgroup for the command: %w", err)
	}
	return nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// joinScript puts its own process into every cgroup that is named before "--",
// and becomes the command after it. A process that is moved from outside, after
// its start, could have children by then; one that is born into a cgroup
// (CLONE_INTO_CGROUP) can be so in v2 only.
const joinScript = `while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done; shift; exec "$@"`

// Start starts a command that is in the place from its first instruction on.
func (p Place) Start(runner execx.Runner, command execx.Command) (execx.Process, error) {
	program, err := exec.LookPath(command.Name)
	if err != nil {
		return nil, &execx.Error{Argv: command.Argv(), ExitCode: -1, NotFound: true, Err: err}
	}
	arguments := []string{"-c", joinScript, "devhost-join"}
	for _, folder := range p.folders {
		arguments = append(arguments, filepath.Join(folder, "cgroup.procs"))
	}
	arguments = append(append(arguments, "--", program), command.Args...)
	command.Name, command.Args = "/bin/sh", arguments
	return runner.Start(command)
}
