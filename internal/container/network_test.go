package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// Containers of one owner and environment are one group, as the records are
// when it is asked.
func TestGroups(t *testing.T) {
	records := registry.New(registry.Layout{State: t.TempDir()})
	hosts := &HostNetwork{Layout: records.Layout}
	save := func(name, owner, environment, address string) {
		t.Helper()
		record := &registry.Container{Name: name, Owner: owner, Environment: environment, Address: registry.Address{IPv4: address}}
		if err := os.MkdirAll(records.Container(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := records.Save(record); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want map[string][]string) {
		t.Helper()
		policy, err := hosts.policy()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]string{}
		for group, members := range policy.Groups {
			for _, member := range members {
				got[group] = append(got[group], member.IPv4.String())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
	}
	check(map[string][]string{})
	save("a", "alice", "shop", "10.0.0.2")
	save("b", "alice", "shop", "10.0.0.3")
	save("c", "alice", "", "10.0.0.4")
	save("d", "bob", "shop", "10.0.0.5")
	check(map[string][]string{"alice\nshop": {"10.0.0.2", "10.0.0.3"}, "bob\nshop": {"10.0.0.5"}})
	save("b", "alice", "other", "10.0.0.3")
	check(map[string][]string{"alice\nshop": {"10.0.0.2"}, "alice\nother": {"10.0.0.3"}, "bob\nshop": {"10.0.0.5"}})
}
