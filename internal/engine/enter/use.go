package enter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"devhost/internal/process"
)

// Use is who is in a container.
type Use struct {
	// Commands is the number of commands that run by Exec.
	Commands int
	// Logins are the addresses from which there are connections to its sshd, one
	// each.
	Logins []netip.AddrPort
}

// Busy says whether anybody is in it.
func (u Use) Busy() bool { return u.Commands > 0 || len(u.Logins) > 0 }

func (u Use) String() string {
	var parts []string
	for _, part := range []struct {
		count int
		what  string
	}{{len(u.Logins), "ssh session"}, {u.Commands, "running command"}} {
		switch {
		case part.count == 1:
			parts = append(parts, "1 "+part.what)
		case part.count > 1:
			parts = append(parts, strconv.Itoa(part.count)+" "+part.what+"s")
		}
	}
	return strings.Join(parts, " and ")
}

// InUse finds out who is in a running container, from outside: what the guest
// says does not count. The error is *NotRunning when it does not run.
func InUse(guest Guest) (Use, error) {
	leader, err := openLeader(guest)
	if err != nil {
		return Use{}, err
	}
	defer leader.folder.Close()
	var use Use
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		file, err := leader.open(table, unix.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			// This kernel has no IPv6.
			continue
		}
		var logins []netip.AddrPort
		if err == nil {
			logins, err = sshConnections(file)
			_ = file.Close()
		}
		if err != nil {
			return Use{}, inUse(guest, err)
		}
		use.Logins = append(use.Logins, logins...)
	}
	pids, err := guest.Group.Visitors()
	if err != nil {
		return Use{}, inUse(guest, err)
	}
	use.Commands = commands(pids)
	return use, nil
}

// commands is the number of commands to which processes belong. While one
// enters, its session is still beside the process that lets it in.
func commands(pids []int) int {
	count := 0
	for _, pid := range pids {
		if stat, err := process.Read(pid); err != nil || !slices.Contains(pids, stat.Parent) {
			count++
		}
	}
	return count
}

func inUse(guest Guest, err error) error {
	if !guest.Leader.Alive() {
		return &NotRunning{Name: guest.Name}
	}
	return fmt.Errorf("cannot find out who is in container %s: %w", guest.Name, err)
}

const (
	sshPort = 22
	// mostConnections bounds what is read of a guest's table: its size is the
	// guest's choice.
	mostConnections = 1 << 20
	// established is TCP_ESTABLISHED of the kernel's tcp_states.h.
	established = "01"
)

// sshConnections reads a table of TCP connections in the form of proc_net(5)
// (/proc/net/tcp, /proc/net/tcp6) and returns the other ends of the established
// connections to port 22. Those of the container with itself do not count.
func sshConnections(table io.Reader) ([]netip.AddrPort, error) {
	var found []netip.AddrPort
	lines := bufio.NewScanner(table)
	for count := 0; lines.Scan(); count++ {
		if count > mostConnections {
			return nil, fmt.Errorf("it has more than %d connections", mostConnections)
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != established {
			continue
		}
		local, err := tableAddress(fields[1])
		if err != nil {
			return nil, err
		}
		remote, err := tableAddress(fields[2])
		if err != nil {
			return nil, err
		}
		if local.Port() == sshPort && remote.Addr() != local.Addr() && !remote.Addr().IsLoopback() {
			found = append(found, remote)
		}
	}
	return found, lines.Err()
}

// tableAddress reads an address of the table: hexadecimal digits of 32-bit words
// in the byte order of this machine, a colon, the port.
func tableAddress(text string) (netip.AddrPort, error) {
	digits, portDigits, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(digits)
	port, portErr := strconv.ParseUint(portDigits, 16, 16)
	const word = 4
	if err != nil || portErr != nil || len(words)%word != 0 {
		return netip.AddrPort{}, fmt.Errorf("cannot read the address %q", text)
	}
	var address bytes.Buffer
	for len(words) > 0 {
		_ = binary.Write(&address, binary.NativeEndian, binary.BigEndian.Uint32(words))
		words = words[word:]
	}
	parsed, ok := netip.AddrFromSlice(address.Bytes())
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("cannot read the address %q", text)
	}
	return netip.AddrPortFrom(parsed.Unmap(), uint16(port)), nil
}
