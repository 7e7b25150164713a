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
// says does not count. onHost is where its sshd listens when it has the host's
// network, and else the zero value. The error is *NotRunning when it does not run.
func InUse(guest Guest, onHost netip.AddrPort) (Use, error) {
	leader, err := openLeader(guest)
	if err != nil {
		return Use{}, err
	}
	defer leader.folder.Close()
	var use Use
	var all []connection
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		file, err := leader.open(table, unix.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			// This kernel has no IPv6.
			continue
		}
		var found []connection
		if err == nil {
			found, err = connections(file)
			_ = file.Close()
		}
		if err != nil {
			return Use{}, inUse(guest, err)
		}
		all = append(all, found...)
	}
	if use.Logins = logins(all); onHost.IsValid() {
		ids, err := leader.read("uid_map")
		if err != nil {
			return Use{}, inUse(guest, err)
		}
		base, err := process.RootID(string(ids))
		if err != nil {
			return Use{}, inUse(guest, err)
		}
		use.Logins = loginsOnHost(all, onHost, base)
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

// connection is an established one, with the user whose socket it is.
type connection struct {
	local, remote netip.AddrPort
	uid           int
}

// connections reads a table of TCP connections in the form of proc_net(5)
// (/proc/net/tcp, /proc/net/tcp6).
func connections(table io.Reader) ([]connection, error) {
	var found []connection
	lines := bufio.NewScanner(table)
	for count := 0; lines.Scan(); count++ {
		if count > mostConnections {
			return nil, fmt.Errorf("it has more than %d connections", mostConnections)
		}
		const state, owner = 3, 7
		fields := strings.Fields(lines.Text())
		if len(fields) <= state || fields[state] != established {
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
		if len(fields) <= owner {
			return nil, fmt.Errorf("cannot read the line %q", lines.Text())
		}
		uid, err := strconv.Atoi(fields[owner])
		if err != nil {
			return nil, fmt.Errorf("cannot read the user of the line %q", lines.Text())
		}
		found = append(found, connection{local, remote, uid})
	}
	return found, lines.Err()
}

// logins returns the other ends of the connections to port 22. Those of the
// container with itself do not count.
func logins(all []connection) []netip.AddrPort {
	var found []netip.AddrPort
	for _, one := range all {
		if one.local.Port() == sshPort && one.remote.Addr() != one.local.Addr() && !one.remote.Addr().IsLoopback() {
			found = append(found, one.remote)
		}
	}
	return found
}

// loginsOnHost is logins for a guest whose root has the id base, and whose sshd
// listens at an address of the host's. The table is the host's too, so that both
// ends are in it: the guest's own do not count.
func loginsOnHost(all []connection, sshd netip.AddrPort, base int) []netip.AddrPort {
	own := map[netip.AddrPort]bool{}
	for _, one := range all {
		if one.remote == sshd && process.InGuest(base, one.uid) {
			own[one.local] = true
		}
	}
	var found []netip.AddrPort
	for _, one := range all {
		if one.local == sshd && !own[one.remote] {
			found = append(found, one.remote)
		}
	}
	return found
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
