package systemd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/godbus/dbus/v5"

	"devhost/internal/engine/nspawn"
)

// machineStates is where machined has a file for every machine, by its name.
const machineStates = "/run/systemd/machines"

// machined's names on the bus, see org.freedesktop.machine1(5).
const (
	machinedName    = "org.freedesktop.machine1"
	machinedPath    = "/org/freedesktop/machine1"
	machinedManager = "org.freedesktop.machine1.Manager"
	machinedMachine = "org.freedesktop.machine1.Machine"
)

// Unregister has machined forget a container whose nspawn was killed: until then
// no other one of its name can start. A machine that is not of this container's
// unit is left alone.
func (e *Engine) Unregister(ctx context.Context, name string) error {
	machine := nspawn.MachineName(e.Layout, name)
	if _, err := os.Lstat(filepath.Join(machineStates, machine)); err != nil {
		return nil
	}
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("cannot ask machined for container %s: %w", name, err)
	}
	defer bus.Close()
	var path dbus.ObjectPath
	manager := bus.Object(machinedName, machinedPath)
	if err := manager.CallWithContext(ctx, machinedManager+".GetMachine", 0, machine).Store(&path); err != nil {
		// It has just forgotten it.
		return nil
	}
	var unit string
	if err := bus.Object(machinedName, path).StoreProperty(machinedMachine+".Unit", &unit); err != nil || unit != e.unit(name) {
		return nil
	}
	if err := manager.CallWithContext(ctx, machinedManager+".UnregisterMachine", 0, machine).Err; err != nil {
		return fmt.Errorf("machined does not forget container %s: %w", name, err)
	}
	return nil
}
