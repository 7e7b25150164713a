package environment

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/google/renameio/v2"

	"devhost/internal/names"
)

// nameLength is how many hexadecimal characters a random name has, as batou's.
const nameLength = 11

// Hostmap is the path of hostmap.json: a JSON object of host -> container, for
// the hosts with random names (batou's format).
func (e *Environment) Hostmap() string { return filepath.Join(e.Folder, hostmapName) }

// Reread reads hostmap.json again, for who holds a lock now.
func (e *Environment) Reread() error { return e.readHostmap() }

// readHostmap gives the hosts the names that were picked for this checkout.
func (e *Environment) readHostmap() error {
	e.hostmap = map[string]string{}
	invalid := func(format string, arguments ...any) error {
		return &Invalid{Path: e.shown(e.Hostmap()), Problems: []Problem{{Text: fmt.Sprintf(format, arguments...)}}}
	}
	data, err := readFile(e.Hostmap())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return invalid("it cannot be read: %s", reason(err))
	}
	if err == nil {
		if err := json.Unmarshal(data, &e.hostmap); err != nil {
			return invalid("it is no JSON object of names such as {\"app\": \"0c3f9a1b2d7\"} (%v); remove it, and the next deploy makes new containers", err)
		}
	}
	taken := map[string]*Host{}
	for _, host := range e.Hosts {
		if host.Dynamic {
			host.Name = e.hostmap[host.Key]
			if host.Name == "" {
				continue
			}
			if err := names.Container(host.Name); err != nil {
				return invalid("host %s: %v; remove its entry, and the next deploy picks another name", host.Key, err)
			}
		}
		if other := taken[host.Name]; other != nil {
			return invalid("hosts %s and %s would be the same container, %s; remove the entry of one of them", other.Key, host.Key, host.Name)
		}
		taken[host.Name] = host
	}
	return nil
}

// PickNames picks names for the hosts that have none, and writes them down. It
// tells whether it did.
func (e *Environment) PickNames() (bool, error) {
	taken := map[string]bool{}
	for _, host := range e.Hosts {
		taken[host.Name] = true
	}
	kept := maps.Clone(e.hostmap)
	picked := false
	for _, host := range e.Hosts {
		if !host.Dynamic || host.Name != "" {
			continue
		}
		host.Name = pickName(taken, randomHex)
		taken[host.Name], kept[host.Key] = true, host.Name
		picked = true
	}
	if !picked {
		return false, nil
	}
	text, err := json.Marshal(kept)
	if err == nil {
		err = renameio.WriteFile(e.Hostmap(), append(text, '\n'), 0o644)
	}
	if err != nil {
		return false, fmt.Errorf("cannot write %s, which keeps the containers' names: %w", e.shown(e.Hostmap()), err)
	}
	e.hostmap = kept
	return true, nil
}

// pickName makes names until one is good and free.
func pickName(taken map[string]bool, random func() string) string {
	for {
		if name := random(); names.Container(name) == nil && !taken[name] {
			return name
		}
	}
}

func randomHex() string {
	raw := make([]byte, (nameLength+1)/2)
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)[:nameLength]
}
