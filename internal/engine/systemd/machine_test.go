package systemd

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeMachined answers as machined does; it knows the machine demo.
type fakeMachined struct {
	// What it does not have is not called.
	dbus.BusObject
	// unit is that of the machine; answer is what UnregisterMachine says.
	unit   string
	answer error
	calls  []string
}

const fakeMachine = dbus.ObjectPath("/org/freedesktop/machine1/machine/demo")

func (f *fakeMachined) CallWithContext(_ context.Context, method string, _ dbus.Flags, args ...any) *dbus.Call {
	switch {
	case method == machinedManager+".UnregisterMachine":
		f.calls = append(f.calls, args[0].(string))
		return &dbus.Call{Err: f.answer}
	case method == machinedManager+".GetMachine" && args[0] == "demo":
		return &dbus.Call{Body: []any{fakeMachine}}
	}
	return &dbus.Call{Err: dbus.Error{Name: noSuchMachine}}
}

func (f *fakeMachined) StoreProperty(name string, value any) error {
	if name != machinedMachine+".Unit" {
		return errors.New("no such property: " + name)
	}
	*value.(*string) = f.unit
	return nil
}

func TestUnregister(t *testing.T) {
	const unit = "devhost@demo.service"
	forgotten := dbus.Error{Name: noSuchMachine, Body: []any{"No machine 'demo' known"}}
	refused := dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied"}
	tests := []struct {
		name, machine, unit string
		answer, want        error
		calls               []string
	}{
		{name: "left behind", machine: "demo", unit: unit, calls: []string{"demo"}},
		{name: "unknown", machine: "other", unit: unit},
		{name: "another unit's", machine: "demo", unit: "systemd-nspawn@demo.service"},
		{name: "forgotten meanwhile", machine: "demo", unit: unit, answer: forgotten, calls: []string{"demo"}},
		{name: "refused", machine: "demo", unit: unit, answer: refused, want: refused, calls: []string{"demo"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			machined := &fakeMachined{unit: test.unit, answer: test.answer}
			object := func(dbus.ObjectPath) dbus.BusObject { return machined }
			err := unregister(t.Context(), object, test.machine, unit)
			if (err == nil) != (test.want == nil) || err != nil && err.Error() != test.want.Error() {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if !slices.Equal(machined.calls, test.calls) {
				t.Errorf("machined was asked to forget %q, not %q", machined.calls, test.calls)
			}
		})
	}
}
