package network

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
)

// OnHost is how a container is reached that has the host's network.
type OnHost struct {
	// Address is one of the host's loopback interface that no other container has.
	Address netip.Addr
	// SSHPort is where its sshd listens on that address.
	SSHPort uint16
}

// loopbackPool are the addresses that such containers get: all of 127.0.0.0/8 is
// there without being set up, and neither Debian's 127.0.1.1 nor systemd-resolved's
// 127.0.0.53 is among them.
var loopbackPool = netip.MustParsePrefix("127.64.0.0/10")

// The ports of their sshd: above those that Linux gives to connections
// (net.ipv4.ip_local_port_range) and those that the settings forward by default.
const (
	firstSSHPort = 61000
	lastSSHPort  = 65535
)

// NoLoopback says that nothing is left for another container in the host's network.
type NoLoopback struct{ Name string }

func (n *NoLoopback) Error() string {
	return fmt.Sprintf("no loopback address and port from %d to %d is free for the sshd of container %s; see which are taken with: ss -ltn", firstSSHPort, lastSSHPort, n.Name)
}

// AllocateOnHost picks an address and a port that depend on the name, are none of
// used, and that no program of the host has at the moment. Ports in taken are left
// alone. The error is *NoLoopback.
func AllocateOnHost(ctx context.Context, instance string, used []OnHost, taken []uint16, name string) (OnHost, error) {
	addresses, ports := map[netip.Addr]bool{}, map[uint16]bool{}
	for _, other := range used {
		addresses[other.Address], ports[other.SSHPort] = true, true
	}
	for _, port := range taken {
		ports[port] = true
	}
	sum := sha256.Sum256([]byte(instance + "\x00" + name))
	// The first and the last one of the pool look like a network's own.
	size := uint32(1)<<(32-loopbackPool.Bits()) - 2
	address := netip.Addr{}
	for i := range size {
		offset := 1 + (binary.BigEndian.Uint32(sum[:4])%size+i)%size
		if address = at(loopbackPool, offset); !addresses[address] {
			break
		}
	}
	const count = lastSSHPort - firstSSHPort + 1
	first := binary.BigEndian.Uint32(sum[4:8]) % count
	for i := range uint32(count) {
		port := uint16(firstSSHPort + (first+i)%count)
		if found := (OnHost{Address: address, SSHPort: port}); !ports[port] && found.Free(ctx) {
			return found, nil
		}
	}
	return OnHost{}, &NoLoopback{Name: name}
}

// Free tells whether a server could listen there now.
func (o OnHost) Free(ctx context.Context) bool {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", netip.AddrPortFrom(o.Address, o.SSHPort).String())
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// GuestSSHFile is a part of sshd_config(5) for a container in the host's network.
// An address without a port would be one with each Port of the rest.
func GuestSSHFile(onHost OnHost) string {
	return "# Written by devhost when the container starts; changes are lost.\nListenAddress " +
		onHost.Address.String() + ":" + strconv.Itoa(int(onHost.SSHPort)) + "\n"
}

// ResolvConfOnHost is a resolv.conf(5) for such containers: the host's own, all of
// whose resolvers answer there.
func ResolvConfOnHost() (string, error) {
	content, err := os.ReadFile(resolverFiles[0])
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", explain("read", resolverFiles[0], err)
	}
	return "# Written by devhost; changes are lost.\n" + string(content), nil
}
