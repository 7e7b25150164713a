package network

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolvers(t *testing.T) {
	const (
		etc     = "/etc/resolv.conf"
		stub    = "/run/systemd/resolve/resolv.conf"
		manager = "/run/NetworkManager/no-stub-resolv.conf"
	)
	cases := []struct {
		name     string
		files    map[string]string
		upstream string // the addresses with spaces between them
		source   string
		content  string   // the content without comments
		notes    []string // parts of the notes, in order
	}{
		{
			name:     "plain",
			files:    map[string]string{etc: "nameserver 192.0.2.53\nnameserver 2001:db8::53\n"},
			upstream: "192.0.2.53 2001:db8::53", source: etc,
			content: "nameserver 192.0.2.53\nnameserver 2001:db8::53\n",
		},
		{
			name: "search and options are kept, the last search wins, options add up",
			files: map[string]string{etc: `# made by hand
; another comment
domain example.com
search example.org  dev.example.org
options ndots:3 timeout:1
nameserver	192.0.2.53 # not a comment here
options trust-ad single-request
sortlist 192.0.2.0/24
`},
			upstream: "192.0.2.53", source: etc,
			content: "nameserver 192.0.2.53\nsearch example.org dev.example.org\noptions ndots:3 timeout:1 trust-ad single-request\n",
		},
		{
			name: "systemd-resolved",
			files: map[string]string{
				etc:  "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
				stub: "nameserver 192.0.2.1\nsearch example.org\n",
			},
			upstream: "192.0.2.1", source: stub,
			content: "nameserver 192.0.2.1\nsearch example.org\n",
		},
		{
			name: "NetworkManager with dnsmasq",
			files: map[string]string{
				etc:     "nameserver 127.0.1.1\n",
				manager: "nameserver 192.0.2.7\n",
			},
			upstream: "192.0.2.7", source: manager,
			content: "nameserver 192.0.2.7\n",
		},
		{
			name:     "what is of no use inside is left out",
			files:    map[string]string{etc: "nameserver 127.0.0.1\nnameserver ::1\nnameserver 198.51.100.2\nnameserver fe80::1%eth0\nnameserver 0.0.0.0\nnameserver nonsense\nnameserver ::ffff:127.0.0.1\nnameserver 192.0.2.9\n"},
			upstream: "192.0.2.9", source: etc,
			content: "nameserver 192.0.2.9\n",
			notes: []string{
				`"127.0.0.1" of /etc/resolv.conf is left out: it answers on the host itself only`,
				`"::1"`, `"198.51.100.2" of /etc/resolv.conf is left out: it is an address of the host`,
				`"fe80::1%eth0"`, `"0.0.0.0"`, `"nonsense" of /etc/resolv.conf is left out: it is no IP address`, `"::ffff:127.0.0.1"`,
			},
		},
		{
			name:     "a cloud's resolver at a link-local address is kept",
			files:    map[string]string{etc: "nameserver 169.254.169.254\n"},
			upstream: "169.254.169.254", source: etc,
			content: "nameserver 169.254.169.254\n",
		},
		{
			name:   "a stub without upstream",
			files:  map[string]string{etc: "nameserver 127.0.0.1\nsearch example.org\n", stub: ""},
			source: etc,
			notes:  []string{`"127.0.0.1"`, "run systemd-resolved"},
		},
		{
			name:   "an address of the host",
			files:  map[string]string{etc: "nameserver 198.51.100.2\n"},
			source: etc,
			notes:  []string{"it is an address of the host", "name the resolver of the network"},
		},
		{
			name:  "no file",
			notes: []string{"containers have no resolver"},
		},
	}
	local := func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(198, 51, 100, 2), Mask: net.CIDRMask(24, 32)}}, nil
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			read := func(path string) ([]byte, error) {
				content, ok := c.files[path]
				if !ok {
					return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
				}
				return []byte(content), nil
			}
			resolvers, err := resolversFrom(resolverFiles, read, local)
			if err != nil {
				t.Fatal(err)
			}
			var upstream []string
			for _, address := range resolvers.Upstream {
				upstream = append(upstream, address.String())
			}
			if got := strings.Join(upstream, " "); got != c.upstream {
				t.Errorf("upstream %q, want %q", got, c.upstream)
			}
			if resolvers.Source != c.source {
				t.Errorf("source %q, want %q", resolvers.Source, c.source)
			}
			var bare strings.Builder
			for line := range strings.Lines(resolvers.Content) {
				if !strings.HasPrefix(line, "#") {
					bare.WriteString(line)
				}
			}
			if diff := cmp.Diff(c.content, bare.String()); diff != "" {
				t.Errorf("content (-want +made):\n%s", diff)
			}
			if len(resolvers.Notes) != len(c.notes) {
				t.Fatalf("notes %q, want %q", resolvers.Notes, c.notes)
			}
			for i, note := range c.notes {
				if !strings.Contains(resolvers.Notes[i], note) {
					t.Errorf("note %q does not say %q", resolvers.Notes[i], note)
				}
				if !strings.Contains(resolvers.Content, "# "+resolvers.Notes[i]+"\n") {
					t.Errorf("the content does not have the note %q", resolvers.Notes[i])
				}
			}
		})
	}

	t.Run("an unreadable file", func(t *testing.T) {
		_, err := resolversFrom(resolverFiles, func(string) ([]byte, error) { return nil, fs.ErrPermission }, local)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), etc) {
			t.Errorf("error = %v", err)
		}
	})
}

// TestResolvConf reads this machine's files: whatever they say, no loopback
// address comes out.
func TestResolvConf(t *testing.T) {
	resolvers, err := ResolvConf()
	if err != nil {
		t.Fatal(err)
	}
	for _, upstream := range resolvers.Upstream {
		if upstream.IsLoopback() {
			t.Errorf("resolver %s", upstream)
		}
	}
	if len(resolvers.Upstream) == 0 && len(resolvers.Notes) == 0 {
		t.Error("no resolver, and no word about it")
	}
}

// FuzzResolvConf: whatever the file says, what comes out is a file with the
// resolvers that are reported, and no others.
func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nsearch example.org\noptions ndots:3\n")
	f.Add("nameserver 127.0.0.1\nnameserver fe80::1%eth0\noptions\nsearch\n")
	f.Add("options a\rnameserver 1.2.3.4\n")
	f.Fuzz(func(t *testing.T, content string) {
		resolvers, err := parseResolvConf("x", []byte(content), nil)
		if err != nil {
			t.Skip()
		}
		again, err := parseResolvConf("x", []byte(resolvers.Content), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(resolvers.Upstream, again.Upstream, compareAddresses); diff != "" {
			t.Errorf("from %q came %q (-first +second):\n%s", content, resolvers.Content, diff)
		}
		for _, upstream := range resolvers.Upstream {
			if upstream.IsLoopback() || upstream == (netip.Addr{}) {
				t.Errorf("resolver %s", upstream)
			}
		}
	})
}
