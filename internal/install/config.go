package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ConfigVersion is that of Config.
const ConfigVersion = 1

// Config is what the ISO holds: a JSON file that modules/devbox/installer.nix
// writes.
type Config struct {
	Version int `json:"version"`
	// System is the store path of the prebuilt system, "" in an ISO for the mode
	// bootstrap.
	System string `json:"system"`
	// Console is the serial console of the installed system, such as "ttyS0".
	Console string `json:"console"`
	// StateVersion is system.stateVersion of the system that bootstrap writes.
	StateVersion string `json:"stateVersion"`
}

// LoadConfig reads and checks a Config.
func LoadConfig(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read what the ISO holds: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var config Config
	if err := decoder.Decode(&config); err != nil {
		return nil, fmt.Errorf("%s says wrongly what the ISO holds: %w", path, err)
	}
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("%s says wrongly what the ISO holds: %w", path, err)
	}
	return &config, nil
}

func (c *Config) validate() error {
	const store = "/nix/store/"
	switch {
	case c.Version != ConfigVersion:
		return fmt.Errorf("its version is %d; this program reads version %d", c.Version, ConfigVersion)
	case c.System != "" && (filepath.Dir(c.System)+"/" != store || filepath.Clean(c.System) != c.System):
		return fmt.Errorf("the system is %q; it is a path in %s", c.System, store)
	case c.Console == "" || strings.ContainsAny(c.Console, "/ \t\n\""):
		return fmt.Errorf("the console is %q; it is a name such as ttyS0", c.Console)
	case c.System == "" && c.StateVersion == "":
		return fmt.Errorf("there is no system, and no stateVersion for one that is made here")
	}
	return nil
}
