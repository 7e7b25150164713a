package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is one port or a range of them, in JSON a text such as "8080" or
// "20000-29999".
type PortRange struct{ First, Last uint16 }

// UnmarshalText parses it.
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if !isRange {
		last = first
	}
	from, err := strconv.ParseUint(first, 10, 16)
	to, errLast := strconv.ParseUint(last, 10, 16)
	if err != nil || errLast != nil || from == 0 || to < from {
		return fmt.Errorf("%.64q is neither a port nor a range of ports", text)
	}
	*r = PortRange{uint16(from), uint16(to)}
	return nil
}

// MarshalText is its reverse.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is the range as people write it.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Contains tells whether a port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// JoinPortRanges are ranges as people read them.
func JoinPortRanges(ranges []PortRange) string {
	texts := make([]string, len(ranges))
	for i, one := range ranges {
		texts[i] = one.String()
	}
	return strings.Join(texts, ", ")
}

// PortRefusal says why a port of the host must not lead to a container, "" where
// it may. The protocol is "tcp" or "udp".
func (s Settings) PortRefusal(protocol string, port uint16) string {
	allowed := s.Network.ForwardPorts
	switch {
	case len(allowed) == 0:
		return "the settings of this host allow none"
	case !slices.ContainsFunc(allowed, func(ports PortRange) bool { return ports.Contains(port) }):
		return fmt.Sprintf("the settings of this host allow %s", JoinPortRanges(allowed))
	case protocol == "tcp" && (port == s.Ingress.HTTPPort || port == s.Ingress.HTTPSPort):
		return "it is the ingress'"
	}
	return ""
}
