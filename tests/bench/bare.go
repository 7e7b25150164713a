package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"devhost/internal/container"
	"devhost/internal/disk"
	"devhost/internal/engine/cgroup"
	"devhost/internal/engine/nspawn"
	"devhost/internal/execx"
	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

// bareName is the container that is started without devhost.
const bareName = "bare"

// bareHost boots a system by systemd-nspawn alone: everything that can be
// prepared is there before, and nothing watches or filters it.
type bareHost struct {
	runner execx.Runner
	layout registry.Layout
	// name is the container's; others share its network.
	name    string
	others  []*bareHost
	process execx.Process
	ended   chan error
	address registry.Address
	group   *cgroup.Group
	bridge  netlink.Link
	unified bool
	output  *os.File
}

// prepare makes all that outlives one boot: addresses, keys, files for the
// guest, a bridge.
func (h *bareHost) prepare() error {
	if h.bridge != nil {
		return nil
	}
	if err := registry.New(h.layout).Prepare(); err != nil {
		return err
	}
	if err := os.MkdirAll(h.layout.Container(h.name), 0o700); err != nil {
		return err
	}
	var used []registry.Address
	for _, other := range h.others {
		used = append(used, other.address)
	}
	plan := &container.HostNetwork{Layout: h.layout}
	var err error
	if h.address, err = plan.Allocate(h.name, used); err != nil {
		return err
	}
	keys := sshaccess.Files{Host: h.layout.SSH(h.name), Guest: h.layout.Guest(h.name)}
	if err := errors.Join(keys.Ensure(h.name, h.address.IPv4, 0), keys.Authorize([]string{"s-dev"}, nil)); err != nil {
		return err
	}
	files, err := plan.GuestFiles(h.name, h.address, []container.Host{{Name: h.name, IPv4: h.address.IPv4, IPv6: h.address.IPv6}})
	if err != nil {
		return err
	}
	files["name"] = h.name + "\n"
	for name, content := range files {
		path := filepath.Join(h.layout.Guest(h.name), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			return err
		}
	}
	if h.output, err = os.Create(filepath.Join(h.layout.State, h.name+".console.log")); err != nil {
		return err
	}
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	h.group, h.unified = tree.Group(h.layout.Instance(), h.name), tree.Unified()
	return h.makeBridge()
}

func (h *bareHost) bridgeName() string { return "dh-" + h.layout.Instance() }

func (h *bareHost) makeBridge() error {
	text, err := os.ReadFile(h.layout.Network())
	if err != nil {
		return err
	}
	var plan network.Host
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: h.bridgeName()}}
	if len(h.others) > 0 {
		h.bridge = h.others[0].bridge
		return nil
	}
	// An earlier figure has left its own, with the same address.
	if existing, err := netlink.LinkByName(h.bridgeName()); err == nil {
		h.bridge = existing
		return nil
	}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("cannot make bridge %s: %w", h.bridgeName(), err)
	}
	gateway := &netlink.Addr{IPNet: &net.IPNet{IP: plan.Gateway4().AsSlice(), Mask: net.CIDRMask(plan.IPv4.Bits(), 32)}}
	if err := errors.Join(netlink.AddrAdd(link, gateway), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	h.bridge = link
	return nil
}

// boot starts a system in an empty root folder, and returns the time from the
// start of nspawn until sshd greets.
func (h *bareHost) boot(ctx context.Context, system string) (took time.Duration, err error) {
	defer func() { err = errors.Join(err, h.powerOff(), h.clearGuest(context.WithoutCancel(ctx))) }()
	return h.start(ctx, system)
}

// start is boot without the end.
func (h *bareHost) start(ctx context.Context, system string) (took time.Duration, err error) {
	if err := h.prepare(); err != nil {
		return 0, err
	}
	hostUsr, err := nspawn.HostUsr(system)
	if err != nil {
		return 0, err
	}
	root := h.layout.Root(h.name)
	if err := errors.Join(nspawn.PrepareRoot(root, hostUsr), h.group.Create()); err != nil {
		return 0, err
	}
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return 0, err
	}
	defer close(done)
	arguments := nspawn.Arguments(nspawn.Config{
		Machine: nspawn.MachineName(h.layout, h.name), Hostname: h.name, Root: root, Guest: h.layout.Guest(h.name),
		Store: "/nix/store", System: system, HostUsr: hostUsr, HostInterface: h.address.HostInterface,
	})
	// Nobody listens for its notification.
	environment := nspawn.Environment("", h.unified)
	began := time.Now()
	h.process, err = h.group.Top().Start(h.runner, execx.Command{
		Name: nspawn.Program, Args: arguments, Env: environment, Dir: "/", Stdout: h.output, Stderr: h.output,
	})
	if err != nil {
		return 0, err
	}
	h.ended = make(chan error, 1)
	go func() { h.ended <- h.process.Wait() }()
	limited, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := h.connect(limited, updates); err != nil {
		return 0, err
	}
	return waitForBanner(limited, h.address.IPv4, began)
}

// bootTimeout is when a boot has failed.
const bootTimeout = time.Minute

// connect connects the host's end of the cable as soon as nspawn has made it.
func (h *bareHost) connect(ctx context.Context, updates <-chan netlink.LinkUpdate) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("systemd-nspawn made no interface: %w", ctx.Err())
		case update := <-updates:
			if update.Link == nil || update.Attrs().Name != h.address.HostInterface {
				continue
			}
			if err := errors.Join(netlink.LinkSetMaster(update.Link, h.bridge), netlink.LinkSetUp(update.Link)); err != nil {
				return err
			}
			mac, err := net.ParseMAC(h.address.MAC)
			if err != nil {
				return err
			}
			// As devhost does it. Otherwise, a connection that comes too early
			// makes the host ask for the address only once a second.
			return netlink.NeighSet(&netlink.Neigh{
				LinkIndex: h.bridge.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
				IP: net.ParseIP(h.address.IPv4), HardwareAddr: mac,
			})
		}
	}
}

// powerOff ends a guest by nspawn, which then clears up after itself. One that
// was not started is off.
func (h *bareHost) powerOff() error {
	if h.process == nil {
		return nil
	}
	process := h.process
	h.process = nil
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// It may have ended already.
		_ = process.Signal(signal)
		select {
		case err := <-h.ended:
			var failure *execx.Error
			if errors.As(err, &failure) && failure.Signal == syscall.SIGKILL {
				return nil
			}
			return err
		case <-time.After(bootTimeout):
		}
	}
	return errors.New("systemd-nspawn does not end")
}

// clearGuest removes what one boot made.
func (h *bareHost) clearGuest(ctx context.Context) error {
	tree, err := cgroup.Discover()
	if err != nil {
		return err
	}
	group := tree.Group(h.layout.Instance(), h.name)
	limited, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := errors.Join(group.Kill(limited), group.Remove(limited)); err != nil {
		return err
	}
	root := h.layout.Root(h.name)
	return errors.Join(nspawn.Clear(nspawn.Leftovers{Machine: nspawn.MachineName(h.layout, h.name), Root: root}), disk.RemoveFolder(root))
}

// clear removes everything.
func (h *bareHost) clear(ctx context.Context) error {
	if _, err := os.Stat(h.layout.State); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// An earlier run may have left others.
	folders, err := os.ReadDir(h.layout.Containers())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, folder := range folders {
		left := &bareHost{layout: h.layout, name: folder.Name()}
		if err := left.clearGuest(ctx); err != nil {
			return err
		}
	}
	if h.output != nil {
		_ = h.output.Close()
	}
	h.bridge = nil
	link, err := netlink.LinkByName(h.bridgeName())
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
	case err != nil:
		return err
	default:
		if err := netlink.LinkDel(link); err != nil {
			return err
		}
	}
	return disk.RemoveFolder(h.layout.State)
}

// Between two tries to reach sshd. Packets to a guest that does not listen to
// its network yet are lost without a word, and TCP sends them again only after
// a second, so a try is given up soon.
const (
	bannerPause = 2 * time.Millisecond
	dialTimeout = 20 * time.Millisecond
)

// waitForBanner waits for the greeting of an ssh server (RFC 4253, section
// 4.2), and returns the time since began.
func waitForBanner(ctx context.Context, address string, began time.Time) (time.Duration, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	for {
		connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "22"))
		if err == nil {
			_ = connection.SetReadDeadline(time.Now().Add(bootTimeout))
			greeting, readErr := bufio.NewReader(io.LimitReader(connection, 256)).ReadString('\n')
			took := time.Since(began)
			_ = connection.Close()
			if readErr == nil && strings.HasPrefix(greeting, "SSH-") {
				return took, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no ssh server answers at %s: %w", address, ctx.Err())
		case <-time.After(bannerPause):
		}
	}
}
