package ingress

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"devhost/internal/engine"
	"devhost/internal/registry"
)

// lockedBuffer is a log that is written and read at the same time.
type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (l *lockedBuffer) Write(data []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.Write(data)
}

func (l *lockedBuffer) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.String()
}

func newRegistry(t testing.TB) *registry.Registry {
	t.Helper()
	layout, err := registry.NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return registry.New(layout)
}

func save(t testing.TB, containers *registry.Registry, container registry.Container) {
	t.Helper()
	if err := os.MkdirAll(containers.Container(container.Name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := containers.Save(&container); err != nil {
		t.Fatal(err)
	}
}

func TestRegistrySource(t *testing.T) {
	containers := newRegistry(t)
	startedAt := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	source := NewRegistrySource(containers, func(name string) (engine.State, error) {
		if name == "untold" {
			return engine.State{}, errors.New("no cgroup")
		}
		return engine.State{Status: engine.Failed, Detail: "exit status 1", StartedAt: startedAt}, nil
	})
	address := registry.Address{IPv4: "10.0.0.2", IPv6: "fd00::2"}
	save(t, containers, registry.Container{Name: "shop", Aliases: []string{"www"}, Address: address})
	save(t, containers, registry.Container{Name: "early"})
	save(t, containers, registry.Container{Name: "untold", Address: address})
	save(t, containers, registry.Container{Name: "onhost", Address: registry.Address{IPv4: "127.64.0.9", SSHPort: 61000}})
	save(t, containers, registry.Container{Name: "bad4", Address: registry.Address{IPv4: "x"}})
	save(t, containers, registry.Container{Name: "bad6", Address: registry.Address{IPv6: "x"}})
	save(t, containers, registry.Container{Name: "corrupt"})
	if err := os.WriteFile(containers.Record("corrupt"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		known  bool
		broken bool
		want   Route
	}{
		{"shop", true, false, Route{
			Container: "shop", Aliases: []string{"www"}, Address: netip.MustParseAddr("10.0.0.2"), AddressV6: netip.MustParseAddr("fd00::2"),
			Status: engine.Failed, Detail: "exit status 1", StartedAt: startedAt,
		}},
		{"early", true, false, Route{Container: "early", Status: engine.Failed, Detail: "exit status 1", StartedAt: startedAt}},
		{"untold", true, true, Route{Container: "untold"}},
		{"bad4", true, true, Route{Container: "bad4"}},
		{"bad6", true, true, Route{Container: "bad6"}},
		{"corrupt", true, true, Route{Container: "corrupt"}},
		{"onhost", false, false, Route{}},
		{"other", false, false, Route{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			route, known, err := source.Route(test.name)
			if err != nil || known != test.known || (route.Broken != nil) != test.broken {
				t.Errorf("got known=%t, broken=%v, error %v", known, route.Broken, err)
			}
			if diff := cmp.Diff(test.want, route, cmpopts.IgnoreFields(Route{}, "Broken"), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
		})
	}

	save(t, containers, registry.Container{Name: "shop", Aliases: []string{"www", "new"}, Address: address})
	if route, _, err := source.Route("shop"); err != nil || len(route.Aliases) != 2 {
		t.Errorf("a new alias is not seen at once: %v, %v", route.Aliases, err)
	}
}

func BenchmarkRegistrySource(b *testing.B) {
	containers := newRegistry(b)
	for n := range 1000 {
		save(b, containers, registry.Container{
			Name: fmt.Sprintf("c%04d", n), Aliases: []string{"www", "api"}, Address: registry.Address{IPv4: "10.0.0.2", IPv6: "fd00::2"},
		})
	}
	source := NewRegistrySource(containers, func(string) (engine.State, error) { return engine.State{Status: engine.Running}, nil })
	for b.Loop() {
		if _, known, err := source.Route("c0500"); !known || err != nil {
			b.Fatal(known, err)
		}
	}
}
