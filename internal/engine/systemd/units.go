package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"github.com/google/renameio/v2"

	"devhost/internal/registry"
	"devhost/packaging"
)

// The units of packaging that this engine needs.
const (
	templateUnit = "devhost@.service"
	bootUnit     = "devhost-boot.service"
)

var ownUnits = []string{templateUnit, "devhost-refresh.path", "devhost-refresh.timer", "devhost-refresh.service"}

// Where units are: those of the admin and of packages, see systemd.unit(5), and
// those that last until the host shuts down.
var (
	installed = []string{
		"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
	}
	volatile = "/run/systemd/system"
)

// prefix begins the names of the units of this state folder.
func (e *Engine) prefix() string {
	if e.Layout.State == registry.DefaultStateDir {
		return "devhost"
	}
	return "devhost-" + e.Layout.Instance()
}

// unit is the unit of a container. A container's name needs no escaping: nothing
// in it means something in the name of a unit.
func (e *Engine) unit(name string) string { return e.prefix() + "@" + name + ".service" }

// fileName is what a unit of packaging is called for this state folder.
func (e *Engine) fileName(packaged string) string {
	return e.prefix() + strings.TrimPrefix(packaged, "devhost")
}

// isInstalled says whether the admin or a package put the units in place. Those
// are for the usual state folder.
func (e *Engine) isInstalled() bool {
	if e.Layout.State != registry.DefaultStateDir {
		return false
	}
	for _, folder := range installed {
		if _, err := os.Lstat(filepath.Join(folder, templateUnit)); err == nil {
			return true
		}
	}
	return false
}

// startsOnBoot says whether the unit that starts containers is turned on.
func (e *Engine) startsOnBoot() bool {
	if !e.isInstalled() {
		return false
	}
	for _, folder := range installed {
		if wanted, err := filepath.Glob(filepath.Join(folder, "*.wants", bootUnit)); err == nil && len(wanted) > 0 {
			return true
		}
	}
	return false
}

// texts are the unit files of this state folder by their names, none where they
// are installed.
func (e *Engine) texts() (map[string]string, error) {
	if e.isInstalled() {
		return nil, nil
	}
	units, err := packaging.Units()
	if err != nil {
		return nil, err
	}
	// In a command, and only there, a dollar begins a variable.
	command := strings.ReplaceAll(quote(e.Program)+" --state-dir "+quote(e.Layout.State), "$", "$$")
	// In the order of the text: the marker holds a name of a unit.
	replacer := strings.NewReplacer(packaging.Marker, command, "devhost-refresh", e.fileName("devhost-refresh"), registry.DefaultStateDir, quote(e.Layout.State))
	texts := map[string]string{}
	for _, unit := range units {
		for _, own := range ownUnits {
			if unit.Name == own {
				texts[e.fileName(own)] = replacer.Replace(unit.Text)
			}
		}
	}
	return texts, nil
}

// quote writes a path as a word of a unit file, see systemd.syntax(7).
func quote(path string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "%", "%%").Replace(path)
	return `"` + escaped + `"`
}

// writeUnits makes sure that systemd knows the units: it writes those that are
// not installed, and has systemd read them anew where they changed. New ones it
// finds by itself, from version 247 on.
func (e *Engine) writeUnits(ctx context.Context, connection *dbus.Conn) error {
	texts, err := e.texts()
	if err != nil {
		return err
	}
	changed := false
	for name, text := range texts {
		path := filepath.Join(volatile, name)
		old, err := os.ReadFile(path)
		if err == nil && string(old) == text {
			continue
		}
		changed = changed || err == nil
		if err := os.MkdirAll(volatile, 0o755); err != nil {
			return fmt.Errorf("cannot write the unit of containers: %w", err)
		}
		if err := renameio.WriteFile(path, []byte(text), 0o644, renameio.IgnoreUmask()); err != nil {
			return fmt.Errorf("cannot write the unit of containers: %w", err)
		}
	}
	if texts == nil {
		// Those of before the installation would come first.
		if changed, err = e.removeUnits(); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	if err := connection.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemd cannot read its units anew: %w", err)
	}
	return nil
}

// removeUnits removes what writeUnits wrote.
func (e *Engine) removeUnits() (changed bool, err error) {
	for _, unit := range ownUnits {
		err := os.Remove(filepath.Join(volatile, e.fileName(unit)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, fmt.Errorf("cannot remove a unit of containers: %w", err)
		}
		changed = changed || err == nil
	}
	return changed, nil
}

// Prepare writes the units, for when the host has started.
func (e *Engine) Prepare(ctx context.Context) error {
	connection, err := connect(ctx)
	if err != nil {
		return err
	}
	defer connection.Close()
	return e.writeUnits(ctx, connection)
}

// Tidy removes the units that the engine wrote. No container is left, and systemd
// forgets a unit that nothing uses.
func (e *Engine) Tidy(context.Context) error {
	_, err := e.removeUnits()
	return err
}

// isMissing says that systemd has no such unit.
func isMissing(err error) bool {
	var answer godbus.Error
	return errors.As(err, &answer) && answer.Name == "org.freedesktop.systemd1.NoSuchUnit"
}
