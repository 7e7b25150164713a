package enter

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The tables are of a machine with little-endian words.
const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestSSHConnections(t *testing.T) {
	for _, test := range []struct {
		name, table string
		want        []string
	}{
		{"nothing", header, nil},
		{"it only listens", header + "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n", nil},
		{"a session", header + "   1: 0501000A:0016 0101000A:D431 01 00000000:00000000 02:000A 00000000     0        0 1 2 0 20 4 30 10 -1\n", []string{"10.0.1.1:54321"}},
		{"one that ends", header + "   1: 0501000A:0016 0101000A:D431 06 00000000:00000000 02:000A 00000000     0        0 1 2 0 20 4 30 10 -1\n", nil},
		{"one to elsewhere", header + "   1: 0501000A:D431 0101000A:0016 01 00000000:00000000 02:000A 00000000     0        0 1 2 0 20 4 30 10 -1\n", nil},
		{"with itself", header + "   1: 0501000A:0016 0501000A:D431 01 00000000:00000000 02:000A 00000000     0        0 1 2 0 20 4 30 10 -1\n", nil},
		{"loopback", header + "   1: 0100007F:0016 0100007F:D431 01 00000000:00000000 02:000A 00000000     0        0 1 2 0 20 4 30 10 -1\n", nil},
		{"IPv6", header + "   1: 000000FD000000000000000005000000:0016 000000FD000000000000000001000000:D431 01 0 0 0 0 0 1\n", []string{"[fd00::1]:54321"}},
		{"IPv4 on an IPv6 socket", header + "   1: 0000000000000000FFFF00000501000A:0016 0000000000000000FFFF00000101000A:D431 01 0 0 0 0 0 1\n", []string{"10.0.1.1:54321"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, err := connections(strings.NewReader(test.table))
			if err != nil {
				t.Fatal(err)
			}
			found := logins(all)
			var want []netip.AddrPort
			for _, text := range test.want {
				want = append(want, netip.MustParseAddrPort(text))
			}
			if diff := cmp.Diff(want, found, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("connections (-want +got):\n%s", diff)
			}
		})
	}
	for _, broken := range []string{"x 0501000A:0016 0501000A:D431 01 0 0 0", "x 0501000A:0016 0501000A:D431 01 0 0 0 me", "x 1:0016 2:0000 01", "x 0501000A:0016 zz:0000 01", "x 0501000A 0501000A:1 01"} {
		if _, err := connections(strings.NewReader(broken)); err == nil {
			t.Errorf("%q is read", broken)
		}
	}
}

// TestLoginsOnHost: the host's own ssh sessions are none of the container's, and
// the container cannot keep itself in use.
func TestLoginsOnHost(t *testing.T) {
	const base, sshd = 1 << 19, "127.64.0.9:61022"
	at := func(local, remote string, uid int) connection {
		return connection{netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote), uid}
	}
	for _, test := range []struct {
		name string
		all  []connection
		want []netip.AddrPort
	}{
		{"somebody in the host's sshd", []connection{at("192.0.2.1:22", "192.0.2.9:5000", 0)}, nil},
		{"a person", []connection{at(sshd, "127.0.0.1:5000", base), at("127.0.0.1:5000", sshd, 1000)}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")}},
		{"the container itself", []connection{at(sshd, "127.0.0.1:5000", base), at("127.0.0.1:5000", sshd, base+1000)}, nil},
		{"the next container", []connection{at(sshd, "127.0.0.1:5000", base), at("127.0.0.1:5000", sshd, base+1<<16)}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")}},
		{"the sshd of another one", []connection{at("127.64.0.10:61022", "127.0.0.1:5000", base)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			found := loginsOnHost(test.all, netip.MustParseAddrPort(sshd), base)
			if diff := cmp.Diff(test.want, found, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("logins (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUseString(t *testing.T) {
	one := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1")}
	for want, use := range map[string]Use{
		"": {}, "1 ssh session": {Logins: one}, "2 running commands": {Commands: 2}, "1 ssh session and 1 running command": {Logins: one, Commands: 1},
	} {
		if use.String() != want || use.Busy() != (want != "") {
			t.Errorf("%+v is %q, busy: %v", use, use, use.Busy())
		}
	}
}

func TestCommands(t *testing.T) {
	self, parent := os.Getpid(), os.Getppid()
	for want, pids := range [][]int{nil, {parent, self}, {1, self}} {
		if count := commands(pids); count != want {
			t.Errorf("%v are %d commands", pids, count)
		}
	}
}

func FuzzTableAddress(f *testing.F) {
	f.Add("0501000A:0016")
	f.Add("000000FD000000000000000005000000:FFFF")
	f.Fuzz(func(t *testing.T, text string) {
		if address, err := tableAddress(text); err == nil && !address.IsValid() {
			t.Errorf("%q is %v", text, address)
		}
	})
}
