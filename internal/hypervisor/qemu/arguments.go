package qemu

import (
	"fmt"
	"strings"

	"devhost/internal/hypervisor"
)

// platform is what differs between guest systems.
type platform struct {
	// program is QEMU for it.
	program string
	// machine is the kind of machine, nestedMachine that where guests can run
	// machines themselves.
	machine, nestedMachine string
	// emulated and nestedEmulated are the processor where QEMU emulates it.
	emulated, nestedEmulated string
	// native and nestedNative are the processor where this one runs the guest.
	native, nestedNative string
}

var platforms = map[string]platform{
	"x86_64-linux": {
		program: "qemu-system-x86_64",
		machine: "q35", nestedMachine: "q35",
		// QEMU 7.2 emulates page tables of five levels wrongly: programs in the
		// guest crash.
		emulated: "max,svm=off,la57=off", nestedEmulated: "max,la57=off",
		native: "host,vmx=off,svm=off", nestedNative: "host",
	},
	"aarch64-linux": {
		program: "qemu-system-aarch64",
		machine: "virt,gic-version=max", nestedMachine: "virt,gic-version=max,virtualization=on",
		emulated: "max,pauth-impdef=on", nestedEmulated: "max,pauth-impdef=on",
		native: "host", nestedNative: "host",
	},
}

// tcg is the accelerator that emulates: QEMU's Tiny Code Generator.
const tcg = "tcg"

// The defaults of a machine.
const (
	defaultCPUs     = 2
	defaultMemoryMB = 4096
)

// arguments are the argument vector of QEMU, without the program.
func arguments(vm hypervisor.VM, options hypervisor.StartOptions, accelerator string, firmware Firmware) []string {
	kind := platforms[vm.System]
	machine, emulated, native := kind.machine, kind.emulated, kind.native
	if options.Nested {
		machine, emulated, native = kind.nestedMachine, kind.nestedEmulated, kind.nestedNative
	}
	processor, acceleration := native, accelerator
	if accelerator == tcg {
		processor, acceleration = emulated, "tcg,thread=multi"
	}
	cpus, memory := vm.CPUs, vm.MemoryMB
	if cpus == 0 {
		cpus = defaultCPUs
	}
	if memory == 0 {
		memory = defaultMemoryMB
	}
	list := []string{
		"-name", value(vm.Name),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", machine, "-accel", acceleration, "-cpu", processor,
		"-smp", fmt.Sprint(cpus), "-m", fmt.Sprint(memory),
		"-qmp", "unix:" + value(socket(vm)) + ",server=on,wait=off",
		// A file is opened anew at each start; devbox keeps the one before.
		"-chardev", "file,id=console,path=" + value(vm.Files.Console()),
		"-serial", "chardev:console",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + value(firmware.Code),
		"-drive", "if=pflash,unit=1,format=raw,file=" + value(variables(vm)),
		"-drive", "if=none,id=disk,format=qcow2,discard=unmap,detect-zeroes=unmap,file=" + value(disk(vm)),
		"-device", "virtio-blk-pci,drive=disk,serial=devbox-disk,bootindex=2",
	}
	if options.Seed != "" {
		list = append(list,
			"-drive", "if=none,id=seed,format=raw,file="+value(options.Seed),
			"-device", "virtio-blk-pci,drive=seed,serial=devbox-seed")
	}
	if options.ISO != "" {
		list = append(list,
			"-drive", "if=none,id=iso,media=cdrom,format=raw,readonly=on,file="+value(options.ISO),
			"-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=iso,bootindex=1")
	}
	return append(list,
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:22", vm.SSHPort),
		"-device", "virtio-net-pci,netdev=net",
		"-device", "virtio-rng-pci",
	)
}

// value writes a value for QEMU's key=value lists, where a comma ends it.
func value(text string) string { return strings.ReplaceAll(text, ",", ",,") }
