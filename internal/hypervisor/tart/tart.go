// Package tart runs devboxes by Tart, on Apple silicon: https://tart.run.
package tart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/seed"
)

// Tart is the hypervisor.
type Tart struct {
	Runner execx.Runner
	// Getenv is os.Getenv but in tests.
	Getenv func(string) string
	// Keeper is the program that keeps the console's log: see KeepConsole.
	Keeper string
	// Appear is how long a started VM may take to be listed as running.
	Appear time.Duration
}

// New is Tart on this machine.
func New(runner execx.Runner) *Tart {
	const appear = 30 * time.Second
	keeper, err := os.Executable()
	if err != nil {
		keeper = os.Args[0]
	}
	return &Tart{Runner: runner, Getenv: os.Getenv, Keeper: keeper, Appear: appear}
}

// sshPort is that of a guest with an address of its own.
const sshPort = 22

// Features implements hypervisor.Hypervisor.
func (t *Tart) Features() hypervisor.Features {
	return hypervisor.Features{Hosts: []string{"darwin/arm64"}, GuestSystems: []string{"aarch64-linux"}, Nested: true}
}

// Check implements hypervisor.Hypervisor.
func (t *Tart) Check(_ context.Context, system string) error {
	refuse := func(reason, remedy string) error {
		return &hypervisor.Unsupported{Hypervisor: "tart", Machine: hypervisor.Machine(), Reason: reason, Remedy: remedy}
	}
	if _, err := exec.LookPath("tart"); err != nil {
		if !t.Features().RunsHere(hypervisor.Machine()) {
			return refuse("Tart runs on Apple silicon only", `use QEMU: --hypervisor=qemu, or devbox.hypervisor = "qemu" in the host's configuration`)
		}
		return refuse("the program tart was not found on PATH", "install it with: brew install cirruslabs/cli/tart, or use QEMU: --hypervisor=qemu")
	}
	if system != "aarch64-linux" {
		return refuse(fmt.Sprintf("it runs guests of aarch64-linux, and this one is %s", system), `set system = "aarch64-linux", or use QEMU: --hypervisor=qemu`)
	}
	return nil
}

func (t *Tart) run(ctx context.Context, what string, arguments ...string) error {
	if err := t.Runner.Run(ctx, execx.Command{Name: "tart", Args: arguments}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// createArguments, setArguments and runArguments are argument vectors of tart.
func createArguments(vm hypervisor.VM) []string {
	return []string{"create", "--linux", vm.Name, "--disk-size", strconv.Itoa(vm.DiskGB)}
}

// setArguments are nil where there is nothing to set.
func setArguments(vm hypervisor.VM, disk bool) []string {
	var settings []string
	if vm.CPUs != 0 {
		settings = append(settings, "--cpu", strconv.Itoa(vm.CPUs))
	}
	if vm.MemoryMB != 0 {
		settings = append(settings, "--memory", strconv.Itoa(vm.MemoryMB))
	}
	if disk {
		settings = append(settings, "--disk-size", strconv.Itoa(vm.DiskGB))
	}
	if settings == nil {
		return nil
	}
	return append([]string{"set", vm.Name}, settings...)
}

func runArguments(vm hypervisor.VM, options hypervisor.StartOptions, console string) []string {
	arguments := []string{"run"}
	if options.Nested {
		arguments = append(arguments, "--nested")
	}
	arguments = append(arguments, "--no-graphics", "--serial-path", console)
	if options.ISO != "" {
		arguments = append(arguments, "--disk", options.ISO+":ro")
	}
	if options.Seed != "" {
		arguments = append(arguments, "--disk", options.Seed)
	}
	return append(arguments, vm.Name)
}

// Create implements hypervisor.Hypervisor.
func (t *Tart) Create(ctx context.Context, vm hypervisor.VM) error {
	if err := t.run(ctx, "cannot make VM "+vm.Name, createArguments(vm)...); err != nil {
		return err
	}
	if arguments := setArguments(vm, false); arguments != nil {
		return t.run(ctx, "cannot give VM "+vm.Name+" its memory and processors", arguments...)
	}
	return nil
}

// Resize implements hypervisor.Resizer.
func (t *Tart) Resize(ctx context.Context, vm hypervisor.VM) error {
	return t.run(ctx, "cannot resize VM "+vm.Name, setArguments(vm, true)...)
}

// Start implements hypervisor.Hypervisor.
func (t *Tart) Start(ctx context.Context, vm hypervisor.VM, options hypervisor.StartOptions) error {
	if err := os.MkdirAll(vm.Files.Folder, 0o700); err != nil {
		return err
	}
	controller, console, err := pty.Open()
	if err != nil {
		return fmt.Errorf("cannot make a terminal for the console of %s: %w", vm.Name, err)
	}
	defer controller.Close()
	defer console.Close()
	if _, err := term.MakeRaw(int(console.Fd())); err != nil {
		return fmt.Errorf("cannot set up the console of %s: %w", vm.Name, err)
	}
	log, err := os.OpenFile(vm.Files.Log(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	started, err := t.Runner.Start(execx.Command{
		Name: "tart", Args: runArguments(vm, options, console.Name()), Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- started.Wait() }()
	if err := t.keep(vm, controller); err != nil {
		_ = started.Signal(os.Kill)
		<-ended
		return err
	}
	return t.appeared(ctx, vm, started, ended)
}

// keep starts the process that writes the console's log. It ends when nobody
// has the console open any more: tart, or until then this process.
func (t *Tart) keep(vm hypervisor.VM, controller *os.File) error {
	log, err := os.OpenFile(vm.Files.Console(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	keeper, err := t.Runner.Start(execx.Command{
		Name: t.Keeper, Args: []string{keepConsole}, Stdin: controller, Stdout: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		go func() { _ = keeper.Wait() }()
	}
	return err
}

// appeared waits until a started VM is listed as running.
func (t *Tart) appeared(ctx context.Context, vm hypervisor.VM, started execx.Process, ended chan error) error {
	const poll = 200 * time.Millisecond
	fail := func(reason string, err error) error {
		return &hypervisor.StartError{Name: vm.Name, Reason: reason, Log: vm.Files.Log(), Tail: hypervisor.LastLines(vm.Files.Log(), hypervisor.LogLines), Err: err}
	}
	for limit := time.Now().Add(t.Appear); ; {
		select {
		case err := <-ended:
			if err == nil {
				return nil
			}
			return fail("tart run ended", err)
		case <-ctx.Done():
			_ = started.Signal(os.Interrupt)
			<-ended
			return ctx.Err()
		case <-time.After(poll):
		}
		listed, err := t.list(ctx)
		if err == nil && listed[vm.Name] == "running" {
			return nil
		}
		if time.Now().After(limit) {
			_ = started.Signal(os.Kill)
			<-ended
			return fail(fmt.Sprintf("tart does not list it as running after %s", t.Appear), err)
		}
	}
}

// list are the states of all VMs on this machine, by name: "running",
// "stopped" or "suspended".
func (t *Tart) list(ctx context.Context) (map[string]string, error) {
	output, err := t.Runner.Output(ctx, execx.Command{Name: "tart", Args: []string{"list", "--source", "local", "--format", "json"}})
	if err != nil {
		return nil, fmt.Errorf("cannot list the VMs of tart: %w", err)
	}
	var listed []struct{ Name, State string }
	if err := json.Unmarshal(output, &listed); err != nil {
		return nil, fmt.Errorf("tart list printed no JSON: %w", err)
	}
	states := map[string]string{}
	for _, one := range listed {
		states[one.Name] = one.State
	}
	return states, nil
}

// State implements hypervisor.Hypervisor.
func (t *Tart) State(ctx context.Context, vm hypervisor.VM) (hypervisor.State, error) {
	listed, err := t.list(ctx)
	if err != nil {
		return hypervisor.State{}, err
	}
	switch state, found := listed[vm.Name]; {
	case !found:
		return hypervisor.State{Status: hypervisor.Missing}, nil
	case state == "running":
		return hypervisor.State{Status: hypervisor.Running}, nil
	}
	return hypervisor.State{Status: hypervisor.Stopped}, nil
}

// Stop implements hypervisor.Hypervisor. tart itself ends a guest that does not
// power off.
func (t *Tart) Stop(ctx context.Context, vm hypervisor.VM, timeout time.Duration) (bool, error) {
	begun := time.Now()
	seconds := strconv.Itoa(int(timeout.Seconds()))
	if err := t.run(ctx, "cannot stop VM "+vm.Name, "stop", vm.Name, "--timeout", seconds); err != nil {
		// It may have powered off meanwhile.
		if state, stateErr := t.State(ctx, vm); stateErr == nil && state.Status == hypervisor.Stopped {
			return true, nil
		}
		return false, err
	}
	return time.Since(begun) < timeout, nil
}

// Remove implements hypervisor.Hypervisor.
func (t *Tart) Remove(ctx context.Context, vm hypervisor.VM) error {
	state, err := t.State(ctx, vm)
	if err != nil || state.Status == hypervisor.Missing {
		return err
	}
	return t.run(ctx, "cannot remove VM "+vm.Name, "delete", vm.Name)
}

// Endpoint implements hypervisor.Hypervisor: what tart knows, then what the
// machine's ARP cache knows, then what the guest printed.
func (t *Tart) Endpoint(ctx context.Context, vm hypervisor.VM) (hypervisor.Endpoint, error) {
	var tried []string
	for _, way := range []struct {
		name string
		find func(context.Context, hypervisor.VM) (string, error)
	}{
		{"tart ip", t.addressByTart}, {"arp", t.addressByARP}, {"the console", addressByConsole},
	} {
		address, err := way.find(ctx, vm)
		if ctx.Err() != nil {
			return hypervisor.Endpoint{}, ctx.Err()
		}
		if err == nil {
			return hypervisor.Endpoint{Address: address, Port: sshPort}, nil
		}
		tried = append(tried, fmt.Sprintf("%s: %v", way.name, err))
	}
	return hypervisor.Endpoint{}, &hypervisor.NoAddress{Name: vm.Name, Tried: tried}
}

var errNone = errors.New("none")

func (t *Tart) addressByTart(ctx context.Context, vm hypervisor.VM) (string, error) {
	output, err := t.Runner.Output(ctx, execx.Command{Name: "tart", Args: []string{"ip", vm.Name}})
	if err != nil {
		return "", errNone
	}
	address, err := netip.ParseAddr(strings.TrimSpace(string(output)))
	if err != nil {
		return "", errNone
	}
	return address.String(), nil
}

// macAddress is that of a VM, from tart's own file.
func (t *Tart) macAddress(vm hypervisor.VM) (string, error) {
	home := t.Getenv("TART_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		home = filepath.Join(user, ".tart")
	}
	data, err := os.ReadFile(filepath.Join(home, "vms", vm.Name, "config.json"))
	if err != nil {
		return "", err
	}
	var config struct {
		MAC string `json:"macAddress"`
	}
	if err := json.Unmarshal(data, &config); err != nil || config.MAC == "" {
		return "", errors.New("tart's config.json names no MAC address")
	}
	return config.MAC, nil
}

func (t *Tart) addressByARP(ctx context.Context, vm hypervisor.VM) (string, error) {
	wanted, err := t.macAddress(vm)
	if err != nil {
		return "", err
	}
	output, err := t.Runner.Output(ctx, execx.Command{Name: "arp", Args: []string{"-an"}})
	if err != nil {
		return "", err
	}
	if address := findARP(string(output), wanted); address != "" {
		return address, nil
	}
	return "", errNone
}

// arpEntry is a line of arp -an: "? (192.168.64.3) at 2a:1:f:0:3:9 on bridge100
// ifscope [bridge]" on macOS, and much the same on Linux.
var arpEntry = regexp.MustCompile(`\(([0-9.]+)\) at ([0-9a-fA-F:]+) `)

// findARP finds the address of a MAC address. macOS leaves out leading zeros.
func findARP(table, wanted string) string {
	for _, match := range arpEntry.FindAllStringSubmatch(table, -1) {
		if normalMAC(match[2]) == normalMAC(wanted) {
			return match[1]
		}
	}
	return ""
}

func normalMAC(text string) string {
	parts := strings.Split(strings.ToLower(text), ":")
	for i, part := range parts {
		parts[i] = strings.TrimLeft(part, "0")
	}
	return strings.Join(parts, ":")
}

// addressByConsole is the last address that the guest reported on its console.
func addressByConsole(_ context.Context, vm hypervisor.VM) (string, error) {
	const longest = 1 << 20
	data, err := hypervisor.Tail(vm.Files.Console(), longest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNone
	}
	if err != nil {
		return "", err
	}
	found := ""
	for line := range bytes.Lines(data) {
		event, ok := seed.ParseConsole(string(line))
		if !ok || event.Kind != seed.AddressEvent {
			continue
		}
		// It becomes an argument of ssh.
		if address, err := netip.ParseAddr(event.Address); err == nil && address.Zone() == "" && !address.IsLoopback() {
			found = address.String()
		}
	}
	if found == "" {
		return "", errNone
	}
	return found, nil
}
