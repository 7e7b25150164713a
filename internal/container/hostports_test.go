package container

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/settings"
)

func TestParseForwardPort(t *testing.T) {
	for text, want := range map[string]registry.ForwardPort{
		"8080:80":        {Protocol: "tcp", HostPort: 8080, GuestPort: 80},
		"8080:80/tcp":    {Protocol: "tcp", HostPort: 8080, GuestPort: 80},
		"5353:53/udp":    {Protocol: "udp", HostPort: 5353, GuestPort: 53},
		"65535:65535":    {Protocol: "tcp", HostPort: 65535, GuestPort: 65535},
		"1:1/udp":        {Protocol: "udp", HostPort: 1, GuestPort: 1},
		"08080:0080/tcp": {Protocol: "tcp", HostPort: 8080, GuestPort: 80},
	} {
		if got, err := ParseForwardPort(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, reason := range map[string]string{
		"": "two ports", "8080": "two ports", "8080:": `"" is no port`, ":80": `"" is no port`, "0:80": `"0" is no port`, "80:0": `"0" is no port`,
		"65536:80": `"65536" is no port`, "80:x": `"x" is no port`, "-1:80": `"-1" is no port`, "+1:80": `"+1" is no port`,
		"1:2:3": `"2:3" is no port`, "80:80/sctp": `"sctp" is neither`, "80:80/": `"" is neither`, "80:80/TCP": `"TCP" is neither`,
		"127.0.0.1:80:80": `"127.0.0.1" is no port`, "80: 80": `" 80" is no port`, "80:80\n": `no port`,
	} {
		if got, err := ParseForwardPort(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q is read as %+v, %v; want %q", text, got, err, reason)
		}
	}
}

func port(t *testing.T, text string) registry.ForwardPort {
	t.Helper()
	parsed, err := ParseForwardPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// withPorts ensures a container of one channel with forwarded ports.
func (w *world) withPorts(name string, texts ...string) error {
	w.t.Helper()
	ports := []registry.ForwardPort{}
	for _, text := range texts {
		ports = append(ports, port(w.t, text))
	}
	manager := w.manager()
	manager.Settings = settings.Default()
	channel := "/c"
	_, err := manager.Ensure(w.t.Context(), EnsureRequest{
		Name: name, Channel: &channel, ForwardPorts: &ports, Timeout: time.Minute, LockTimeout: time.Minute,
	})
	return err
}

func (w *world) portsOf(name string) []registry.ForwardPort {
	w.t.Helper()
	record, err := w.registry.Load(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return record.ForwardPorts
}

func TestForwardPortsAreExclusive(t *testing.T) {
	w := newWorld(t)
	w.listening = map[string]bool{"9000/tcp": true}
	if err := w.withPorts("one", "8080:80", "5353:53/udp"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ports, reason string
		taken               bool
	}{
		{"of another container", "8080:22", "it leads to container one", true},
		{"of a program of the host", "9000:22", "a program of the host listens there (ss -lnp --tcp 'sport = :9000')", true},
		{"of root's", "443:22", "the settings of this host allow 1024-32767", false},
		{"too high", "40000:22", "the settings of this host allow 1024-32767", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := w.withPorts("two", c.ports)
			var refused *PortRefused
			if !errors.As(err, &refused) || refused.Taken != c.taken || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("error = %v", err)
			}
			if _, err := w.registry.Load("two"); err == nil {
				t.Error("the container is there nevertheless")
			}
		})
	}
	// The other protocol is another port, and a port of one's own is no conflict.
	other := &registry.Container{Name: "other", Address: registry.Address{IPv4: "127.0.0.9"}, ForwardPorts: []registry.ForwardPort{port(t, "7000:80")}}
	if err := errors.Join(os.MkdirAll(w.registry.Container("other"), 0o700), w.registry.Save(other)); err != nil {
		t.Fatal(err)
	}
	w.listening["8080/tcp"] = true
	if err := w.withPorts("one", "8080:81", "7000:80/udp", "9000:1/udp"); err != nil {
		t.Error(err)
	}
	if err := w.withPorts("one", "7000:80"); err == nil || !strings.Contains(err.Error(), "it leads to container other") {
		t.Errorf("error = %v", err)
	}
	if got, want := w.portsOf("one"), []registry.ForwardPort{port(t, "8080:81"), port(t, "7000:80/udp"), port(t, "9000:1/udp")}; !slices.Equal(got, want) {
		t.Errorf("after a refusal it has %v", got)
	}
	other.ForwardPorts = nil
	if err := w.registry.Save(other); err != nil {
		t.Fatal(err)
	}
	if err := w.withPorts("one", "7000:80"); err != nil {
		t.Errorf("a port that became free: %v", err)
	}
	if err := w.withPorts("one"); err != nil || len(w.portsOf("one")) != 0 {
		t.Errorf("without ports: %v, %v", w.portsOf("one"), err)
	}
}

// TestPortsAreClaimed: between the early look and the end of a deployment,
// somebody else has got the port.
func TestPortsAreClaimed(t *testing.T) {
	w := newWorld(t)
	if err := w.withPorts("one"); err != nil {
		t.Fatal(err)
	}
	old, err := w.registry.Load("one")
	if err != nil {
		t.Fatal(err)
	}
	other := &registry.Container{Name: "other", Address: registry.Address{IPv4: "127.0.0.9"}, ForwardPorts: []registry.ForwardPort{port(t, "8080:80")}}
	if err := errors.Join(os.MkdirAll(w.registry.Container("other"), 0o700), w.registry.Save(other)); err != nil {
		t.Fatal(err)
	}
	manager := w.manager()
	manager.Settings = settings.Default()
	wanted := *old
	wanted.ForwardPorts = other.ForwardPorts
	var refused *PortRefused
	if err := manager.claim(t.Context(), &wanted, old); !errors.As(err, &refused) || len(w.portsOf("one")) != 0 {
		t.Errorf("update: %v; it has %v", err, w.portsOf("one"))
	}
	wanted.Name = "two"
	if err := manager.allocate(t.Context(), &wanted); !errors.As(err, &refused) {
		t.Errorf("create: %v", err)
	}
}

func TestForwardPortsOfTheIngress(t *testing.T) {
	w := newWorld(t)
	manager := w.manager()
	manager.Settings = settings.Default()
	manager.Settings.Ingress.HTTPSPort = 8443
	record := &registry.Container{Name: "one", ForwardPorts: []registry.ForwardPort{port(t, "8443:443")}}
	if err := manager.checkPorts(record, nil, nil); err == nil || !strings.Contains(err.Error(), "it is the ingress'") {
		t.Errorf("error = %v", err)
	}
	record.ForwardPorts[0].Protocol = "udp"
	if err := manager.checkPorts(record, nil, nil); err != nil {
		t.Errorf("control: %v", err)
	}
	manager.Settings.Network.ForwardPorts = nil
	if err := manager.checkPorts(record, nil, nil); err == nil || !strings.Contains(err.Error(), "allow none") {
		t.Errorf("error = %v", err)
	}
}

func TestForwardPortsWithMistakes(t *testing.T) {
	many := []registry.ForwardPort{}
	for number := range mostForwardPorts + 1 {
		many = append(many, registry.ForwardPort{Protocol: "tcp", HostPort: uint16(2000 + number), GuestPort: 80})
	}
	for name, ports := range map[string][]registry.ForwardPort{
		"twice":       {port(t, "8080:80"), port(t, "8080:81")},
		"no protocol": {{HostPort: 8080, GuestPort: 80}},
		"no port":     {{Protocol: "tcp", HostPort: 8080}},
		"many":        many,
	} {
		t.Run(name, func(t *testing.T) {
			if err := (&EnsureRequest{Name: "one", ForwardPorts: &ports}).Validate(); err == nil {
				t.Error("it is accepted")
			}
		})
	}
	fine := many[:mostForwardPorts]
	if err := (&EnsureRequest{Name: "one", ForwardPorts: &fine}).Validate(); err != nil {
		t.Errorf("control: %v", err)
	}
}

// TestForwardPortsGoBack: a deployment that fails keeps the ports of before.
func TestForwardPortsGoBack(t *testing.T) {
	w := newWorld(t)
	if err := w.withPorts("one", "8080:80"); err != nil {
		t.Fatal(err)
	}
	w.fail["switch to d-"] = errors.New("no")
	ports, channel := []registry.ForwardPort{port(t, "8081:80")}, "/d"
	manager := w.manager()
	manager.Settings = settings.Default()
	_, err := manager.Ensure(t.Context(), EnsureRequest{Name: "one", Channel: &channel, ForwardPorts: &ports, Timeout: time.Minute, LockTimeout: time.Minute})
	if err == nil {
		t.Fatal("control: it succeeds")
	}
	if got := w.portsOf("one"); !slices.Equal(got, []registry.ForwardPort{port(t, "8080:80")}) {
		t.Errorf("it has %v", got)
	}
}

func TestForwardsOfAll(t *testing.T) {
	record := func(name, address string, age time.Duration, ports ...string) *registry.Container {
		made := &registry.Container{Name: name, CreatedAt: time.Unix(1e9, 0).Add(-age), Address: registry.Address{IPv4: address}}
		for _, text := range ports {
			made.ForwardPorts = append(made.ForwardPorts, port(t, text))
		}
		return made
	}
	got, err := forwards([]*registry.Container{
		record("a", "10.0.0.2", 0, "8080:80"),
		record("b", "10.0.0.3", time.Hour, "8080:81", "53:53/udp"),
		record("c", "10.0.0.4", 0),
	})
	at := func(address string) network.Addresses { return network.Addresses{IPv4: netip.MustParseAddr(address)} }
	// The port that two have is the older container's: it comes first.
	want := []network.Forward{
		{Protocol: "tcp", HostPort: 8080, GuestPort: 81, Addresses: at("10.0.0.3")},
		{Protocol: "udp", HostPort: 53, GuestPort: 53, Addresses: at("10.0.0.3")},
		{Protocol: "tcp", HostPort: 8080, GuestPort: 80, Addresses: at("10.0.0.2")},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := forwards([]*registry.Container{record("a", "x", 0)}); err == nil {
		t.Error("a bad address is accepted")
	}
}

func TestFreedPorts(t *testing.T) {
	w := newWorld(t)
	w.listening = map[string]bool{"9000/tcp": true}
	if err := w.withPorts("one", "8080:1"); err != nil {
		t.Fatal(err)
	}
	manager := w.manager()
	manager.Settings = settings.Default()
	back := &registry.Container{Name: "back", ForwardPorts: []registry.ForwardPort{port(t, "8080:80"), port(t, "9000:80"), port(t, "8081:80"), port(t, "80:80")}}
	warnings, err := manager.freedPorts(back)
	if err != nil || len(warnings) != 3 {
		t.Fatalf("%q, %v", warnings, err)
	}
	for i, text := range []string{"8080:80/tcp: it leads to container one", "9000:80/tcp: a program of the host listens", "80:80/tcp: the settings of this host allow"} {
		if !strings.Contains(warnings[i], text) {
			t.Errorf("warning %q, want %q", warnings[i], text)
		}
	}
	if want := []registry.ForwardPort{port(t, "8081:80")}; !slices.Equal(back.ForwardPorts, want) {
		t.Errorf("kept %v", back.ForwardPorts)
	}
}

// TestEnsureRepairsTheNetwork: an ensure with nothing to do makes bridge and
// packet filter again where somebody has removed them.
func TestEnsureRepairsTheNetwork(t *testing.T) {
	w := newWorld(t)
	if err := w.withPorts("one"); err != nil {
		t.Fatal(err)
	}
	w.published = nil
	if err := w.withPorts("one"); err != nil || len(w.published) != 0 {
		t.Fatalf("control: with nothing wrong %v is published, %v", w.published, err)
	}
	w.damaged = true
	if err := w.withPorts("one"); err != nil || !slices.Equal(w.published, []string{"one"}) {
		t.Errorf("%v is published, %v", w.published, err)
	}
}

func TestWishes(t *testing.T) {
	for _, c := range []struct {
		name   string
		wanted settings.Network
		want   network.Wishes
		reason string
	}{
		{"default", settings.Default().Network, network.Wishes{}, ""},
		{"all", settings.Network{IPv4Pool: "10.9.0.0/16", IPv6Pool: "2001:db8::/64", IPv6Routed: true},
			network.Wishes{IPv4: netip.MustParsePrefix("10.9.0.0/16"), IPv6: netip.MustParsePrefix("2001:db8::/64"), IPv6Routed: true, NoNAT: true}, ""},
		{"no prefix", settings.Network{IPv4Pool: "10.9.0.0"}, network.Wishes{}, "network.ipv4Pool"},
		{"no pool", settings.Network{IPv6Pool: "ff00::/64", NAT: true}, network.Wishes{}, "meaning of its own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Wishes(c.wanted)
			if c.reason != "" {
				if err == nil || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("error = %v", err)
				}
			} else if err != nil || got != c.want {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
