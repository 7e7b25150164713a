package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/network"
	"devhost/internal/nix"
)

const (
	nspawnVersion = "systemd 252 (252.39-1~deb12u1)\n+PAM +AUDIT\n"
	nixVersion    = "nix (Nix) 2.8.0\n"
)

// fixture is a host on which all is well.
type fixture struct {
	host   *Host
	runner *execxtest.Fake
	root   string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	root := t.TempDir()
	f := &fixture{root: root, runner: execxtest.New(t)}
	f.write(t, "/proc/sys/user/max_user_namespaces", "96365\n")
	f.write(t, "/proc/sys/fs/inotify/max_user_instances", "8192\n")
	f.write(t, "/etc/group", "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2\n")
	f.write(t, "/nix/store/.keep", "")
	f.host = &Host{
		Runner: f.runner, StateDir: filepath.Join(root, "state/not/there/yet"), Domain: "devhost.localhost", Ports: []int{80, 443}, Root: root,
		Idmap:        func(context.Context, string) error { return nil },
		Listen:       func(context.Context, string, string) (net.Listener, error) { return closable{}, nil },
		Free:         func(string) (int64, error) { return 76 << 30, nil },
		Quotas:       func(string) bool { return true },
		LookupHost:   func(context.Context, string) ([]string, error) { return nil, errors.New("unexpected lookup") },
		ForwardDrops: func() ([]network.Finding, error) { return nil, nil },
		Settings:     func() error { return nil },
		Certificates: func() []Finding { return nil },
		Containers:   func() ([]network.Trouble, error) { return nil, nil },
		Resolvers: func() (network.Resolvers, error) {
			return network.Resolvers{Upstream: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}, Source: "/etc/resolv.conf"}, nil
		},
	}
	return f
}

func (f *fixture) write(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(f.root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.root, path)); err != nil {
		t.Fatal(err)
	}
}

type closable struct{ net.Listener }

func (closable) Close() error { return nil }

// shorten makes findings independent of the test's folder.
func (f *fixture) shorten(findings []Finding) []Finding {
	for i := range findings {
		findings[i].Detail = strings.ReplaceAll(findings[i].Detail, f.root, "ROOT")
		findings[i].Remedy = strings.ReplaceAll(findings[i].Remedy, f.root, "ROOT")
	}
	return findings
}

func TestHealthyHost(t *testing.T) {
	f := newFixture(t)
	f.runner.Expect("^systemd-nspawn --version$", nspawnVersion, nil)
	f.runner.Expect("^nix --version$", nixVersion, nil)
	findings := f.shorten(f.host.Examine(context.Background()))
	want := []Finding{
		{"root", Good, "running as root", ""},
		{"settings", Good, "they can be used", ""},
		{"user namespaces", Good, "up to 96365", ""},
		{"inotify instances", Good, "up to 8192", ""},
		{"idmapped mounts", Good, "work at ROOT", ""},
		{"disk limits", Good, "the file system of ROOT enforces them (project quotas)", ""},
		{"systemd-nspawn", Good, "version 252", ""},
		{"Nix", Good, "version 2.8.0", ""},
		{"build users", Good, "2 in group nixbld", ""},
		{"store", Good, "no Nix daemon runs yet; devhost starts one when it needs it", ""},
		{"store", Good, "76 GiB free at ROOT/nix/store", ""},
		{"nftables", Good, "can be used", ""},
		{"foreign forward rules", Good, "none drops the traffic of containers", ""},
		{"containers' network", Good, "as it shall be", ""},
		{"resolvers", Good, "containers use 192.0.2.53, 2001:db8::53 (/etc/resolv.conf)", ""},
		{"port 80", Good, "is free", ""},
		{"port 443", Good, "is free", ""},
		{"DNS", Good, "devhost.localhost is this machine by itself; for others, choose a public domain with --domain", ""},
	}
	if diff := cmp.Diff(want, findings); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if !Healthy(findings) {
		t.Error("a host without a problem is called unhealthy")
	}
	for _, call := range f.runner.Calls() {
		// Nix aborts where it may not look into HOME.
		if !strings.Contains(strings.Join(call.Env, "\n"), "HOME=/nonexistent") {
			t.Errorf("%s runs with environment %q", call.Name, call.Env)
		}
	}
}

func TestHealthy(t *testing.T) {
	for _, test := range []struct {
		levels []Level
		want   bool
	}{
		{nil, true},
		{[]Level{Good, Warning, Good}, true},
		{[]Level{Good, Problem, Good}, false},
	} {
		var findings []Finding
		for _, level := range test.levels {
			findings = append(findings, Finding{Level: level})
		}
		if got := Healthy(findings); got != test.want {
			t.Errorf("%v is healthy: %v", test.levels, got)
		}
	}
}

// TestFindings: each thing that can be wrong is said, with what to do.
func TestFindings(t *testing.T) {
	setup := (&nix.NoBuildUsers{Group: "nixbld"}).Remedy()
	if !strings.Contains(setup, "groupadd --system nixbld") || !strings.Contains(setup, "useradd --system") {
		t.Errorf("the remedy for missing build users is no command: %s", setup)
	}
	sudo := "run: sudo devhost doctor"
	users := func(h *Host) []Finding { return h.buildUsers(context.Background()) }
	for _, test := range []struct {
		name    string
		arrange func(t *testing.T, f *fixture)
		examine func(h *Host) []Finding
		want    []Finding
	}{
		{
			"not root", func(_ *testing.T, f *fixture) { f.host.UID = 1000 },
			func(h *Host) []Finding { return h.root(context.Background()) },
			[]Finding{{"root", Warning, "not running as root: some checks cannot be made", sudo}},
		},
		{
			"no user namespaces", func(t *testing.T, f *fixture) { f.remove(t, "/proc/sys/user/max_user_namespaces") },
			func(h *Host) []Finding { return h.userNamespaces(context.Background()) },
			[]Finding{{"user namespaces", Problem, "the kernel has none", "use a kernel with CONFIG_USER_NS"}},
		},
		{
			"user namespaces switched off", func(t *testing.T, f *fixture) { f.write(t, "/proc/sys/user/max_user_namespaces", "0\n") },
			func(h *Host) []Finding { return h.userNamespaces(context.Background()) },
			[]Finding{{"user namespaces", Problem, "they are switched off", "run: sysctl -w user.max_user_namespaces=65536, and put it into /etc/sysctl.d/devhost.conf"}},
		},
		{
			"no idmapped mounts", func(_ *testing.T, f *fixture) {
				f.host.Idmap = func(_ context.Context, folder string) error {
					if folder != f.root {
						return fmt.Errorf("tried at %s", folder)
					}
					return fmt.Errorf("mount_setattr: %w", syscall.EINVAL)
				}
			},
			func(h *Host) []Finding { return h.idmappedMounts(context.Background()) },
			[]Finding{{"idmapped mounts", Problem, "do not work at ROOT: mount_setattr: invalid argument", "use Linux 5.12 or newer and a state folder on ext4, btrfs or xfs (--state-dir, or mount one at ROOT/state/not/there/yet)"}},
		},
		{
			"idmapped mounts without root", func(_ *testing.T, f *fixture) {
				f.host.UID = 1000
				f.host.Idmap = func(context.Context, string) error { return errors.New("tried without root") }
			},
			func(h *Host) []Finding { return h.idmappedMounts(context.Background()) },
			[]Finding{{"idmapped mounts", Warning, "cannot be tried without root", sudo}},
		},
		{
			"no nspawn", func(_ *testing.T, f *fixture) {
				f.runner.Expect("systemd-nspawn", "", &execx.Error{Argv: []string{"systemd-nspawn"}, NotFound: true})
			},
			func(h *Host) []Finding { return h.nspawn(context.Background()) },
			[]Finding{{"systemd-nspawn", Problem, "is not installed", "install it: apt-get install systemd-container (Debian 12 or newer, Ubuntu 24.04)"}},
		},
		{
			"old nspawn", func(_ *testing.T, f *fixture) {
				f.runner.Expect("systemd-nspawn", "systemd 247 (247.3-7+deb11u4)\n", nil)
			},
			func(h *Host) []Finding { return h.nspawn(context.Background()) },
			[]Finding{{"systemd-nspawn", Problem, "version 247 is too old: 252 or newer is needed", "install it: apt-get install systemd-container (Debian 12 or newer, Ubuntu 24.04)"}},
		},
		{
			"no Nix", func(_ *testing.T, f *fixture) {
				f.runner.Expect("nix", "", &execx.Error{Argv: []string{"nix"}, NotFound: true})
			},
			func(h *Host) []Finding { return h.nix(context.Background()) },
			[]Finding{{"Nix", Problem, "is not installed", "install it: apt-get install nix-bin, or see https://nixos.org/download"}},
		},
		{
			"old Nix", func(_ *testing.T, f *fixture) { f.runner.Expect("nix", "nix (Nix) 2.3.16\n", nil) },
			func(h *Host) []Finding { return h.nix(context.Background()) },
			[]Finding{{"Nix", Problem, "version 2.3.16 is too old: 2.8 or newer is needed", "install it: apt-get install nix-bin, or see https://nixos.org/download"}},
		},
		{
			"broken Nix", func(_ *testing.T, f *fixture) { f.runner.Expect("nix", "Segmentation fault\n", nil) },
			func(h *Host) []Finding { return h.nix(context.Background()) },
			[]Finding{{"Nix", Problem, `nix --version says "Segmentation fault"`, "see what nix --version says, and install it again"}},
		},
		{
			"Lix", func(_ *testing.T, f *fixture) { f.runner.Expect("nix", "nix (Lix, like Nix) 2.91.1\n", nil) },
			func(h *Host) []Finding { return h.nix(context.Background()) },
			[]Finding{{"Nix", Good, "version 2.91.1", ""}},
		},
		{
			"no group of build users", func(t *testing.T, f *fixture) {
				f.write(t, "/etc/group", "root:x:0:\n")
				f.runner.Expect("^getent group nixbld$", "", &execx.Error{Argv: []string{"getent"}, ExitCode: 2})
			},
			users, []Finding{{"build users", Problem, "there is no group nixbld: builders would be root", setup}},
		},
		{
			"build users of a directory service", func(t *testing.T, f *fixture) {
				f.write(t, "/etc/group", "root:x:0:\n")
				f.runner.Expect("^getent group nixbld$", "nixbld:*:30000:a,b,c\n", nil)
			},
			users, []Finding{{"build users", Good, "3 in group nixbld", ""}},
		},
		{
			"no build users", func(t *testing.T, f *fixture) { f.write(t, "/etc/group", "nixbld:x:30000:\n") },
			users, []Finding{{"build users", Problem, "the group nixbld has no members: builders would be root", setup}},
		},
		{
			"other group of build users", func(t *testing.T, f *fixture) {
				f.write(t, "/etc/nix/nix.conf", "build-users-group = builders # ours\n")
				f.write(t, "/etc/group", "nixbld:x:30000:\nbuilders:x:400:b1\n")
			},
			users, []Finding{{"build users", Good, "1 in group builders", ""}},
		},
		{
			"empty setting for build users", func(t *testing.T, f *fixture) { f.write(t, "/etc/nix/nix.conf", "# ours\nbuild-users-group =\n") },
			users, []Finding{{"build users", Problem, "build-users-group is empty in /etc/nix/nix.conf: builders would be root", (&nix.NoBuildUsers{}).Remedy()}},
		},
		{
			"allocated build users", func(t *testing.T, f *fixture) {
				f.write(t, "/etc/nix/nix.conf", "auto-allocate-uids = true\nbuild-users-group =\n")
			},
			users, []Finding{{"build users", Good, "Nix allocates them (auto-allocate-uids)", ""}},
		},
		{
			"settings in an included file", func(t *testing.T, f *fixture) {
				f.write(t, "/etc/nix/nix.conf", "include more.conf\n!include /etc/nix/none.conf\n")
				f.write(t, "/etc/nix/more.conf", "build-users-group = builders\nsandbox = false\n")
				f.write(t, "/etc/group", "nixbld:x:30000:\nbuilders:x:400:b1\n")
			},
			users, []Finding{
				{"build users", Good, "1 in group builders", ""},
				{"build users", Problem, "sandbox = false in /etc/nix/nix.conf: builders would see the host's files", "set sandbox = true there and restart nix-daemon"},
			},
		},
		{
			"settings that cannot be read", func(t *testing.T, f *fixture) { f.write(t, "/etc/nix/nix.conf", "include none.conf\n") },
			users, []Finding{{"build users", Problem, "cannot read what /etc/nix/nix.conf includes: open ROOT/etc/nix/none.conf: no such file or directory", "mend /etc/nix/nix.conf, see: man nix.conf"}},
		},
		{
			"bad settings", func(_ *testing.T, f *fixture) {
				f.host.Settings = func() error { return errors.New("the settings cannot be used:\n  x:1:1: y") }
			},
			func(h *Host) []Finding { return h.settings(context.Background()) },
			[]Finding{{"settings", Problem, "the settings cannot be used: x:1:1: y", "correct the file, and check it with: devhost host check"}},
		},
		{
			"troubles of the network", func(_ *testing.T, f *fixture) {
				f.host.Containers = func() ([]network.Trouble, error) {
					return []network.Trouble{{What: "it is gone", Remedy: "make it"}, {What: "a port is taken", Remedy: "take another one"}}, nil
				}
			},
			func(h *Host) []Finding { return h.containers(context.Background()) },
			[]Finding{{"containers' network", Warning, "it is gone", "make it"}, {"containers' network", Warning, "a port is taken", "take another one"}},
		},
		{
			"a network that cannot be looked at", func(_ *testing.T, f *fixture) {
				f.host.Containers = func() ([]network.Trouble, error) { return nil, errors.New("no") }
			},
			func(h *Host) []Finding { return h.containers(context.Background()) },
			[]Finding{{"containers' network", Warning, "no", "make it anew: sudo devhost boot"}},
		},
		{
			"the network without root", func(_ *testing.T, f *fixture) { f.host.UID, f.host.Containers = 1000, nil },
			func(h *Host) []Finding { return h.containers(context.Background()) },
			[]Finding{{"containers' network", Warning, "cannot be looked at without root", "run: sudo devhost doctor"}},
		},
		{
			"few inotify instances", func(t *testing.T, f *fixture) { f.write(t, "/proc/sys/fs/inotify/max_user_instances", "128\n") },
			func(h *Host) []Finding { return h.inotify(context.Background()) },
			[]Finding{{"inotify instances", Good, "128 (fs.inotify.max_user_instances), which is enough for few containers; devhost raises it to 8192 when it starts one", ""}},
		},
		{
			"a resolver is left out", func(_ *testing.T, f *fixture) {
				f.host.Resolvers = func() (network.Resolvers, error) {
					return network.Resolvers{Upstream: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Source: "/etc/resolv.conf", Notes: []string{"left out"}}, nil
				}
			},
			func(h *Host) []Finding { return h.resolvers(context.Background()) },
			[]Finding{
				{"resolvers", Good, "containers use 192.0.2.53 (/etc/resolv.conf)", ""},
				{"resolvers", Warning, "left out", network.ResolverRemedy},
			},
		},
		{
			"no resolver", func(_ *testing.T, f *fixture) {
				f.host.Resolvers = func() (network.Resolvers, error) {
					return network.Resolvers{Notes: []string{"there is none; " + network.ResolverRemedy}}, nil
				}
			},
			func(h *Host) []Finding { return h.resolvers(context.Background()) },
			[]Finding{{"resolvers", Warning, "there is none", network.ResolverRemedy}},
		},
		{
			"unreadable resolvers", func(_ *testing.T, f *fixture) {
				f.host.Resolvers = func() (network.Resolvers, error) { return network.Resolvers{}, errors.New("broken") }
			},
			func(h *Host) []Finding { return h.resolvers(context.Background()) },
			[]Finding{{"resolvers", Warning, "broken", "mend /etc/resolv.conf, see: man resolv.conf"}},
		},
		{
			"no sandbox", func(t *testing.T, f *fixture) { f.write(t, "/etc/nix/nix.conf", "sandbox = relaxed\n") },
			users, []Finding{
				{"build users", Good, "2 in group nixbld", ""},
				{"build users", Problem, "sandbox = relaxed in /etc/nix/nix.conf: builders would see the host's files", "set sandbox = true there and restart nix-daemon"},
			},
		},
		{
			"daemon", func(t *testing.T, f *fixture) {
				f.write(t, "/nix/var/nix/daemon-socket/.keep", "")
				listener, err := net.Listen("unix", filepath.Join(f.root, "nix/var/nix/daemon-socket/socket"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { listener.Close() })
			},
			func(h *Host) []Finding { return h.store(context.Background())[:1] },
			[]Finding{{"store", Good, "a Nix daemon answers", ""}},
		},
		{
			"no project quotas", func(_ *testing.T, f *fixture) { f.host.Quotas = func(string) bool { return false } },
			func(h *Host) []Finding { return h.diskLimits(context.Background()) },
			[]Finding{{"disk limits", Warning, "the file system of ROOT has no project quotas: --disk-size is recorded, not enforced", "where that matters, have the state folder on ext4 made with -O project,quota, or on xfs, mounted with prjquota (Linux 5.14 or newer)"}},
		},
		{
			"full store", func(_ *testing.T, f *fixture) { f.host.Free = func(string) (int64, error) { return 3 << 29, nil } },
			func(h *Host) []Finding { return h.store(context.Background())[1:] },
			[]Finding{{"store", Warning, "only 1.5 GiB free at ROOT/nix/store", "free space: nix-collect-garbage --delete-older-than 30d"}},
		},
		{
			"unreadable store", func(_ *testing.T, f *fixture) { f.host.Free = func(string) (int64, error) { return 0, syscall.EIO } },
			func(h *Host) []Finding { return h.store(context.Background())[1:] },
			[]Finding{{"store", Problem, "cannot look at ROOT/nix/store: input/output error", "make the file system of /nix available"}},
		},
		{
			"no nftables", func(_ *testing.T, f *fixture) {
				f.host.ForwardDrops = func() ([]network.Finding, error) {
					return nil, errors.New("cannot list chains: protocol not supported")
				}
			},
			func(h *Host) []Finding { return h.nftables(context.Background()) },
			[]Finding{{"nftables", Problem, "cannot list chains: protocol not supported", "use a kernel with nf_tables (modprobe nf_tables)"}},
		},
		{
			"nftables without root", func(_ *testing.T, f *fixture) { f.host.UID, f.host.ForwardDrops = 1000, nil },
			func(h *Host) []Finding { return h.nftables(context.Background()) },
			[]Finding{{"nftables", Warning, "cannot be read without root", sudo}},
		},
		{
			"foreign rules", func(_ *testing.T, f *fixture) {
				f.host.ForwardDrops = func() ([]network.Finding, error) {
					return []network.Finding{{Family: "ip", Table: "filter", Chain: "FORWARD", What: "its policy is drop", Remedy: "iptables -I DOCKER-USER -j ACCEPT"}}, nil
				}
			},
			func(h *Host) []Finding { return h.nftables(context.Background()) },
			[]Finding{
				{"nftables", Good, "can be used", ""},
				{"foreign forward rules", Warning, "ip table filter, chain FORWARD: its policy is drop", "iptables -I DOCKER-USER -j ACCEPT"},
			},
		},
		{
			"ports", func(_ *testing.T, f *fixture) {
				f.host.Listen = func(_ context.Context, protocol, address string) (net.Listener, error) {
					err := syscall.EADDRINUSE
					if address == ":80" {
						err = syscall.EACCES
					}
					return nil, &net.OpError{Op: "listen", Net: protocol, Err: os.NewSyscallError("bind", err)}
				}
			},
			func(h *Host) []Finding { return h.ports(context.Background()) },
			[]Finding{
				{"port 80", Warning, "cannot be tried without root", sudo},
				{"port 443", Warning, "is taken", "if that is not devhost's ingress, stop what holds it (ss -ltnp 'sport = :443'), or choose other ports for devhost ingress"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			test.arrange(t, f)
			got := f.shorten(test.examine(f.host))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			for _, finding := range got {
				if finding.Level != Good && finding.Remedy == "" {
					t.Errorf("%q has no remedy", finding.Detail)
				}
			}
		})
	}
}

func TestDNS(t *testing.T) {
	const remedy = "add to the zone: dev.example.org and *.dev.example.org as A/AAAA (or CNAME) of this host's public address"
	for _, test := range []struct {
		name            string
		domain, anyName []string
		want            []Finding
	}{
		{"both resolve", []string{"192.0.2.7"}, []string{"192.0.2.7", "2001:db8::7"}, []Finding{
			{"DNS", Good, "dev.example.org is 192.0.2.7", ""}, {"DNS", Good, "check-ID.dev.example.org is 192.0.2.7, 2001:db8::7", ""},
		}},
		{"no wildcard", []string{"192.0.2.7"}, nil, []Finding{
			{"DNS", Good, "dev.example.org is 192.0.2.7", ""}, {"DNS", Warning, "check-ID.dev.example.org does not resolve", remedy},
		}},
		{"nothing", nil, nil, []Finding{
			{"DNS", Warning, "dev.example.org does not resolve", remedy}, {"DNS", Warning, "check-ID.dev.example.org does not resolve", remedy},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.host.Domain = "dev.example.org"
			var id string
			f.host.LookupHost = func(ctx context.Context, name string) ([]string, error) {
				if _, limited := ctx.Deadline(); !limited {
					t.Error("a lookup without a deadline")
				}
				addresses := test.domain
				if label, isBelow := strings.CutSuffix(name, ".dev.example.org"); isBelow {
					id, addresses = strings.TrimPrefix(label, "check-"), test.anyName
				}
				if addresses == nil {
					return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
				}
				return addresses, nil
			}
			got := f.host.dns(context.Background())
			if id == "" {
				t.Fatal("no name below the domain was looked up")
			}
			for i := range got {
				got[i].Detail = strings.ReplaceAll(got[i].Detail, id, "ID")
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOlder(t *testing.T) {
	for _, test := range []struct {
		version, than string
		want          bool
	}{
		{"252", "252", false}, {"251", "252", true}, {"257.4", "252", false},
		{"2.8.0", "2.8", false}, {"2.8", "2.8", false}, {"2.7.9", "2.8", true}, {"2.31.1", "2.8", false}, {"3.0", "2.8", false}, {"2", "2.8", true},
	} {
		if got := older(test.version, test.than); got != test.want {
			t.Errorf("%s is older than %s: %v", test.version, test.than, got)
		}
	}
}

// TestTryIdmap holds the real thing against file systems of this host.
func TestTryIdmap(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := TryIdmap(context.Background(), execx.New(), "/proc"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("idmapped mounts of /proc: %v", err)
	}
	if err := TryIdmap(context.Background(), execx.New(), filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("idmapped mounts of what is missing: %v", err)
	}
	if err := TryIdmap(context.Background(), execx.New(), "/"); err != nil {
		t.Errorf("idmapped mounts of the root: %v", err)
	}
}

func TestFreeBytes(t *testing.T) {
	if free, err := FreeBytes("/"); err != nil || free <= 0 {
		t.Errorf("%d bytes (%v)", free, err)
	}
	if _, err := FreeBytes("/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder gives %v", err)
	}
}
