package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"devhost/internal/registry"
)

// TestConfigureHostNetwork: a container has the host's network only where the
// host's configuration says so, and then nothing that makes networks.
func TestConfigureHostNetwork(t *testing.T) {
	layout := registry.Layout{State: t.TempDir()}
	system := filepath.Join(t.TempDir(), "system")
	if err := os.MkdirAll(system, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(system, "init"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	onHost, own := registry.Address{IPv4: "127.64.0.9", SSHPort: 61000}, registry.Address{IPv4: "10.0.0.2", HostInterface: "v"}
	for name, test := range map[string]struct {
		address                       registry.Address
		declared                      *registry.Declared
		refused, hostNetwork, nesting bool
	}{
		"own":         {address: own, nesting: true},
		"declared":    {address: onHost, declared: &registry.Declared{HostNetwork: true}, hostNetwork: true},
		"only wanted": {address: own, declared: &registry.Declared{HostNetwork: true}, nesting: true},
		"of people":   {address: onHost, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			container := &registry.Container{Name: "demo", System: system, Address: test.address, Declared: test.declared, Nesting: true}
			config, _, err := configure(layout, container)
			if (err != nil) != test.refused || config.HostNetwork != test.hostNetwork || config.Nesting != test.nesting {
				t.Errorf("host network %t, nesting %t, %v", config.HostNetwork, config.Nesting, err)
			}
		})
	}
}
