package network

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// TestAllocateOnHost: the same name gets the same place, unless somebody has it.
func TestAllocateOnHost(t *testing.T) {
	const instance = "0123abcd"
	allocate := func(used []OnHost, taken []uint16) OnHost {
		t.Helper()
		found, err := AllocateOnHost(t.Context(), instance, used, taken, "ci")
		if err != nil {
			t.Fatal(err)
		}
		if !loopbackPool.Contains(found.Address) || !found.Address.IsLoopback() || found.SSHPort < firstSSHPort {
			t.Errorf("%+v is no place for a container", found)
		}
		return found
	}
	first := allocate(nil, nil)
	if again := allocate(nil, nil); again != first {
		t.Errorf("first %+v, then %+v", first, again)
	}
	if other := allocate([]OnHost{first}, nil); other.Address == first.Address || other.SSHPort == first.SSHPort {
		t.Errorf("beside %+v: %+v", first, other)
	}
	if other := allocate(nil, []uint16{first.SSHPort}); other.Address != first.Address || other.SSHPort == first.SSHPort {
		t.Errorf("with a port that leads elsewhere: %+v, not %+v", other, first)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), first.SSHPort).String())
	if err != nil {
		t.Skipf("the port is somebody else's by now: %v", err)
	}
	defer listener.Close()
	if other := allocate(nil, nil); other.SSHPort == first.SSHPort {
		t.Errorf("%+v is a program's", other)
	}
	all := make([]uint16, 0, lastSSHPort-firstSSHPort+1)
	for port := firstSSHPort; port <= lastSSHPort; port++ {
		all = append(all, uint16(port))
	}
	var none *NoLoopback
	if found, err := AllocateOnHost(t.Context(), instance, nil, all, "ci"); !errors.As(err, &none) {
		t.Errorf("where nothing is left: %+v, %v", found, err)
	}
}
