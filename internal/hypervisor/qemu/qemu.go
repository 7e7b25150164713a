// Package qemu runs devboxes by QEMU: with KVM or HVF where that works, by
// emulation (TCG) elsewhere. It needs no root.
package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/process"
	"devhost/internal/registry"
)

// accelerators is the variable of the environment that names those to try,
// with commas between them.
const accelerators = "DEVBOX_ACCELERATOR"

// QEMU is the hypervisor.
type QEMU struct {
	Runner execx.Runner
	// Getenv is os.Getenv but in tests.
	Getenv func(string) string
	// Machine is this machine, as hypervisor.Machine says it.
	Machine string
}

// New is QEMU on this machine.
func New(runner execx.Runner) *QEMU {
	return &QEMU{Runner: runner, Getenv: os.Getenv, Machine: hypervisor.Machine()}
}

// Features implements hypervisor.Hypervisor.
func (q *QEMU) Features() hypervisor.Features {
	return hypervisor.Features{
		Hosts:        []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"},
		GuestSystems: []string{"x86_64-linux", "aarch64-linux"},
		ForwardsSSH:  true,
		Nested:       true,
	}
}

// The names of the files of one machine.
func disk(vm hypervisor.VM) string      { return filepath.Join(vm.Files.Folder, "disk.qcow2") }
func variables(vm hypervisor.VM) string { return filepath.Join(vm.Files.Folder, "efivars.fd") }
func runFile(vm hypervisor.VM) string   { return filepath.Join(vm.Files.Folder, "qemu-run.json") }

// socket is where the monitor listens. Its name is short whatever that of the
// machine.
func socket(vm hypervisor.VM) string {
	sum := fnv.New64a()
	_, _ = io.WriteString(sum, vm.Name)
	return filepath.Join(vm.Files.Sockets, strconv.FormatUint(sum.Sum64(), 36)+".qmp")
}

// longestSocket is that of macOS, without the final NUL: sockaddr_un(4).
const longestSocket = 103

// run is what is kept of a started QEMU.
type run struct {
	Version int `json:"version"`
	process.ID
	// Boot is the boot that the process belongs to.
	Boot        string    `json:"boot"`
	Accelerator string    `json:"accelerator"`
	StartedAt   time.Time `json:"startedAt"`
}

const runVersion = 1

func (r *run) alive() bool { return r != nil && r.Boot == process.BootID() && r.Alive() }

// Check implements hypervisor.Hypervisor.
func (q *QEMU) Check(_ context.Context, system string) error {
	_, _, err := q.tools(system)
	return err
}

// tools finds QEMU and a firmware.
func (q *QEMU) tools(system string) (program string, firmware Firmware, err error) {
	refuse := func(reason, remedy string) error {
		return &hypervisor.Unsupported{Hypervisor: "qemu", Machine: q.Machine, Reason: reason, Remedy: remedy}
	}
	kind, known := platforms[system]
	if !known {
		return "", Firmware{}, refuse(fmt.Sprintf("guests of the system %q are not supported", system), "set the configuration's system to x86_64-linux or aarch64-linux")
	}
	install := fmt.Sprintf("install QEMU (Debian: apt-get install %s qemu-utils %s; macOS: brew install qemu; Nix: nix shell nixpkgs#qemu)", packages[system].debianQEMU, packages[system].debian)
	for _, name := range []string{kind.program, "qemu-img"} {
		found, err := exec.LookPath(name)
		if err != nil {
			return "", Firmware{}, refuse("the program "+name+" was not found on PATH", install)
		}
		if program == "" {
			program = found
		}
	}
	if resolved, err := filepath.EvalSymlinks(program); err == nil {
		program = resolved
	}
	firmware, err = findFirmware(system, program, "/", q.Getenv)
	if err != nil {
		return "", Firmware{}, &hypervisor.Unsupported{Hypervisor: "qemu", Machine: q.Machine, Reason: "its firmware is missing", Remedy: err.Error()}
	}
	return kind.program, firmware, nil
}

// Create implements hypervisor.Hypervisor.
func (q *QEMU) Create(ctx context.Context, vm hypervisor.VM) error {
	if length := len(socket(vm)); length > longestSocket {
		return fmt.Errorf("the path of the folder for sockets, %s, is too long (%d bytes with a socket's name, %d are possible); name a shorter state folder with --state-dir", vm.Files.Sockets, length, longestSocket)
	}
	_, firmware, err := q.tools(vm.System)
	if err != nil {
		return err
	}
	if err := copyFile(variables(vm), firmware.Variables); err != nil {
		return fmt.Errorf("cannot copy the firmware's variables: %w", err)
	}
	if err := q.Runner.Run(ctx, execx.Command{Name: "qemu-img", Args: []string{"create", "-q", "-f", "qcow2", disk(vm), fmt.Sprintf("%dG", vm.DiskGB)}}); err != nil {
		return fmt.Errorf("cannot make the disk of %s: %w", vm.Name, err)
	}
	return nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// Resize implements hypervisor.Resizer. Memory and processors are arguments of
// the next start.
func (q *QEMU) Resize(ctx context.Context, vm hypervisor.VM) error {
	output, err := q.Runner.Output(ctx, execx.Command{Name: "qemu-img", Args: []string{"info", "--output=json", disk(vm)}})
	if err != nil {
		return fmt.Errorf("cannot look at the disk of %s: %w", vm.Name, err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(output, &info); err != nil {
		return fmt.Errorf("cannot read what qemu-img says about the disk of %s: %w", vm.Name, err)
	}
	if wanted := int64(vm.DiskGB) << 30; wanted <= info.Size {
		return nil
	}
	if err := q.Runner.Run(ctx, execx.Command{Name: "qemu-img", Args: []string{"resize", "-q", "-f", "qcow2", disk(vm), fmt.Sprintf("%dG", vm.DiskGB)}}); err != nil {
		return fmt.Errorf("cannot resize the disk of %s: %w", vm.Name, err)
	}
	return nil
}

// acceleratorFailed says that a machine does not run with one accelerator.
type acceleratorFailed struct {
	accelerator, reason string
	log                 []string
}

func (a *acceleratorFailed) Error() string { return a.accelerator + ": " + a.reason }

// candidates are the accelerators to try, in order.
func (q *QEMU) candidates(system string) []string {
	if asked := q.Getenv(accelerators); asked != "" {
		return strings.Split(asked, ",")
	}
	if system != hypervisor.NativeSystem(q.Machine) {
		return []string{tcg}
	}
	if strings.HasPrefix(q.Machine, "darwin/") {
		return []string{"hvf", tcg}
	}
	return []string{"kvm", tcg}
}

// Start implements hypervisor.Hypervisor. The accelerators are tried in turn:
// one that is there need not work.
func (q *QEMU) Start(ctx context.Context, vm hypervisor.VM, options hypervisor.StartOptions) error {
	program, firmware, err := q.tools(vm.System)
	if err != nil {
		return err
	}
	if err := hypervisor.CheckPort(ctx, vm.SSHPort); err != nil {
		return &hypervisor.PortTaken{Name: vm.Name, Port: vm.SSHPort, Err: err}
	}
	if err := os.MkdirAll(vm.Files.Sockets, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(vm.Files.Log(), nil, 0o600); err != nil {
		return err
	}
	candidates := q.candidates(vm.System)
	var notes []string
	for i, accelerator := range candidates {
		command := execx.Command{Name: program, Args: arguments(vm, options, accelerator, firmware)}
		err := q.launch(ctx, vm, command, accelerator)
		var failed *acceleratorFailed
		if !errors.As(err, &failed) {
			if err == nil {
				for _, note := range notes {
					options.Note(note)
				}
			}
			return err
		}
		if i == len(candidates)-1 {
			return &hypervisor.StartError{Name: vm.Name, Reason: "QEMU " + failed.reason, Log: vm.Files.Log(), Tail: failed.log, Err: err}
		}
		notes = append(notes, fmt.Sprintf("%s does not work here (%s); %s runs with %s%s", strings.ToUpper(accelerator), failed.reason, vm.Name, strings.ToUpper(candidates[i+1]), slowly(candidates[i+1])))
	}
	return nil
}

func slowly(accelerator string) string {
	if accelerator == tcg {
		return ", which emulates and is slow"
	}
	return ""
}

const (
	// monitorWait is how long QEMU may take to listen.
	monitorWait = 2 * time.Minute
	// trial is how long an accelerator is watched: a KVM that does not work
	// fails within the first instructions of the firmware, in milliseconds. The
	// trial ends early when the guest has printed something.
	trial = 3 * time.Second
	// poll is how often a starting machine is looked at.
	poll = 50 * time.Millisecond
)

// launch starts one QEMU and watches its first moments.
func (q *QEMU) launch(ctx context.Context, vm hypervisor.VM, command execx.Command, accelerator string) error {
	for _, stale := range []string{socket(vm), vm.Files.Console()} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	log, err := os.OpenFile(vm.Files.Log(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.Dir = vm.Files.Folder
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	started, err := q.Runner.Start(command)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- started.Wait() }()
	// One that has ended already has none.
	if id, err := process.Of(started.Pid()); err == nil {
		if err := remember(vm, id, accelerator); err != nil {
			_ = started.Signal(os.Kill)
			<-ended
			return err
		}
	}
	end := func() {
		_ = started.Signal(os.Kill)
		<-ended
	}
	failed := func(reason string) error {
		return &acceleratorFailed{accelerator: accelerator, reason: reason, log: hypervisor.LastLines(vm.Files.Log(), hypervisor.LogLines)}
	}
	limit := time.Now().Add(monitorWait)
	var settled time.Time
	for {
		select {
		case err := <-ended:
			if err == nil {
				// The guest has powered off already.
				return nil
			}
			return failed(endReason(err, hypervisor.LastLines(vm.Files.Log(), hypervisor.LogLines)))
		case <-ctx.Done():
			end()
			return ctx.Err()
		case <-time.After(poll):
		}
		status, err := q.ask(ctx, vm)
		switch {
		case err != nil && settled.IsZero() && time.Now().After(limit):
			end()
			return &hypervisor.StartError{Name: vm.Name, Reason: fmt.Sprintf("QEMU's monitor did not answer within %s", monitorWait), Log: vm.Files.Log(), Tail: hypervisor.LastLines(vm.Files.Log(), hypervisor.LogLines), Err: err}
		case err != nil:
			continue
		case status == "internal-error":
			end()
			return failed("the guest stopped with an internal error")
		case accelerator == tcg:
			return nil
		}
		if settled.IsZero() {
			settled = time.Now()
		}
		if info, err := os.Stat(vm.Files.Console()); time.Since(settled) > trial || err == nil && info.Size() > 0 {
			return nil
		}
	}
}

func endReason(err error, log []string) string {
	reason := err.Error()
	var failure *execx.Error
	if errors.As(err, &failure) {
		reason = failure.Reason()
	}
	// QEMU's last line is what it died of.
	if len(log) > 0 {
		reason += ": " + log[len(log)-1]
	}
	return reason
}

func remember(vm hypervisor.VM, id process.ID, accelerator string) error {
	return registry.WriteJSON(runFile(vm), &run{Version: runVersion, ID: id, Boot: process.BootID(), Accelerator: accelerator, StartedAt: time.Now().UTC()})
}

// ask asks the monitor for the guest's run state.
func (q *QEMU) ask(ctx context.Context, vm hypervisor.VM) (string, error) {
	m, err := connect(ctx, socket(vm))
	if err != nil {
		return "", err
	}
	defer m.close()
	return m.status()
}

// running is the QEMU of a machine, nil where none runs.
func (q *QEMU) running(ctx context.Context, vm hypervisor.VM) *run {
	var record run
	data, err := os.ReadFile(runFile(vm))
	if err == nil && json.Unmarshal(data, &record) == nil && record.Version == runVersion && record.alive() {
		return &record
	}
	// A command that was killed while it started QEMU has left no record: who
	// answers is asked for, and the kernel for its process.
	m, err := connect(ctx, socket(vm))
	if err != nil {
		return nil
	}
	defer m.close()
	if name, err := m.name(); err != nil || name != vm.Name {
		return nil
	}
	id, err := m.process()
	if err != nil {
		return nil
	}
	return &run{Version: runVersion, ID: id, Boot: process.BootID()}
}

// stuck are run states in which a guest does not go on by itself, with what to
// tell a person.
var stuck = map[string]string{
	"internal-error": "the accelerator failed; stop it, and start it with " + accelerators + "=tcg",
	"io-error":       "its disk cannot be written to; is this machine's disk full? Make room, then stop and start it",
	"guest-panicked": "its kernel has panicked; the console log says why. Stop and start it",
	"paused":         "it is paused",
	"shutdown":       "the guest is off",
}

// State implements hypervisor.Hypervisor.
func (q *QEMU) State(ctx context.Context, vm hypervisor.VM) (hypervisor.State, error) {
	if _, err := os.Stat(disk(vm)); errors.Is(err, fs.ErrNotExist) {
		return hypervisor.State{Status: hypervisor.Missing}, nil
	} else if err != nil {
		return hypervisor.State{}, err
	}
	record := q.running(ctx, vm)
	if record == nil {
		return hypervisor.State{Status: hypervisor.Stopped}, nil
	}
	state := hypervisor.State{Status: hypervisor.Running, PID: record.PID, Accelerator: record.Accelerator, StartedAt: record.StartedAt}
	// A monitor that is busy with another command is no reason to doubt.
	if status, err := q.ask(ctx, vm); err == nil && stuck[status] != "" {
		state.Status, state.Detail = hypervisor.Failed, stuck[status]
	}
	return state, nil
}

// Endpoint implements hypervisor.Hypervisor.
func (q *QEMU) Endpoint(ctx context.Context, vm hypervisor.VM) (hypervisor.Endpoint, error) {
	if q.running(ctx, vm) == nil {
		return hypervisor.Endpoint{}, &hypervisor.NoAddress{Name: vm.Name, Tried: []string{"it does not run"}}
	}
	return hypervisor.Endpoint{Address: "127.0.0.1", Port: vm.SSHPort}, nil
}

const (
	// powerButton is how often the button is pressed: a guest that boots may
	// not listen yet.
	powerButton = 5 * time.Second
	// lastWait is how long QEMU may take to quit, and the kernel to end it.
	lastWait = 30 * time.Second
)

// Stop implements hypervisor.Hypervisor.
func (q *QEMU) Stop(ctx context.Context, vm hypervisor.VM, timeout time.Duration) (bool, error) {
	record := q.running(ctx, vm)
	if record == nil {
		return true, q.forget(vm)
	}
	for limit := time.Now().Add(timeout); ; {
		left := time.Until(limit)
		if left <= 0 || !q.press(ctx, vm) {
			break
		}
		if gone, err := waitFor(ctx, record.ID, min(left, powerButton)); gone || err != nil {
			return gone, errors.Join(err, q.forgetIf(gone, vm))
		}
	}
	m, err := connect(ctx, socket(vm))
	if err == nil {
		_ = m.execute("quit", nil)
		m.close()
	}
	// Without a monitor it is on its way out, or hangs.
	if gone, err := waitFor(ctx, record.ID, lastWait); gone || err != nil {
		return m == nil, errors.Join(err, q.forgetIf(gone, vm))
	}
	if err := record.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("cannot end %s: %w", vm.Name, err)
	}
	gone, err := waitFor(ctx, record.ID, lastWait)
	if err == nil && !gone {
		err = fmt.Errorf("cannot end %s: its process %d does not react to SIGKILL", vm.Name, record.PID)
	}
	return false, errors.Join(err, q.forgetIf(gone, vm))
}

// press presses the power button and tells whether somebody may notice.
func (q *QEMU) press(ctx context.Context, vm hypervisor.VM) bool {
	m, err := connect(ctx, socket(vm))
	if err != nil {
		// It may be on its way out.
		return ctx.Err() == nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
	}
	defer m.close()
	if status, err := m.status(); err == nil && stuck[status] != "" {
		return false
	}
	err = m.execute("system_powerdown", nil)
	// One that does not answer in time is busy, as is its guest.
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

// waitFor waits for the end of a process and tells whether it came in time.
func waitFor(ctx context.Context, id process.ID, limit time.Duration) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := id.Wait(limited)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

func (q *QEMU) forgetIf(gone bool, vm hypervisor.VM) error {
	if !gone {
		return nil
	}
	return q.forget(vm)
}

// forget removes what only a running machine has.
func (q *QEMU) forget(vm hypervisor.VM) error {
	return removeAll(runFile(vm), socket(vm))
}

// Remove implements hypervisor.Hypervisor.
func (q *QEMU) Remove(ctx context.Context, vm hypervisor.VM) error {
	if record := q.running(ctx, vm); record != nil {
		return fmt.Errorf("%s runs (process %d); stop it first with: devbox-cli vm stop %s", vm.Name, record.PID, vm.Name)
	}
	return errors.Join(q.forget(vm), removeAll(disk(vm), variables(vm)))
}

func removeAll(paths ...string) error {
	var all []error
	for _, path := range slices.Compact(paths) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
