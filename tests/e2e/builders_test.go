package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// probe is the builder of a fixed-output derivation, which has the host's
// network: it says what it reaches, and fails, so that it is built each time.
const probe = `
for target in $targets; do
  if timeout 10 bash -c 'exec 3<> "/dev/tcp/${0%,*}/${0#*,}"' "$target" 2> failure; then
    echo "reached $target"
  else
    echo "did not reach $target: $(tail -n 1 failure)"
  fi
done >&2
exit 1
`

// target is an address that a builder tries.
type target struct {
	what    string
	address netip.Addr
	port    string
}

func (t target) String() string { return t.address.String() + "," + t.port }

// probed has a builder try the targets, as a part of a container's provision,
// and returns what it said.
func (h *host) probed(t *testing.T, name string, targets []target) string {
	t.Helper()
	words := make([]string, len(targets))
	for i, target := range targets {
		words[i] = target.String()
	}
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "probe"), probe)
	writeFile(t, filepath.Join(folder, "provision.nix"), fmt.Sprintf(`{
  environment.etc.probe.source = derivation {
    name = "probe"; system = builtins.currentSystem; builder = "/usr/bin/bash"; args = [ ./probe ];
    PATH = "/usr/bin:/bin"; targets = %q; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "%x";
  };
}`, strings.Join(words, " "), sha256.Sum256([]byte(folder))))
	result := h.run("ensure", name, "--channel", offline(t), "--provision", folder)
	log := readFile(t, h.layout.BuildLog(name))
	if result.status != 1 || !strings.Contains(log, words[len(words)-1]) {
		t.Fatalf("ensure ended with %d:\n%s\nand the builder says:\n%s", result.status, result.stderr, log)
	}
	return log
}

// TestBuildersReachTheOutsideOnly: the one builder with a network, that of a
// fixed-output derivation, reaches neither the host nor containers nor what
// tells clouds' secrets.
func TestBuildersReachTheOutsideOnly(t *testing.T) {
	needsFullRun(t)
	h := newHost(t)
	here := h.here()
	here.serve()
	loopback := []target{
		{"localhost", netip.MustParseAddr("127.0.0.1"), here.port},
		{"localhost", netip.MustParseAddr("::1"), here.port},
		{"localhost, as the kernel has it", netip.MustParseAddr("0.0.0.0"), here.port},
	}
	refused := func(t *testing.T, log string, targets []target) {
		t.Helper()
		for _, target := range targets {
			here := *here
			here.t = t
			here.mustReach("tcp", target.what+" (control)", target.address, target.port)
			if !strings.Contains(log, fmt.Sprintf("did not reach %s: ", target)) || strings.Contains(log, "reached "+target.String()+"\n") {
				t.Errorf("a builder reaches %s; it says:\n%s", target.what, log)
			}
			if !strings.Contains(log, fmt.Sprintf("/dev/tcp/%s/%s: Connection refused\n", target.address, target.port)) {
				t.Errorf("a builder waits in vain for %s; it says:\n%s", target.what, log)
			}
		}
	}
	t.Run("before there is a container", func(t *testing.T) {
		refused(t, h.with(t).probed(t, "first", loopback), loopback)
		h.with(t).checkNothingLeft()
	})

	h.must("ensure", "one", "--channel", offline(t))
	outside, guest := h.neighbourhood(), h.place("one")
	targets := slices.Concat(loopback, []target{
		{"the host's own address", outside.host4, here.port}, {"the host's own address", outside.host6, here.port},
		{"a container's sshd", guest.addresses[0], "22"}, {"a container's sshd", guest.addresses[1], "22"},
	})
	for _, address := range gateways(t, h, "one") {
		targets = append(targets, target{"the containers' gateway", address, here.port})
	}
	for _, address := range []string{"169.254.169.254", "fd00:ec2::254"} {
		service := outside.alsoAt(netip.MustParseAddr(address))
		targets = append(targets, target{"a metadata service", service.addresses[0], service.port})
	}
	world := []target{{"the outside", outside.addresses[0], outside.port}, {"the outside", outside.addresses[1], outside.port}}
	all := slices.Concat(targets, world)
	reached := func(t *testing.T, log string, targets []target) {
		t.Helper()
		for _, target := range targets {
			if !strings.Contains(log, "reached "+target.String()+"\n") {
				t.Errorf("a builder does not reach %s; it says:\n%s", target.what, log)
			}
		}
	}
	t.Run("a new container", func(t *testing.T) {
		log := h.with(t).probed(t, "two", all)
		refused(t, log, targets)
		reached(t, log, world)
	})
	t.Run("rules that somebody removed", func(t *testing.T) {
		tool(t, "nft", "delete", "table", "inet", "devhost-"+h.layout.Instance())
		refused(t, h.with(t).probed(t, "one", all), targets)
	})
	t.Run("switched off", func(t *testing.T) {
		h := h.with(t)
		h.configure(`{"version": 1, "network": {"restrictBuilders": false}}`)
		reached(t, h.probed(t, "two", all), all)
		h.configure(`{"version": 1}`)
		h.must("boot")
		refused(t, h.probed(t, "two", all), targets)
	})
}
