// Package packaging holds the systemd units of a dev host: those that devhost
// host install, the systemd engine and the NixOS module put in place. They name
// nothing that one distribution has and another lacks.
package packaging

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed systemd
var units embed.FS

// Marker stands in the units for the path of the devhost program.
const Marker = "@devhost@"

// Unit is one unit file.
type Unit struct {
	// Name is the file's, such as devhost-ingress.service.
	Name string
	// Text holds Marker where the program belongs.
	Text string
}

// For is the unit's text with the absolute path of the program.
func (u Unit) For(program string) string { return strings.ReplaceAll(u.Text, Marker, program) }

// Units are all unit files, sorted by name.
func Units() ([]Unit, error) {
	const folder = "systemd"
	entries, err := fs.ReadDir(units, folder)
	if err != nil {
		return nil, err
	}
	var all []Unit
	for _, entry := range entries {
		text, err := units.ReadFile(folder + "/" + entry.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, Unit{Name: entry.Name(), Text: string(text)})
	}
	return all, nil
}
