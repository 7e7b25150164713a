package systemd

import (
	"context"
	"errors"
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
	noSuchMachine   = "org.freedesktop.machine1.NoSuchMachine"
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
	object := func(path dbus.ObjectPath) dbus.BusObject { return bus.Object(machinedName, path) }
	if err := unregister(ctx, object, machine, e.unit(name)); err != nil {
		return fmt.Errorf("machined does not forget container %s: %w", name, err)
	}
	return nil
}

// unregister has machined, whose objects it is given, forget a machine of a unit.
func unregister(ctx context.Context, object func(dbus.ObjectPath) dbus.BusObject, machine, unit string) error {
	var path dbus.ObjectPath
	manager := object(machinedPath)
	if err := manager.CallWithContext(ctx, machinedManager+".GetMachine", 0, machine).Store(&path); err != nil {
		// It has just forgotten it.
		return nil
	}
	var of string
	if err := object(path).StoreProperty(machinedMachine+".Unit", &of); err != nil || of != unit {
		return nil
	}
	err := manager.CallWithContext(ctx, machinedManager+".UnregisterMachine", 0, machine).Err
	// machined forgets by itself whose processes are gone, also between two calls.
	var answer dbus.Error
	if errors.As(err, &answer) && answer.Name == noSuchMachine {
		return nil
	}
	return err
}
