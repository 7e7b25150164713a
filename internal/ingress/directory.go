package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"devhost/internal/engine"
	"devhost/internal/names"
)

// Route is what the ingress knows of one container.
type Route struct {
	Container string
	// Aliases are the names below the container's that it serves besides its
	// own.
	Aliases []string
	// Address is tried before AddressV6; either may be the zero value.
	Address   netip.Addr
	AddressV6 netip.Addr
	// Status is the container's state. Nothing is sent to a container that does
	// not run: where its network is down, the packets would leave the host.
	Status engine.Status
	// Detail says why, when Status is engine.Failed. May be empty.
	Detail string
	// StartedAt tells one run of the container from the next, so that no
	// connection to an earlier one is used. Zero when unknown.
	StartedAt time.Time
	// Broken says why nothing but the name of the container is known.
	Broken error
}

// Source says which containers exist. It is asked for each TLS handshake and
// each request, by several goroutines at once: an answer must cost well below a
// millisecond and show a change within a second.
type Source interface {
	// Route returns the route of one container. known is false when there is
	// none of that name; the error is one of the state folder itself.
	Route(container string) (route Route, known bool, err error)
}

// unknownName says why a host name leads nowhere.
type unknownName struct {
	// Host is the name as the client gave it, without port.
	Host   string
	Domain string
	// Container is the container's part of the name, "" where the name is not
	// one of a container. Registered says whether there is such a container;
	// then it is Alias that does not exist.
	Container  string
	Registered bool
	Alias      string
}

func (u *unknownName) Error() string {
	switch {
	case u.Registered:
		return fmt.Sprintf("container %s has no alias %s", u.Container, u.Alias)
	case u.Container != "":
		return fmt.Sprintf("there is no container %s", u.Container)
	}
	return fmt.Sprintf("%q is not a name of the form CONTAINER.%s or ALIAS.CONTAINER.%s", u.Host, u.Domain, u.Domain)
}

// directory finds containers by host name.
type directory struct {
	// domains are the public ones; the first is shown in messages.
	domains []string
	source  Source
}

// find returns the container that serves a host name (no port; case and a
// trailing dot do not matter) and the alias in it, "" for the container's own
// name. The error is *unknownName or the source's. A broken container is found
// under every alias, for nobody can tell which ones it has.
func (d directory) find(host string) (route Route, alias string, err error) {
	unknown := &unknownName{Host: host, Domain: d.domains[0]}
	rest, domain := "", ""
	for _, candidate := range d.domains {
		// One domain can lie below another: the longer one is meant.
		if before, below := strings.CutSuffix(normalize(host), "."+candidate); below && len(candidate) > len(domain) {
			rest, domain = before, candidate
		}
	}
	if domain == "" {
		return Route{}, "", unknown
	}
	alias, container, two := strings.Cut(rest, ".")
	if !two {
		alias, container = "", rest
	}
	// The name comes from the network and becomes a file's name in the source.
	if names.Container(container) != nil || (two && names.Alias(alias) != nil) {
		return Route{}, "", unknown
	}
	unknown.Container, unknown.Alias = container, alias
	route, known, err := d.source.Route(container)
	if err != nil {
		return Route{}, "", fmt.Errorf("cannot look up container %s: %w", container, err)
	}
	if !known {
		return Route{}, "", unknown
	}
	if two && route.Broken == nil && !slices.Contains(route.Aliases, alias) {
		unknown.Registered = true
		return Route{}, "", unknown
	}
	return route, alias, nil
}

// normalize makes host names comparable.
func normalize(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
