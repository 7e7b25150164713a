package ingress

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The flags that choose the addresses, for errors to name.
const (
	httpsFlag = "--https"
	httpFlag  = "--http"
)

// ListenError says that an address cannot be listened on.
type ListenError struct {
	// Address is "host:port" as it was configured, Flag the command line flag
	// that chooses another one.
	Address string
	Flag    string
	// Holder is the process that has the port, as "name (pid 123)"; "" when
	// there is none, or none that can be seen.
	Holder string
	Err    error
}

func (l *ListenError) Error() string {
	host, port, _ := net.SplitHostPort(l.Address)
	other := fmt.Sprintf("%s %s", l.Flag, net.JoinHostPort(host, otherPort(l.Flag)))
	switch {
	case errors.Is(l.Err, syscall.EADDRINUSE) && l.Holder != "":
		return fmt.Sprintf("cannot listen on %s: port %s is taken by %s; stop that, or choose another port, for example %s", l.Address, port, l.Holder, other)
	case errors.Is(l.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("cannot listen on %s: port %s is taken by another process (as root, this says which); stop that, or choose another port, for example %s", l.Address, port, other)
	case errors.Is(l.Err, syscall.EACCES):
		return fmt.Sprintf("cannot listen on %s: ports below 1024 are root's; run it with sudo, or choose a higher port, for example %s", l.Address, other)
	case errors.Is(l.Err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("cannot listen on %s: no network interface of this machine has that address (see: ip address); choose another one with %s", l.Address, l.Flag)
	}
	return fmt.Sprintf("cannot listen on %s: %v; choose another address with %s HOST:PORT", l.Address, l.Err, l.Flag)
}

// Unwrap returns the system's error.
func (l *ListenError) Unwrap() error { return l.Err }

func otherPort(flag string) string {
	if flag == httpFlag {
		return "8080"
	}
	return "8443"
}

// listenAll listens on all addresses or on none.
func listenAll(ctx context.Context, addresses []string, flag string) ([]net.Listener, error) {
	var config net.ListenConfig
	listeners := make([]net.Listener, 0, len(addresses))
	for _, address := range addresses {
		listener, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			closeAll(listeners)
			listenError := &ListenError{Address: address, Flag: flag, Err: err}
			if errors.Is(err, syscall.EADDRINUSE) {
				listenError.Holder = portHolder(address)
			}
			return nil, listenError
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, listener := range listeners {
		_ = listener.Close()
	}
}

func addressesOf(listeners []net.Listener) []netip.AddrPort {
	addresses := make([]netip.AddrPort, 0, len(listeners))
	for _, listener := range listeners {
		addresses = append(addresses, addressOf(listener.Addr()))
	}
	return addresses
}

// addressOf returns a TCP address in comparable form.
func addressOf(address net.Addr) netip.AddrPort {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	given := tcp.AddrPort()
	return netip.AddrPortFrom(given.Addr().Unmap(), given.Port())
}

// portHolder names the process that listens where address ("host:port") would.
// It sees other people's processes as root only; "" where it sees none.
func portHolder(address string) string {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return ""
	}
	// No host is every address, and so is a host name: it may be any of them.
	wanted, err := netip.ParseAddr(host)
	if err != nil {
		wanted = netip.IPv6Unspecified()
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		content, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, inode := range listeningSockets(string(content), netip.AddrPortFrom(wanted, uint16(port))) {
			if holder := socketHolder(inode); holder != "" {
				return holder
			}
		}
	}
	return ""
}

// listeningSockets returns the inodes of the sockets whose address is in the
// way of wanted, out of a table in the format of /proc/net/tcp (proc_net_tcp(5)).
func listeningSockets(table string, wanted netip.AddrPort) []string {
	const (
		localAddress = 1
		state        = 3
		inode        = 9
		listening    = "0A"
	)
	var inodes []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) <= inode || fields[state] != listening {
			continue
		}
		local, err := parseTableAddress(fields[localAddress])
		if err != nil || local.Port() != wanted.Port() {
			continue
		}
		if local.Addr() == wanted.Addr() || local.Addr().IsUnspecified() || wanted.Addr().IsUnspecified() {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

// parseTableAddress reads "0100007F:01BB": the address as 32-bit words in the
// machine's byte order, the port as a plain number.
func parseTableAddress(text string) (netip.AddrPort, error) {
	const word = 4
	addressText, portText, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	raw, err := hex.DecodeString(addressText)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for n := 0; n+word <= len(raw); n += word {
		binary.NativeEndian.PutUint32(raw[n:], binary.BigEndian.Uint32(raw[n:]))
	}
	address, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", addressText)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(port)), nil
}

// socketHolder finds the process that has a socket open, by its inode.
func socketHolder(inode string) string {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, process := range processes {
		pid := process.Name()
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		folder := filepath.Join("/proc", pid, "fd")
		// It fails for other people's processes, and for those that just ended.
		descriptors, _ := os.ReadDir(folder)
		for _, descriptor := range descriptors {
			target, err := os.Readlink(filepath.Join(folder, descriptor.Name()))
			if err != nil || target != "socket:["+inode+"]" {
				continue
			}
			name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}
