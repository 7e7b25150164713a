package ingress

import (
	"errors"
	"fmt"
	"net/netip"

	"devhost/internal/engine"
	"devhost/internal/registry"
)

// RegistrySource is the Source over the state folder. It reads the one record
// that is asked for, each time: that is some tens of microseconds however many
// containers there are, and there is nothing that could be stale.
type RegistrySource struct {
	registry *registry.Registry
	state    func(container string) (engine.State, error)
}

// NewRegistrySource returns the source over a registry. state is the State
// method of the engine that runs the containers.
func NewRegistrySource(registry *registry.Registry, state func(container string) (engine.State, error)) *RegistrySource {
	return &RegistrySource{registry: registry, state: state}
}

// Route implements Source.
func (r *RegistrySource) Route(name string) (Route, bool, error) {
	record, err := r.registry.Load(name)
	var missing *registry.NotRegistered
	if errors.As(err, &missing) {
		return Route{}, false, nil
	}
	if err != nil {
		return Route{Container: name, Broken: err}, true, nil
	}
	if record.Address.OnHost() {
		// Its port 443 is that of the host, which is the ingress itself.
		return Route{}, false, nil
	}
	route := Route{Container: name, Aliases: record.Aliases}
	if route.Address, err = parseAddress(record.Address.IPv4); err != nil {
		return Route{Container: name, Broken: err}, true, nil
	}
	if route.AddressV6, err = parseAddress(record.Address.IPv6); err != nil {
		return Route{Container: name, Broken: err}, true, nil
	}
	state, err := r.state(name)
	if err != nil {
		return Route{Container: name, Broken: fmt.Errorf("cannot tell whether it runs: %w", err)}, true, nil
	}
	route.Status, route.Detail, route.StartedAt = state.Status, state.Detail, state.StartedAt
	return route, true, nil
}

func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}
