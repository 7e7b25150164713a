package hostinstall

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	systemd "github.com/coreos/go-systemd/v22/util"
)

// jobTimeout is how long a service may take to be up or to end. One that
// systemd starts again and again would be waited for without end.
const jobTimeout = 2 * time.Minute

// bootTimeout is the same for the start of all containers.
const bootTimeout = time.Hour

// bus is the systemd of this host, over D-Bus.
type bus struct{ connection *dbus.Conn }

// Connect connects to the host's systemd; it gives nil where that is not
// PID 1. The function ends the connection.
func Connect(ctx context.Context) (Systemd, func(), error) {
	if !systemd.IsRunningSystemd() {
		return nil, func() {}, nil
	}
	connection, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot speak to systemd: %w", err)
	}
	return &bus{connection}, connection.Close, nil
}

func (b *bus) Reload(ctx context.Context) error {
	if err := b.connection.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemd cannot read its units anew: %w", err)
	}
	return nil
}

func (b *bus) Enable(ctx context.Context, unit string) error {
	_, _, err := b.connection.EnableUnitFilesContext(ctx, []string{unit}, false, false)
	return errors.Join(err, b.Reload(ctx))
}

func (b *bus) Disable(ctx context.Context, unit string) error {
	_, err := b.connection.DisableUnitFilesContext(ctx, []string{unit}, false)
	return errors.Join(err, b.Reload(ctx))
}

// job waits for the end of a job of systemd.
func (b *bus) job(ctx context.Context, unit string, submit func(context.Context, string, string, chan<- string) (int, error)) error {
	timeout := jobTimeout
	if unit == bootUnit {
		timeout = bootTimeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results := make(chan string, 1)
	if _, err := submit(limited, unit, "replace", results); err != nil {
		return err
	}
	select {
	case result := <-results:
		if result != "done" {
			return fmt.Errorf("its job ended as %q", result)
		}
		return nil
	case <-limited.Done():
		if ctx.Err() != nil {
			return ctx.Err()
		}
		active, _, err := b.State(ctx, unit)
		return errors.Join(fmt.Errorf("after %s it is still %s", timeout, active), err)
	}
}

func (b *bus) Start(ctx context.Context, unit string) error {
	return b.job(ctx, unit, b.connection.StartUnitContext)
}

func (b *bus) Restart(ctx context.Context, unit string) error {
	return b.job(ctx, unit, b.connection.RestartUnitContext)
}

func (b *bus) Stop(ctx context.Context, unit string) error {
	return b.job(ctx, unit, b.connection.StopUnitContext)
}

func (b *bus) State(ctx context.Context, unit string) (active string, enabled bool, err error) {
	properties, err := b.connection.GetUnitPropertiesContext(ctx, unit)
	if err != nil {
		return "", false, fmt.Errorf("cannot ask systemd for %s: %w", unit, err)
	}
	active, _ = properties["ActiveState"].(string)
	file, _ := properties["UnitFileState"].(string)
	return active, strings.HasPrefix(file, "enabled"), nil
}
