package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"devhost/internal/registry"
)

// LimitError says that a limit does not hold.
type LimitError struct {
	// Name is the container's.
	Name string
	// Limit is "memory", "cpu", "task" or "io".
	Limit string
	// Value is what was asked for.
	Value string
	Err   error
}

func (l *LimitError) Error() string {
	reason := l.Err.Error()
	switch {
	case errors.Is(l.Err, errNoController):
		reason = "this machine has no " + l.Limit + " controller in its cgroups; start without that limit, or turn the controller on (see cgroups(7))"
	case errors.Is(l.Err, unix.EBUSY):
		reason = fmt.Sprintf("it uses more already; end something in it, or stop it with: devhost stop %[1]s, and then give it the limit with: devhost ensure %[1]s --memory ...", l.Name)
	}
	return fmt.Sprintf("the %s limit %s of container %s cannot be set: %s", l.Limit, l.Value, l.Name, reason)
}

func (l *LimitError) Unwrap() error { return l.Err }

var errNoController = errors.New("no controller")

// cpuPeriod is the kernel's period for processor time, in microseconds.
const cpuPeriod = 100_000

// SetLimits sets all limits, on a running container too; zero removes one.
// Swap is not granted on top of memory. A weight for disks is left out where
// Tree.IOWeight says that there is none. The error is a *LimitError.
func (g *Group) SetLimits(limits registry.Limits) error {
	if err := g.setMemory(limits.MemoryBytes); err != nil {
		return &LimitError{Name: g.container, Limit: "memory", Value: fmt.Sprintf("of %d bytes", limits.MemoryBytes), Err: err}
	}
	if err := g.setCPU(limits.CPUs); err != nil {
		return &LimitError{Name: g.container, Limit: "cpu", Value: fmt.Sprintf("of %g processors", limits.CPUs), Err: err}
	}
	if err := g.setTasks(limits.Tasks); err != nil {
		return &LimitError{Name: g.container, Limit: "task", Value: fmt.Sprintf("of %d", limits.Tasks), Err: err}
	}
	if err := g.setIOWeight(limits.IOWeight); err != nil {
		return &LimitError{Name: g.container, Limit: "io", Value: fmt.Sprintf("weight %d", limits.IOWeight), Err: err}
	}
	return nil
}

// controlled is the folder where a controller's files are.
func (g *Group) controlled(controller string) (folder string, unified, found bool) {
	for _, one := range g.tree.hierarchies {
		if slices.Contains(one.controllers, controller) {
			return g.folder(one), one.unified, true
		}
	}
	return "", false, false
}

// set writes a control file. Where it is missing, that is an error only when
// there is a limit to set.
func set(folder, file, value string, limited bool) error {
	err := writeFile(filepath.Join(folder, file), value)
	if errors.Is(err, fs.ErrNotExist) {
		if !limited {
			return nil
		}
		return fmt.Errorf("%w: %s", errNoController, filepath.Join(folder, file))
	}
	return err
}

func (g *Group) setMemory(bytes int64) error {
	folder, unified, found := g.controlled("memory")
	limited := bytes > 0
	if !found {
		return missing(limited)
	}
	if unified {
		return setMemoryUnified(folder, bytes)
	}
	value := "-1"
	if limited {
		value = strconv.FormatInt(bytes, 10)
	}
	// Memory with swap must never be below memory: which of the two comes
	// first depends on the direction.
	const memory, withSwap = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	err := set(folder, memory, value, limited)
	if err == nil {
		return set(folder, withSwap, value, false)
	}
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := set(folder, withSwap, value, false); err != nil {
		return err
	}
	return set(folder, memory, value, limited)
}

func setMemoryUnified(folder string, bytes int64) error {
	if bytes <= 0 {
		if err := set(folder, "memory.max", "max", false); err != nil {
			return err
		}
		return set(folder, "memory.swap.max", "max", false)
	}
	if err := reclaim(folder, bytes); err != nil {
		return err
	}
	if err := set(folder, "memory.max", strconv.FormatInt(bytes, 10), true); err != nil {
		return err
	}
	return set(folder, "memory.swap.max", "0", false)
}

// reclaim presses the use of memory below a limit. Writing memory.max below the
// use kills processes; memory.high reclaims first, so that a limit that does not
// fit can be refused instead: the error is EBUSY then.
func reclaim(folder string, bytes int64) error {
	if err := set(folder, "memory.high", strconv.FormatInt(bytes, 10), true); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(folder, "memory.current"))
	current, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	fits := err != nil || parseErr != nil || current <= bytes
	if err := set(folder, "memory.high", "max", true); err != nil {
		return err
	}
	if !fits {
		return fmt.Errorf("%d bytes are in use: %w", current, unix.EBUSY)
	}
	return nil
}

func (g *Group) setCPU(processors float64) error {
	folder, unified, found := g.controlled("cpu")
	limited := processors > 0
	if !found {
		return missing(limited)
	}
	// The kernel takes no less than a millisecond in a period.
	quota := max(int64(processors*cpuPeriod), 1000)
	if unified {
		value := "max"
		if limited {
			value = strconv.FormatInt(quota, 10)
		}
		return set(folder, "cpu.max", fmt.Sprintf("%s %d", value, cpuPeriod), limited)
	}
	if !limited {
		quota = -1
	}
	if err := set(folder, "cpu.cfs_period_us", strconv.Itoa(cpuPeriod), limited); err != nil {
		return err
	}
	return set(folder, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10), limited)
}

func (g *Group) setTasks(tasks int64) error {
	folder, _, found := g.controlled("pids")
	limited := tasks > 0
	if !found {
		return missing(limited)
	}
	value := "max"
	if limited {
		value = strconv.FormatInt(tasks, 10)
	}
	return set(folder, "pids.max", value, limited)
}

func missing(limited bool) error {
	if limited {
		return errNoController
	}
	return nil
}
