package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"devhost/internal/engine"
	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/settings"
	"devhost/internal/sshaccess"
)

// TestHostNetwork: what is declared changes at a start, and nobody else gets it.
func TestHostNetwork(t *testing.T) {
	w := newWorld(t)
	onHost := box()
	onHost.Network = settings.NetworkHost
	const later = "\ncontainer box runs; whether it is ephemeral, its network and its bind mounts change when it is started next: devhost restart box"
	want := func(what string, host bool) {
		t.Helper()
		if got := load(t, w); got.Address.OnHost() != host || got.Address.IPv4 == "" {
			t.Errorf("%s: its address is %+v", what, got.Address)
		}
	}
	restart := func() {
		t.Helper()
		if err := w.manager().Restart(t.Context(), "box", time.Minute, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if got := apply(t, w, box()); got != "box: created" {
		t.Fatal(got)
	}
	want("private", false)
	if got := apply(t, w, onHost); got != "box: updated"+later {
		t.Error(got)
	}
	want("while it runs", false)
	if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil {
		t.Fatal(err)
	}
	want("a start of one that runs", false)
	restart()
	want("started anew", true)
	if w.calls = nil; apply(t, w, onHost) != "box: unchanged" || len(w.calls) > 0 {
		t.Errorf("the same again: %v", w.calls)
	}
	if _, err := w.manager().Clone(t.Context(), cloneRequest()); err != nil {
		t.Fatal(err)
	}
	if copied, err := w.registry.Load(cloneRequest().Name); err != nil || copied.Address.OnHost() || copied.Declared != nil {
		t.Errorf("the clone: %+v, %v", copied, err)
	}
	if err := w.manager().Destroy(t.Context(), cloneRequest().Name); err != nil {
		t.Fatal(err)
	}
	w.state = engine.State{Status: engine.Running, SupervisorPID: 1, LeaderPID: 2}
	// The fakes know one container only, and removed the system of both.
	if got := apply(t, w, box()); !strings.HasSuffix(got, later) {
		t.Error(got)
	}
	want("private again, while it runs", true)
	w.state = engine.State{Status: engine.Stopped}
	if results, err := w.manager().Boot(t.Context(), time.Minute); err != nil || results[0].Err != nil {
		t.Fatal(results, err)
	}
	want("after the host's start", false)

	apply(t, w, onHost)
	restart()
	want("on the host", true)
	if got := apply(t, w); got != "box: removed, and archived" {
		t.Error(got)
	}
	if _, err := w.manager().Undelete(t.Context(), UndeleteRequest{Name: "box", Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	want("brought back", false)
}

// TestStolenPort: another server on the port of a container's sshd is not taken for
// it, and a start finds another port.
func TestStolenPort(t *testing.T) {
	w := newWorld(t)
	onHost := box()
	onHost.Network = settings.NetworkHost
	apply(t, w, onHost)
	stopped := func() {
		t.Helper()
		if _, err := w.manager().Stop(t.Context(), "box", time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	stopped()
	w.stolen.Store(true)
	if _, err := w.manager().Start(t.Context(), "box", 100*time.Millisecond); err == nil {
		t.Error("a greeting is enough")
	}
	stopped()
	w.stolen.Store(false)
	elsewhere := sshaccess.Files{Host: t.TempDir(), Guest: t.TempDir()}
	if err := elsewhere.Ensure("thief", "127.0.0.1", 1); err != nil {
		t.Fatal(err)
	}
	var other *sshaccess.OtherServer
	address := w.manager().sshAddress(load(t, w))
	if err := elsewhere.Answers(t.Context(), address); !errors.As(err, &other) || !strings.Contains(err.Error(), "ss -ltnp") {
		t.Errorf("another host key: %v", err)
	}

	w.calls = nil
	if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || slices.Contains(w.calls, "allocate on host") {
		t.Errorf("its port is free: %v, %v", w.calls, err)
	}
	stopped()
	w.taken = true
	if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || !slices.Contains(w.calls, "allocate on host") {
		t.Errorf("its port is taken: %v, %v", w.calls, err)
	}
}

// TestKilledBeforePublishing: addresses that were recorded and not published are
// published by the next start.
func TestKilledBeforePublishing(t *testing.T) {
	w := newWorld(t)
	apply(t, w, box())
	record := load(t, w)
	record.Address.IPv6 = "fd00::7"
	if err := w.registry.Save(record); err != nil {
		t.Fatal(err)
	}
	w.published = nil
	w.state = engine.State{Status: engine.Stopped}
	for _, want := range [][]string{{"box"}, nil} {
		if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.published, want) {
			t.Errorf("published %v, not %v", w.published, want)
		}
		w.published, w.state = nil, engine.State{Status: engine.Stopped}
	}
}

// TestHostNetworkFails: a container for which there is no place keeps what it has.
func TestHostNetworkFails(t *testing.T) {
	w := newWorld(t)
	apply(t, w, box())
	onHost := box()
	onHost.Network = settings.NetworkHost
	apply(t, w, onHost)
	before := load(t, w).Address
	w.fail["allocate on host"] = errors.New("nothing is free")
	if err := w.manager().Restart(t.Context(), "box", time.Minute, time.Minute); err == nil || !strings.Contains(err.Error(), "nothing is free") {
		t.Errorf("%v", err)
	}
	if got := load(t, w).Address; got != before {
		t.Errorf("its address was %+v and is %+v", before, got)
	}
	delete(w.fail, "allocate on host")
	if _, err := w.manager().Start(t.Context(), "box", time.Minute); err != nil || !load(t, w).Address.OnHost() {
		t.Errorf("%+v, %v", load(t, w).Address, err)
	}
}

// TestSSHPortIsTaken: no port of the host leads away from a container's sshd.
func TestSSHPortIsTaken(t *testing.T) {
	w := newWorld(t)
	const sshPort = 7022
	other := &registry.Container{Name: "other", Address: registry.Address{IPv4: "127.64.0.9", SSHPort: sshPort}, Declared: &registry.Declared{HostNetwork: true}}
	if err := errors.Join(w.registry.Prepare(), os.MkdirAll(w.registry.Container("other"), 0o700), w.registry.Save(other)); err != nil {
		t.Fatal(err)
	}
	var refused *PortRefused
	if err := w.withPorts("one", "7022:80"); !errors.As(err, &refused) || !strings.Contains(err.Error(), "the sshd of container other listens there") {
		t.Errorf("%v", err)
	}
	if err := w.withPorts("one", "7022:80/udp"); err != nil {
		t.Error(err)
	}
}

// TestGuestFilesOnHost: each network has files of its own, and those of the other
// go; a private container does not learn addresses that lead to itself.
func TestGuestFilesOnHost(t *testing.T) {
	w := newWorld(t)
	layout := w.registry.Layout
	hosts := &HostNetwork{Layout: layout, HostsFile: filepath.Join(t.TempDir(), "hosts")}
	chosen, err := network.ChooseHost(layout.Instance(), network.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(layout.State, 0o755), registry.WriteJSON(layout.Network(), chosen)); err != nil {
		t.Fatal(err)
	}
	manager := w.manager()
	manager.Network = hosts
	record := func(name string, host bool, others ...*registry.Container) *registry.Container {
		t.Helper()
		made := &registry.Container{Name: name, Owner: "root", Environment: "shop", Declared: &registry.Declared{HostNetwork: host}}
		if host {
			made.Address, err = hosts.AllocateOnHost(t.Context(), name, others)
		} else {
			made.Address, err = hosts.Allocate(name, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	private, one := record("private", false), record("one", true)
	two := record("two", true, one, private)
	if one.Address.IPv4 == two.Address.IPv4 || one.Address.SSHPort == two.Address.SSHPort {
		t.Errorf("%+v and %+v", one.Address, two.Address)
	}
	all := []*registry.Container{private, one, two}
	files := func(record *registry.Container) (names []string, knows string) {
		t.Helper()
		if err := manager.writeNetworkFiles(record, all); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{networkdFile, sshdFile} {
			if _, err := os.Stat(filepath.Join(layout.Guest(record.Name), name)); err == nil {
				names = append(names, name)
			}
		}
		return names, textOf(t, filepath.Join(layout.Guest(record.Name), "hosts"))
	}
	if names, knows := files(one); !slices.Equal(names, []string{sshdFile}) || !strings.Contains(knows, private.Address.IPv4) || !strings.Contains(knows, two.Address.IPv4) {
		t.Errorf("in the host's network: %v\n%s", names, knows)
	}
	if names, knows := files(private); !slices.Equal(names, []string{networkdFile}) || strings.Contains(knows, "127.") {
		t.Errorf("in one of its own: %v\n%s", names, knows)
	}
	one.Address = private.Address
	if names, _ := files(one); !slices.Equal(names, []string{networkdFile}) {
		t.Errorf("changed: %v", names)
	}
	for _, record := range all {
		if err := errors.Join(os.MkdirAll(layout.Container(record.Name), 0o700), w.registry.Save(record)); err != nil {
			t.Fatal(err)
		}
	}
	if policy, err := hosts.policy(); err != nil || len(policy.Containers) != 2 {
		t.Errorf("the packet filter knows %+v, %v", policy.Containers, err)
	}
	if err := errors.Join(hosts.Attach(t.Context(), "two", two.Address), hosts.Detach(t.Context(), "two", two.Address)); err != nil {
		t.Error(err)
	}
}
