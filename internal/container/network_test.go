package container

import (
	"os"
	"path/filepath"
	"testing"

	"devhost/internal/network"
	"devhost/internal/registry"
)

func TestRefreshResolvers(t *testing.T) {
	layout := registry.Layout{State: t.TempDir()}
	hosts := &HostNetwork{Layout: layout}
	if err := hosts.RefreshResolvers("demo"); err == nil {
		t.Error("a container without files was given some")
	}
	path := filepath.Join(layout.Guest("demo"), resolvFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := hosts.RefreshResolvers("demo"); err != nil {
		t.Fatal(err)
	}
	want, err := network.ResolvConf()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want.Content {
		t.Errorf("the guest's resolvers are %q, %v; the host's are %q", got, err, want.Content)
	}
}
