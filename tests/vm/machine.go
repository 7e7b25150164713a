package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Machine is a virtual machine, as an installer meets it: the disk is
// /dev/vda, the seed disk /dev/vdb.
type Machine struct {
	// Disk and Seed are images, "" for none.
	Disk, Seed string
	// ISO is what it boots from, nil for the disk.
	ISO *ISO
	// Append are more words for the kernel. With any, the kernel is started
	// without firmware, which is faster too.
	Append string
	// Folder is for files of the machine.
	Folder string
	// Line, if any, gets every line of the console. It is killed, as by a power
	// cut, when that returns true.
	Line func(string) bool
}

// firmware are UEFIs of distributions: code, and a template of variables.
var firmware = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
}

// Run runs a machine until it is off, and returns what it printed. A machine
// without a network is given none: nothing may need one.
func (m *Machine) Run(ctx context.Context) (string, error) {
	arguments := []string{
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2", "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-device", "virtio-rng-pci",
	}
	if m.Disk != "" {
		arguments = append(arguments, "-drive", "if=none,id=disk,format=raw,cache=unsafe,file="+m.Disk, "-device", "virtio-blk-pci,drive=disk,bootindex=2")
	}
	if m.Seed != "" {
		arguments = append(arguments, "-drive", "if=none,id=seed,format=raw,file="+m.Seed, "-device", "virtio-blk-pci,drive=seed")
	}
	if m.ISO != nil {
		arguments = append(arguments, "-device", "virtio-scsi-pci", "-drive", "if=none,id=iso,media=cdrom,format=raw,readonly=on,file="+m.ISO.Path,
			"-device", "scsi-cd,drive=iso,bootindex=1")
	}
	if m.ISO != nil && m.Append != "" {
		arguments = append(arguments, "-kernel", m.ISO.Kernel, "-initrd", m.ISO.Initrd, "-append", "console=ttyS0 quiet "+m.Append)
	} else {
		code, variables, err := m.firmware()
		if err != nil {
			return "", err
		}
		arguments = append(arguments, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code, "-drive", "if=pflash,unit=1,format=raw,file="+variables)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	console := &console{line: m.Line, kill: cancel}
	command := exec.CommandContext(ctx, "qemu-system-x86_64", arguments...)
	command.Stdout, command.Stderr = console, console
	command.WaitDelay = time.Minute
	err := command.Run()
	if console.killed {
		return console.text.String(), nil
	}
	return console.text.String(), err
}

func (m *Machine) firmware() (code, variables string, err error) {
	for _, found := range firmware {
		if isFile(found[0]) && isFile(found[1]) {
			variables = filepath.Join(m.Folder, "variables.fd")
			return found[0], variables, copyFile(found[1], variables, 0o600)
		}
	}
	return "", "", errors.New("there is no UEFI firmware; install the package ovmf")
}

// console keeps what a machine prints and hands it on by lines.
type console struct {
	mutex   sync.Mutex
	text    strings.Builder
	partial string
	line    func(string) bool
	kill    func()
	killed  bool
}

func (c *console) Write(data []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.text.Write(data)
	if c.line == nil {
		return len(data), nil
	}
	c.partial += string(data)
	for {
		line, rest, found := strings.Cut(c.partial, "\n")
		if !found {
			return len(data), nil
		}
		c.partial = rest
		if !c.killed && c.line(strings.TrimSuffix(line, "\r")) {
			c.killed = true
			c.kill()
		}
	}
}

// NewDisk makes a blank disk of a size in MiB, which takes no space.
func NewDisk(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make a disk: %w", err)
	}
	return errors.Join(file.Truncate(size<<20), file.Close())
}
