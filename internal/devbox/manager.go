package devbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/hypervisor"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Manager changes VMs.
type Manager struct {
	Layout
	// Hypervisors are those there are, by name.
	Hypervisors map[string]hypervisor.Hypervisor
	Runner      execx.Runner
	Reporter    progress.Reporter
	// LockTimeout is how long another command for the same VM may take.
	LockTimeout time.Duration
	Now         func() time.Time
}

// The sizes that a VM can have, in GiB and MiB.
const (
	// DefaultDiskGB is that of the module's option devbox.vm.diskGB.
	DefaultDiskGB = 50
	leastDiskGB   = 2
	mostDiskGB    = 64 << 10
	leastMemoryMB = 256
	mostMemoryMB  = 16 << 20
	mostCPUs      = 1024
)

// BadSize says that a disk, memory or number of processors will not do.
type BadSize struct{ Text string }

func (b *BadSize) Error() string { return b.Text }

func checkSizes(diskGB, memoryMB, cpus int) error {
	switch {
	case diskGB < leastDiskGB:
		return &BadSize{fmt.Sprintf("a disk of %d GB is too small for NixOS; give at least %d, as --disk=%d (%d GB is usual; it takes room only as it fills)", diskGB, leastDiskGB, leastDiskGB, DefaultDiskGB)}
	case diskGB > mostDiskGB:
		return &BadSize{fmt.Sprintf("a disk of %d GB is too large; --disk is in GB, and %d is the most", diskGB, mostDiskGB)}
	case memoryMB != 0 && memoryMB < leastMemoryMB:
		return &BadSize{fmt.Sprintf("%d MB of memory are too little for NixOS; --memory is in MB: give at least %d, as --memory=4096", memoryMB, leastMemoryMB)}
	case memoryMB > mostMemoryMB:
		return &BadSize{fmt.Sprintf("%d MB of memory are too much; --memory is in MB, and %d is the most", memoryMB, mostMemoryMB)}
	case cpus < 0 || cpus > mostCPUs:
		return &BadSize{fmt.Sprintf("%d processors are not possible; give 1 to %d", cpus, mostCPUs)}
	}
	return nil
}

// UnknownHypervisor says that there is no such hypervisor.
type UnknownHypervisor struct {
	Name  string
	Known []string
}

func (u *UnknownHypervisor) Error() string {
	return fmt.Sprintf("there is no hypervisor %q; these are known: %s", u.Name, strings.Join(u.Known, ", "))
}

// hypervisor returns one by its name.
func (m *Manager) hypervisor(name string) (hypervisor.Hypervisor, error) {
	found, ok := m.Hypervisors[name]
	if !ok {
		return nil, &UnknownHypervisor{Name: name, Known: slices.Sorted(maps.Keys(m.Hypervisors))}
	}
	return found, nil
}

// open is a record and its hypervisor.
func (m *Manager) open(name string) (*Record, hypervisor.Hypervisor, error) {
	record, err := m.Load(name)
	if err != nil {
		return nil, nil, err
	}
	found, err := m.hypervisor(record.Hypervisor)
	if err != nil {
		return nil, nil, &Broken{Name: name, Path: m.Record(name), Err: err}
	}
	return record, found, nil
}

func (m *Manager) lock(ctx context.Context, name, purpose string) (func(), error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return registry.LockFile(ctx, m.Lock(name), "VM "+name, purpose, m.LockTimeout)
}

// CreateOptions say what to make.
type CreateOptions struct {
	Name, Hypervisor, System string
	DiskGB, MemoryMB, CPUs   int
	// SSHPort is 0 for any that is free.
	SSHPort int
	Nested  bool
	// Force replaces a VM of that name.
	Force bool
}

// Create makes a VM that does not run. A VM that exists is replaced only with
// Force.
func (m *Manager) Create(ctx context.Context, options CreateOptions) (*Record, error) {
	unlock, err := m.lock(ctx, options.Name, "create")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return m.create(ctx, options, nil)
}

// create is Create under the lock. change completes the record.
func (m *Manager) create(ctx context.Context, options CreateOptions, change func(*Record)) (*Record, error) {
	if options.DiskGB == 0 {
		options.DiskGB = DefaultDiskGB
	}
	if err := checkSizes(options.DiskGB, options.MemoryMB, options.CPUs); err != nil {
		return nil, err
	}
	chosen, err := m.hypervisor(options.Hypervisor)
	if err != nil {
		return nil, err
	}
	if err := chosen.Check(ctx, options.System); err != nil {
		return nil, err
	}
	if options.Nested && !chosen.Features().Nested {
		return nil, &BadSize{fmt.Sprintf("%s runs no VMs in VMs; leave --nested out", options.Hypervisor)}
	}
	record := &Record{
		Name: options.Name, Hypervisor: options.Hypervisor, System: options.System,
		CPUs: options.CPUs, MemoryMB: options.MemoryMB, DiskGB: options.DiskGB,
		Nested: options.Nested, SSHPort: options.SSHPort, CreatedAt: m.Now().UTC(),
	}
	if change != nil {
		change(record)
	}
	if err := m.makeRoom(ctx, record, chosen, options.Force); err != nil {
		return nil, err
	}
	if err := m.markIncomplete(record.Name); err != nil {
		return nil, fmt.Errorf("cannot make the folder of VM %s: %w", record.Name, err)
	}
	if chosen.Features().ForwardsSSH {
		// Until the record is written, nobody else sees the port.
		unlock, err := registry.LockFile(ctx, m.PortLock(), "the choice of a port", "create", m.LockTimeout)
		if err != nil {
			return nil, err
		}
		defer unlock()
		if err := m.choosePort(ctx, record); err != nil {
			return nil, errors.Join(err, m.undo(ctx, record, chosen))
		}
	}
	if err := chosen.Create(ctx, m.vm(record)); err != nil {
		return nil, errors.Join(err, m.undo(ctx, record, chosen))
	}
	if err := errors.Join(m.save(record), os.Remove(m.incomplete(record.Name))); err != nil {
		return nil, errors.Join(err, m.undo(ctx, record, chosen))
	}
	return record, nil
}

// makeRoom sees to it that there is no VM of that name.
func (m *Manager) makeRoom(ctx context.Context, record *Record, chosen hypervisor.Hypervisor, force bool) error {
	old, err := m.Load(record.Name)
	var unknown *Unknown
	var broken *Broken
	switch {
	case errors.As(err, &broken) && !force:
		return &Exists{Name: record.Name, What: "its record is broken", Replace: replaceCommand(record)}
	case errors.As(err, &broken), errors.As(err, &unknown):
		// What a create that was killed has left, and VMs of the hypervisor
		// that were made without us.
		state, stateErr := chosen.State(ctx, m.vm(record))
		if stateErr != nil {
			return stateErr
		}
		started, _ := os.Stat(m.Folder(record.Name))
		if state.Status != hypervisor.Missing && started == nil && !force {
			return &Exists{Name: record.Name, What: fmt.Sprintf("%s has one that devbox-cli did not make, %s", record.Hypervisor, state.Status), Replace: replaceCommand(record)}
		}
		return m.erase(ctx, record, chosen)
	case err != nil:
		return err
	case !force:
		return &Exists{Name: record.Name, What: describe(old), Replace: replaceCommand(record)}
	}
	before, err := m.hypervisor(old.Hypervisor)
	if err != nil {
		return err
	}
	return m.erase(ctx, old, before)
}

func replaceCommand(record *Record) string {
	return "devbox-cli vm create " + record.Name + " --hypervisor=" + record.Hypervisor + " --force"
}

func describe(record *Record) string {
	text := fmt.Sprintf("%s, %d GB, made %s", record.Hypervisor, record.DiskGB, record.CreatedAt.Local().Format(time.DateTime))
	if record.Host != "" {
		text += " from " + record.Flake + "#" + record.Host
	}
	return text
}

// undo removes what a create made that failed.
func (m *Manager) undo(ctx context.Context, record *Record, chosen hypervisor.Hypervisor) error {
	return m.erase(context.WithoutCancel(ctx), record, chosen)
}

// eraseTimeout is how long a guest may take to power off whose disk is about to
// be removed.
const eraseTimeout = 10 * time.Second

// erase ends a VM and removes all of it but logs of builds.
func (m *Manager) erase(ctx context.Context, record *Record, chosen hypervisor.Hypervisor) error {
	vm := m.vm(record)
	state, err := chosen.State(ctx, vm)
	if err != nil {
		return err
	}
	if state.Status == hypervisor.Running || state.Status == hypervisor.Failed {
		if _, err := chosen.Stop(ctx, vm, eraseTimeout); err != nil {
			return err
		}
	}
	// Who ends this process leaves nothing that looks like a VM.
	if _, err := os.Stat(m.Folder(record.Name)); err == nil {
		if err := m.markIncomplete(record.Name); err != nil {
			return err
		}
	}
	if err := chosen.Remove(ctx, vm); err != nil {
		return err
	}
	return m.removeFiles(record.Name)
}

func (m *Manager) removeFiles(name string) error {
	return errors.Join(os.RemoveAll(m.Folder(name)), removeLink(m.Installer(name)), removeLink(m.System(name)))
}

func removeLink(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// choosePort gives a VM a port that is free and that no other VM has.
func (m *Manager) choosePort(ctx context.Context, record *Record) error {
	taken := map[int]string{}
	for _, name := range m.Names() {
		if other, err := m.Load(name); err == nil && name != record.Name {
			taken[other.SSHPort] = name
		}
	}
	if record.SSHPort != 0 {
		return checkPort(ctx, record.Name, record.SSHPort, taken)
	}
	const most = 1000
	for port := m.firstPort(); port < m.firstPort()+most; port++ {
		if taken[port] == "" && hypervisor.CheckPort(ctx, port) == nil {
			record.SSHPort = port
			return nil
		}
	}
	return fmt.Errorf("no port of 127.0.0.1 between %d and %d is free for the sshd of %s; name one with --ssh-port=PORT", m.firstPort(), m.firstPort()+most, record.Name)
}

// highestPort is that of TCP.
const highestPort = 65535

func checkPort(ctx context.Context, name string, port int, taken map[int]string) error {
	const lowest = 1024
	switch {
	case port < lowest || port > highestPort:
		return &BadSize{fmt.Sprintf("--ssh-port=%d: give a port between %d and %d", port, lowest, highestPort)}
	case taken[port] != "":
		return &hypervisor.PortTaken{Name: name, Port: port, Err: fmt.Errorf("it belongs to VM %s", taken[port])}
	}
	if err := hypervisor.CheckPort(ctx, port); err != nil {
		return &hypervisor.PortTaken{Name: name, Port: port, Err: err}
	}
	return nil
}

// StartOptions say how to start this time.
type StartOptions struct {
	// Nested lets the guest run VMs, also where its record does not.
	Nested bool
	// SSHPort is the port that leads to it from now on, 0 for that of its
	// record.
	SSHPort int
}

// Start starts a VM from its disk, and tells whether it did not run already.
func (m *Manager) Start(ctx context.Context, name string, options StartOptions) (bool, error) {
	unlock, err := m.lock(ctx, name, "start")
	if err != nil {
		return false, err
	}
	defer unlock()
	record, chosen, err := m.open(name)
	if err != nil {
		return false, err
	}
	if options.SSHPort != 0 && options.SSHPort != record.SSHPort {
		if err := m.movePort(ctx, record, chosen, options.SSHPort); err != nil {
			return false, err
		}
	}
	return m.start(ctx, record, chosen, hypervisor.StartOptions{Nested: options.Nested || record.Nested})
}

// movePort gives a VM that does not run another port.
func (m *Manager) movePort(ctx context.Context, record *Record, chosen hypervisor.Hypervisor, port int) error {
	if !chosen.Features().ForwardsSSH {
		return &BadSize{fmt.Sprintf("%s has an address of its own, and no port of this machine leads to it; leave --ssh-port out", record.Name)}
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil {
		return err
	}
	if state.Status != hypervisor.Stopped {
		return &Runs{Name: record.Name, Why: "give it another port"}
	}
	unlock, err := registry.LockFile(ctx, m.PortLock(), "the choice of a port", "start", m.LockTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	record.SSHPort = port
	if err := m.choosePort(ctx, record); err != nil {
		return err
	}
	return m.save(record)
}

// Runs says that a VM must not run for what was asked.
type Runs struct {
	Name string
	// Why completes "before you can ...".
	Why string
}

func (r *Runs) Error() string {
	return fmt.Sprintf("VM %s runs; stop it before you %s: devbox-cli vm stop %s", r.Name, r.Why, r.Name)
}

// FailedGuest says that a guest cannot go on.
type FailedGuest struct{ Name, Detail string }

func (f *FailedGuest) Error() string {
	return fmt.Sprintf("VM %s cannot go on: %s (devbox-cli vm stop %s; devbox-cli logs %s)", f.Name, f.Detail, f.Name, f.Name)
}

// start is Start under the lock.
func (m *Manager) start(ctx context.Context, record *Record, chosen hypervisor.Hypervisor, options hypervisor.StartOptions) (bool, error) {
	if err := chosen.Check(ctx, record.System); err != nil {
		return false, err
	}
	if options.Nested && !chosen.Features().Nested {
		return false, &BadSize{fmt.Sprintf("%s runs no VMs in VMs; leave --nested out", record.Hypervisor)}
	}
	vm := m.vm(record)
	state, err := chosen.State(ctx, vm)
	if err != nil {
		return false, err
	}
	switch state.Status {
	case hypervisor.Running:
		return false, nil
	case hypervisor.Failed:
		return false, &FailedGuest{Name: record.Name, Detail: state.Detail}
	case hypervisor.Missing:
		return false, &Broken{Name: record.Name, Path: m.Folder(record.Name), Err: fmt.Errorf("%s has no such VM any more", record.Hypervisor)}
	}
	console := vm.Files.Console()
	if err := os.Rename(console, m.ConsoleBefore(record.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	options.Note = m.Reporter.Note
	return true, chosen.Start(ctx, vm, options)
}

// Stop powers a VM off, and tells whether it ran and whether the guest did it
// by itself.
func (m *Manager) Stop(ctx context.Context, name string, timeout time.Duration) (ran, clean bool, err error) {
	unlock, err := m.lock(ctx, name, "stop")
	if err != nil {
		return false, false, err
	}
	defer unlock()
	record, chosen, err := m.open(name)
	if err != nil {
		return false, false, err
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil || state.Status == hypervisor.Stopped || state.Status == hypervisor.Missing {
		return false, true, err
	}
	clean, err = chosen.Stop(ctx, m.vm(record), timeout)
	return true, clean, err
}

// Remove stops a VM and removes it with all its files. A VM with a broken
// record can be removed too.
func (m *Manager) Remove(ctx context.Context, name string) error {
	unlock, err := m.lock(ctx, name, "remove")
	if err != nil {
		return err
	}
	defer unlock()
	record, chosen, err := m.open(name)
	var broken *Broken
	var unknown *Unknown
	if errors.As(err, &unknown) {
		// A create that was killed.
		if _, statErr := os.Stat(m.Folder(name)); statErr != nil {
			return err
		}
	}
	if errors.As(err, &broken) || errors.As(err, &unknown) {
		for _, chosen := range m.Hypervisors {
			if !chosen.Features().RunsHere(hypervisor.Machine()) {
				continue
			}
			err := m.erase(ctx, &Record{Name: name}, chosen)
			var missing *execx.Error
			if err != nil && (!errors.As(err, &missing) || !missing.NotFound) {
				return err
			}
		}
		return m.removeFiles(name)
	}
	if err != nil {
		return err
	}
	return m.erase(ctx, record, chosen)
}

// ResizeOptions are what a VM shall have; 0 leaves it as it is.
type ResizeOptions struct{ DiskGB, MemoryMB, CPUs int }

// Resize changes a VM that does not run. Its guest grows its file system when
// it boots.
func (m *Manager) Resize(ctx context.Context, name string, options ResizeOptions) (*Record, error) {
	unlock, err := m.lock(ctx, name, "resize")
	if err != nil {
		return nil, err
	}
	defer unlock()
	record, chosen, err := m.open(name)
	if err != nil {
		return nil, err
	}
	resizer, ok := chosen.(hypervisor.Resizer)
	if !ok {
		return nil, fmt.Errorf("%s cannot resize VMs", record.Hypervisor)
	}
	changed := *record
	for _, one := range []struct {
		to   *int
		from int
	}{{&changed.DiskGB, options.DiskGB}, {&changed.MemoryMB, options.MemoryMB}, {&changed.CPUs, options.CPUs}} {
		if one.from != 0 {
			*one.to = one.from
		}
	}
	if err := checkSizes(changed.DiskGB, changed.MemoryMB, changed.CPUs); err != nil {
		return nil, err
	}
	if changed.DiskGB < record.DiskGB {
		return nil, &BadSize{fmt.Sprintf("the disk of %s has %d GB, and disks only grow; give more than that with --disk=GB", name, record.DiskGB)}
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil {
		return nil, err
	}
	if state.Status == hypervisor.Running || state.Status == hypervisor.Failed {
		return nil, &Runs{Name: name, Why: "resize it"}
	}
	if err := resizer.Resize(ctx, m.vm(&changed)); err != nil {
		return nil, err
	}
	return &changed, m.save(&changed)
}

// Entry is one VM with what it does now.
type Entry struct {
	Name string
	// Record is nil where it is broken; Err says why.
	Record *Record
	Err    error
	State  hypervisor.State
	// Endpoint is nil where it is not known.
	Endpoint *hypervisor.Endpoint
}

// Status looks at one VM.
func (m *Manager) Status(ctx context.Context, name string) (*Entry, error) {
	record, chosen, err := m.open(name)
	if err != nil {
		return nil, err
	}
	entry := &Entry{Name: name, Record: record}
	if entry.State, err = chosen.State(ctx, m.vm(record)); err != nil {
		return nil, err
	}
	if entry.State.Status == hypervisor.Running {
		if endpoint, err := chosen.Endpoint(ctx, m.vm(record)); err == nil {
			entry.Endpoint = &endpoint
		}
	}
	return entry, nil
}

// List looks at all VMs. One that is broken does not hide the others.
func (m *Manager) List(ctx context.Context) []*Entry {
	var entries []*Entry
	for _, name := range m.Names() {
		entry, err := m.Status(ctx, name)
		if err != nil {
			record, _ := m.Load(name)
			entry = &Entry{Name: name, Record: record, Err: err}
		}
		entries = append(entries, entry)
	}
	return entries
}

// Endpoint is where a VM's sshd is reached. The error is
// *hypervisor.NoAddress where that is not known.
func (m *Manager) Endpoint(ctx context.Context, name string) (hypervisor.Endpoint, error) {
	record, chosen, err := m.open(name)
	if err != nil {
		return hypervisor.Endpoint{}, err
	}
	state, err := chosen.State(ctx, m.vm(record))
	if err != nil {
		return hypervisor.Endpoint{}, err
	}
	if state.Status != hypervisor.Running {
		return hypervisor.Endpoint{}, &NotRunning{Name: name, State: state}
	}
	return chosen.Endpoint(ctx, m.vm(record))
}

// NotRunning says that a VM must run for what was asked.
type NotRunning struct {
	Name  string
	State hypervisor.State
}

func (n *NotRunning) Error() string {
	if n.State.Detail != "" {
		return (&FailedGuest{Name: n.Name, Detail: n.State.Detail}).Error()
	}
	if n.State.Status == hypervisor.Missing {
		return fmt.Sprintf("the disk of VM %s is gone; remove what is left of it with: devbox-cli vm remove %s", n.Name, n.Name)
	}
	return fmt.Sprintf("VM %s is %s; start it with: devbox-cli vm start %s", n.Name, n.State.Status, n.Name)
}

// ISO is the image in what a build of an installer made: a file, or the only
// *.iso in the folder or in its folder iso.
func ISO(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", &NoISO{Path: path, Reason: "there is no such file"}
	}
	if info.Mode().IsRegular() {
		return path, nil
	}
	for _, folder := range []string{filepath.Join(path, "iso"), path} {
		found, err := filepath.Glob(filepath.Join(folder, "*.iso"))
		if err != nil {
			return "", err
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return "", &NoISO{Path: path, Reason: fmt.Sprintf("it holds several: %s", strings.Join(found, ", "))}
		}
	}
	return "", &NoISO{Path: path, Reason: "it is no file, and no folder with a *.iso in it"}
}

// NoISO says that a path is no ISO image.
type NoISO struct{ Path, Reason string }

func (n *NoISO) Error() string {
	return fmt.Sprintf("%s is no ISO image: %s; give the path of one, or build it with: nix build FLAKE#nixosConfigurations.HOST.config.system.build.devboxInstaller", n.Path, n.Reason)
}
