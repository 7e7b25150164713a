// Package hypervisor says what a hypervisor of devboxes does. Each one is a
// package below. Callers ask its Features, never its name.
package hypervisor

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// VM is one virtual machine, as its owner wants it.
type VM struct {
	Name string
	// Files are where the machine's files are.
	Files Files
	// System is the guest's system as Nix writes it, such as "x86_64-linux".
	System string
	// CPUs and MemoryMB (in MiB) are 0 for the hypervisor's default.
	CPUs, MemoryMB int
	// DiskGB is the size of the disk, in GiB.
	DiskGB int
	// SSHPort is the port of this machine's loopback address that leads to the
	// guest's port 22, where Features.ForwardsSSH.
	SSHPort int
}

// Files are the paths that belong to one machine.
type Files struct {
	// Folder holds all but the sockets.
	Folder string
	// Sockets is a folder with a short path: the path of a socket has at most
	// 103 bytes on macOS.
	Sockets string
}

// Console is the log of the serial console.
func (f Files) Console() string { return filepath.Join(f.Folder, "console.log") }

// Log is what the hypervisor itself says.
func (f Files) Log() string { return filepath.Join(f.Folder, "hypervisor.log") }

// Seed is the image of the seed disk; it need not exist.
func (f Files) Seed() string { return filepath.Join(f.Folder, "seed.img") }

// StartOptions say how to start a machine this time.
type StartOptions struct {
	// Nested lets the guest run machines itself.
	Nested bool
	// ISO is what it boots from, "" for its disk.
	ISO string
	// Seed is a second disk, "" for none.
	Seed string
	// Note tells the person something worth knowing; never nil.
	Note func(text string)
}

// Status is what a machine does.
type Status string

// The states of a machine.
const (
	Missing Status = "missing"
	Stopped Status = "stopped"
	Running Status = "running"
	// Failed: its process is there, and the guest cannot go on. State.Detail
	// says why and what to do.
	Failed Status = "failed"
)

// State is a machine's status and more about it.
type State struct {
	Status Status
	// Detail is for a person.
	Detail string
	// PID is that of the hypervisor's process, 0 where it is not known.
	PID int
	// Accelerator is what runs the guest's instructions, "" where it is always
	// the same.
	Accelerator string
	// StartedAt is the zero time where it is not known.
	StartedAt time.Time
}

// Endpoint is where a guest's sshd is reached.
type Endpoint struct {
	Address string
	Port    int
}

// NoAddress says that a machine has no address yet.
type NoAddress struct {
	Name string
	// Tried says where was looked, and what came of it.
	Tried []string
}

func (n *NoAddress) Error() string {
	return fmt.Sprintf("%s has no address yet (%s); if it still starts, wait for it with: devbox-cli vm wait-ssh %s --user=USER", n.Name, strings.Join(n.Tried, "; "), n.Name)
}

// Features are what a hypervisor can do.
type Features struct {
	// Hosts are the machines that it runs on, as GOOS/GOARCH.
	Hosts []string
	// GuestSystems are the guests that it runs there.
	GuestSystems []string
	// ForwardsSSH: the guest has no address of its own, VM.SSHPort leads to it.
	ForwardsSSH bool
	// Nested: guests can run machines themselves.
	Nested bool
}

// RunsHere says whether it runs on a machine, as GOOS/GOARCH.
func (f Features) RunsHere(machine string) bool { return slices.Contains(f.Hosts, machine) }

// Machine is this machine, as GOOS/GOARCH.
func Machine() string { return runtime.GOOS + "/" + runtime.GOARCH }

// NativeSystem is the guest system whose instructions a machine (GOOS/GOARCH)
// runs itself.
func NativeSystem(machine string) string {
	if strings.HasSuffix(machine, "/arm64") {
		return "aarch64-linux"
	}
	return "x86_64-linux"
}

// Hypervisor is the life cycle of machines.
type Hypervisor interface {
	// Features never change.
	Features() Features
	// Check says what is missing here for a guest of a system, nil for nothing.
	// The error is *Unsupported.
	Check(ctx context.Context, system string) error
	// Create makes a machine that does not exist. What it made of one when it
	// fails, Remove removes.
	Create(ctx context.Context, vm VM) error
	// Start starts a machine that does not run. The machine survives this
	// process.
	Start(ctx context.Context, vm VM, options StartOptions) error
	// Stop powers it off, and ends it after the timeout. It tells whether the
	// guest did it by itself.
	Stop(ctx context.Context, vm VM, timeout time.Duration) (clean bool, err error)
	// Remove removes a machine that does not run with all its files.
	Remove(ctx context.Context, vm VM) error
	// State is cheap.
	State(ctx context.Context, vm VM) (State, error)
	// Endpoint is where its sshd is reached. The error is *NoAddress where that
	// is not known yet.
	Endpoint(ctx context.Context, vm VM) (Endpoint, error)
}

// Resizer is what can change a machine that is there and does not run.
type Resizer interface {
	// Resize gives it the disk, memory and processors of vm. Disks only grow.
	Resize(ctx context.Context, vm VM) error
}

// Unsupported says that a hypervisor cannot be used on this machine.
type Unsupported struct {
	Hypervisor, Machine string
	// Reason completes "because ...", Remedy says what to do.
	Reason, Remedy string
}

func (u *Unsupported) Error() string {
	return fmt.Sprintf("%s cannot be used on this machine (%s): %s; %s", u.Hypervisor, u.Machine, u.Reason, u.Remedy)
}

// StartError says that a machine did not start.
type StartError struct {
	Name   string
	Reason string
	// Log is a file with more, Tail its last lines.
	Log  string
	Tail []string
	Err  error
}

func (s *StartError) Error() string {
	text := fmt.Sprintf("%s did not start: %s", s.Name, s.Reason)
	for _, line := range s.Tail {
		text += "\n  " + line
	}
	if s.Log != "" {
		text += "\nAll of it is in " + s.Log
	}
	return text
}

func (s *StartError) Unwrap() error { return s.Err }
