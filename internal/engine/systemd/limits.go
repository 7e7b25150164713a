package systemd

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/supervisor"
	"devhost/internal/registry"
)

const (
	// infinity is how systemd writes that there is no limit.
	infinity = uint64(math.MaxUint64)
	// usualTasks is the limit of a container without one of its own, as in
	// the template.
	usualTasks = 16384
	// microseconds are those of a second.
	microseconds = 1_000_000
)

// properties are the limits in systemd's words, see systemd.resource-control(5).
// All are always given: they replace those of an earlier container of the name.
func properties(limits registry.Limits) []dbus.Property {
	memory, swap, cpu, tasks, weight := infinity, infinity, infinity, uint64(usualTasks), infinity
	if limits.MemoryBytes > 0 {
		// Swap is not granted on top of memory.
		memory, swap = uint64(limits.MemoryBytes), 0
	}
	if limits.CPUs > 0 {
		cpu = uint64(limits.CPUs * microseconds)
	}
	if limits.Tasks > 0 {
		tasks = uint64(limits.Tasks)
	}
	if limits.IOWeight > 0 {
		weight = uint64(limits.IOWeight)
	}
	var all []dbus.Property
	for _, property := range []struct {
		name  string
		value uint64
	}{
		// In the order of names: systemd says that files changed on disk where
		// it had written them in another one.
		{"CPUQuotaPerSecUSec", cpu}, {"IOWeight", weight}, {"MemoryMax", memory}, {"MemorySwapMax", swap}, {"TasksMax", tasks},
	} {
		all = append(all, dbus.Property{Name: property.name, Value: godbus.MakeVariant(property.value)})
	}
	return all
}

// Limit gives the unit of a container that starts its limits. Without any, and
// without those of an earlier start, there is nothing to do: systemd has forgotten
// what it knew of a unit that powered off.
func (e *Engine) Limit(ctx context.Context, name string, limits registry.Limits) error {
	limits.DiskBytes = 0
	if _, err := os.Lstat(e.limitsFolder(name)); err != nil && limits == (registry.Limits{}) {
		return nil
	}
	return e.setProperties(ctx, name, limits)
}

// setProperties sets the limits of a unit, whether it runs or not; they are lost
// when the host shuts down. systemd sets what the host's cgroups can do, and says
// in the journal what they cannot.
func (e *Engine) setProperties(ctx context.Context, name string, limits registry.Limits) error {
	connection, err := connect(ctx)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetUnitPropertiesContext(ctx, e.unit(name), true, properties(limits)...); err != nil {
		return fmt.Errorf("systemd does not set the limits of container %s: %w", name, err)
	}
	return nil
}

// SetLimits changes the limits of a running container; one that does not run
// gets them from its record when it starts. The error is a *cgroup.LimitError
// when it uses more memory already.
func (e *Engine) SetLimits(ctx context.Context, name string, limits registry.Limits) error {
	record, err := supervisor.ReadRecord(e.Layout, name)
	if err != nil || record == nil || !record.Supervisor.Alive() {
		return err
	}
	group, err := e.group(name, record)
	if err != nil {
		return err
	}
	if err := group.MakeRoom(limits.MemoryBytes); err != nil {
		return err
	}
	return e.setProperties(ctx, name, limits)
}

// limitsFolder is where systemd keeps what setProperties set.
func (e *Engine) limitsFolder(name string) string {
	return filepath.Join("/run/systemd/system.control", e.unit(name)+".d")
}

// ForgetLimits removes the limits of a container that has powered off.
func (e *Engine) ForgetLimits(name string) error { return os.RemoveAll(e.limitsFolder(name)) }

// group is the cgroup of a running container's unit. nspawn tells where it is:
// it lies in its cgroup, and the guest cannot move it.
func (e *Engine) group(name string, record *supervisor.Record) (*cgroup.Group, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", record.Nspawn.PID))
	if err != nil {
		return nil, fmt.Errorf("cannot find the cgroup of container %s: %w", name, err)
	}
	path := unitCgroup(string(text), e.unit(name))
	if path == "" {
		return nil, fmt.Errorf("cannot find the cgroup of container %s: its systemd-nspawn is not in unit %s", name, e.unit(name))
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return nil, err
	}
	return tree.Unit(path, name), nil
}

// unitCgroup is the path of a unit's cgroup, of which a process with this
// /proc/PID/cgroup is a part, "" when it is of none. See cgroups(7).
func unitCgroup(text, unit string) string {
	for line := range strings.Lines(text) {
		// hierarchy:controllers:path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || (fields[1] != "" && fields[1] != "name=systemd") {
			continue
		}
		before, _, found := strings.Cut(fields[2]+"/", "/"+unit+"/")
		if found {
			return before + "/" + unit
		}
	}
	return ""
}
