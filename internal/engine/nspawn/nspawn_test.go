package nspawn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"devhost/internal/registry"
)

func TestArguments(t *testing.T) {
	plain := Config{
		Machine: "demo", Hostname: "demo",
		Root: "/var/lib/devhost/containers/demo/root", Guest: "/var/lib/devhost/containers/demo/guest",
		Store: "/nix/store", System: "/nix/store/abc-nixos-system", HostInterface: "vd-0123456789",
	}
	hostUsr := plain
	hostUsr.HostUsr, hostUsr.NixSocket = true, "/nix/var/nix/daemon-socket"
	nested := plain
	nested.Nesting = true
	unit := plain
	unit.Unit = true
	colons := plain
	colons.Guest = `/srv/a:b\c/guest`
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"plain", plain, `--quiet
--settings=no
--register=no
--keep-unit
--notify-ready=no
--machine=demo
--hostname=demo
--directory=/var/lib/devhost/containers/demo/root
--private-users=pick
--private-users-ownership=auto
--bind-ro=/nix/store:/nix/store:norbind,rootidmap
--bind-ro=/var/lib/devhost/containers/demo/guest:/run/devhost:norbind,rootidmap
--network-veth-extra=vd-0123456789:host0
--resolv-conf=off
--timezone=off
--link-journal=no
--kill-signal=SIGRTMIN+4
--console=read-only
--
/nix/store/abc-nixos-system/init`},
		{"as a unit of systemd", unit, `--quiet
--settings=no
--register=yes
--keep-unit
--notify-ready=no
--machine=demo
--hostname=demo
--directory=/var/lib/devhost/containers/demo/root
--private-users=pick
--private-users-ownership=auto
--bind-ro=/nix/store:/nix/store:norbind,rootidmap
--bind-ro=/var/lib/devhost/containers/demo/guest:/run/devhost:norbind,rootidmap
--network-veth-extra=vd-0123456789:host0
--resolv-conf=off
--timezone=off
--link-journal=no
--kill-signal=SIGRTMIN+4
--console=read-only
--
/nix/store/abc-nixos-system/init`},
		{"with the host's usr", hostUsr, `--quiet
--settings=no
--register=no
--keep-unit
--notify-ready=no
--machine=demo
--hostname=demo
--directory=/var/lib/devhost/containers/demo/root
--private-users=pick
--private-users-ownership=auto
--bind-ro=/nix/store:/nix/store:norbind,rootidmap
--bind-ro=/var/lib/devhost/containers/demo/guest:/run/devhost:norbind,rootidmap
--bind-ro=/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket:norbind,rootidmap
--bind-ro=/usr:/usr:norbind,rootidmap
--network-veth-extra=vd-0123456789:host0
--resolv-conf=off
--timezone=off
--link-journal=no
--kill-signal=SIGRTMIN+4
--console=read-only
--
/nix/store/abc-nixos-system/init`},
		{"with nesting", nested, `--quiet
--settings=no
--register=no
--keep-unit
--notify-ready=no
--machine=demo
--hostname=demo
--directory=/var/lib/devhost/containers/demo/root
--private-users=pick
--private-users-ownership=auto
--bind-ro=/nix/store:/nix/store:norbind,rootidmap
--bind-ro=/var/lib/devhost/containers/demo/guest:/run/devhost:norbind,rootidmap
--system-call-filter=keyctl
--setenv=DEVHOST_NESTING=1
--network-veth-extra=vd-0123456789:host0
--resolv-conf=off
--timezone=off
--link-journal=no
--kill-signal=SIGRTMIN+4
--console=read-only
--
/nix/store/abc-nixos-system/init`},
		{"a state folder with colons", colons, `--quiet
--settings=no
--register=no
--keep-unit
--notify-ready=no
--machine=demo
--hostname=demo
--directory=/var/lib/devhost/containers/demo/root
--private-users=pick
--private-users-ownership=auto
--bind-ro=/nix/store:/nix/store:norbind,rootidmap
--bind-ro=/srv/a\:b\\c/guest:/run/devhost:norbind,rootidmap
--network-veth-extra=vd-0123456789:host0
--resolv-conf=off
--timezone=off
--link-journal=no
--kill-signal=SIGRTMIN+4
--console=read-only
--
/nix/store/abc-nixos-system/init`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, strings.Join(Arguments(test.config), "\n")); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHostNetwork: there is no cable, and never a guest without ids of its own.
func TestHostNetwork(t *testing.T) {
	config := Config{Machine: "demo", Root: "/r", Guest: "/g", Store: "/nix/store", System: "/nix/store/s", HostNetwork: true}
	private := config
	private.HostNetwork, private.HostInterface = false, "vd-1"
	const users, cable, refused = "--private-users=pick", "--network-veth-extra=vd-1:host0", "--drop-capability=CAP_NET_ADMIN"
	for name, test := range map[string]struct {
		config  Config
		has     []string
		without string
	}{
		"host":    {config, []string{users, refused}, "--network"},
		"private": {private, []string{users, cable}, "--drop"},
	} {
		t.Run(name, func(t *testing.T) {
			arguments := strings.Join(Arguments(test.config), " ")
			for _, want := range test.has {
				if !strings.Contains(arguments, want) {
					t.Errorf("%s lacks %s", arguments, want)
				}
			}
			if strings.Contains(arguments, test.without) {
				t.Errorf("%s has %s", arguments, test.without)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	const path = "PATH=/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	tests := []struct {
		name    string
		unified bool
		want    []string
	}{
		{"v1", false, []string{path, "NOTIFY_SOCKET=/run/x", "TERM=dumb"}},
		{"v2", true, []string{path, "NOTIFY_SOCKET=/run/x", "TERM=dumb", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Environment("/run/x", test.unified)); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMachineName(t *testing.T) {
	other := registry.Layout{State: "/srv/state"}
	long := strings.Repeat("n", 63)
	tests := []struct {
		name, container string
		layout          registry.Layout
		want            string
	}{
		{"default state folder", "demo", registry.Layout{State: registry.DefaultStateDir}, "demo"},
		{"longest in the default state folder", long, registry.Layout{State: registry.DefaultStateDir}, long},
		{"other state folder", "demo", other, "demo-" + other.Instance()},
		{"long in an other state folder", long, other, strings.Repeat("n", 46) + "-73dcf996-" + other.Instance()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := MachineName(test.layout, test.container)
			if len(got) > 64 {
				t.Errorf("%q has %d characters", got, len(got))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("name (-want +got):\n%s", diff)
			}
		})
	}
	if MachineName(other, long) == MachineName(other, long[1:]+"m") {
		t.Error("two long names have the same machine name")
	}
}

func TestHostUsr(t *testing.T) {
	tests := []struct {
		name, file string
		want       bool
		wantError  string
	}{
		{"no file", "", false, ""},
		{"wanted", `{"version":1,"hostUsr":true}`, true, ""},
		{"not wanted", `{"version":1}`, false, ""},
		{"newer", `{"version":2,"hostUsr":true}`, false, "version 2"},
		{"damaged", `{"version":`, false, "devhost-system.json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			system := t.TempDir()
			if test.file != "" {
				if err := os.WriteFile(filepath.Join(system, "devhost-system.json"), []byte(test.file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := HostUsr(system)
			if got != test.want || (err != nil) != (test.wantError != "") {
				t.Fatalf("%v, %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), test.wantError) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestPrepareRoot(t *testing.T) {
	outside := t.TempDir()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	// The guest of an earlier boot put links in the way.
	for _, link := range []string{"usr", "sbin"} {
		if err := os.Symlink(outside, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := PrepareRoot(root, true); err != nil {
			t.Fatal(err)
		}
	}
	if target, _ := os.Readlink(filepath.Join(root, "sbin")); target != outside {
		t.Errorf("what the guest had at /sbin is now a link to %q", target)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("a link of the guest was followed: %v", entries)
	}
	if want, err := os.Readlink("/bin"); err == nil {
		got, _ := os.Readlink(filepath.Join(root, "bin"))
		if diff := cmp.Diff(strings.TrimPrefix(want, "/"), got); diff != "" {
			t.Errorf("/bin (-want +got):\n%s", diff)
		}
	}
	bare := filepath.Join(t.TempDir(), "root")
	if err := PrepareRoot(bare, false); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(bare); len(entries) != 2 || entries[0].Name() != "nix" || entries[1].Name() != "usr" {
		t.Errorf("a root without the host's usr holds %v", entries)
	}
	if info, err := os.Stat(filepath.Join(bare, "nix/store")); err != nil || !info.IsDir() {
		t.Errorf("no place for the store: %v", err)
	}
	trap := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(trap, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(trap, "nix")); err != nil {
		t.Fatal(err)
	}
	if err := PrepareRoot(trap, false); err == nil {
		t.Error("a link at /nix that leaves the root was accepted")
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("a link of the guest was followed: %v", entries)
	}
}

func TestClear(t *testing.T) {
	runtime, container := t.TempDir(), t.TempDir()
	root := filepath.Join(container, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(root, &stat); err != nil {
		t.Fatal(err)
	}
	inode := filepath.Join(runtime, "nspawn/locks", fmt.Sprintf("inode-%d:%d", stat.Dev, stat.Ino))
	mine := []string{
		filepath.Join(runtime, "nspawn/propagate/mine/left"),
		filepath.Join(runtime, "nspawn/unix-export/mine/left"),
		filepath.Join(container, ".#root.lck"),
		filepath.Join(runtime, "nspawn-uid/524288"),
		inode,
	}
	others := []string{
		filepath.Join(runtime, "nspawn/propagate/other/left"),
		filepath.Join(runtime, "nspawn-uid/655360"),
		filepath.Join(runtime, "nspawn/locks/inode-1:2"),
	}
	for _, path := range append(append([]string{}, mine...), others...) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := Leftovers{Machine: "mine", Root: root, UIDBase: 524288}

	// As long as another nspawn holds a lock, its file stays.
	held, err := os.OpenFile(inode, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if err := clearBelow(runtime, left); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(inode); err != nil {
		t.Errorf("a lock that is held was removed: %v", err)
	}
	_ = held.Close()
	for range 2 {
		if err := clearBelow(runtime, left); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range mine {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	for _, path := range others {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("another container's file is gone: %v", err)
		}
	}
}
