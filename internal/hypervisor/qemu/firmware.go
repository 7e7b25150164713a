package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Firmware is a UEFI: its code, and a template of its variables.
type Firmware struct{ Code, Variables string }

// The variables of the environment that name a firmware.
const (
	firmwareCode      = "DEVBOX_FIRMWARE_CODE"
	firmwareVariables = "DEVBOX_FIRMWARE_VARS"
)

// firmwares are where distributions put them. A relative path is below share
// of the folder that QEMU is installed in, where QEMU's own copies are.
var firmwares = map[string][]Firmware{
	"x86_64-linux": {
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"},
		{"qemu/edk2-x86_64-code.fd", "qemu/edk2-i386-vars.fd"},
		{"/run/libvirt/nix-ovmf/OVMF_CODE.fd", "/run/libvirt/nix-ovmf/OVMF_VARS.fd"},
	},
	"aarch64-linux": {
		{"/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		{"/usr/share/edk2/aarch64/QEMU_CODE.fd", "/usr/share/edk2/aarch64/QEMU_VARS.fd"},
		{"/usr/share/qemu/aavmf-aarch64-code.bin", "/usr/share/qemu/aavmf-aarch64-vars.bin"},
		{"qemu/edk2-aarch64-code.fd", "qemu/edk2-arm-vars.fd"},
		{"/run/libvirt/nix-ovmf/AAVMF_CODE.fd", "/run/libvirt/nix-ovmf/AAVMF_VARS.fd"},
	},
}

// findFirmware looks for a UEFI for guests of a system. program is the absolute
// path of QEMU, below the folder root, which is "/" but in tests.
func findFirmware(system, program, root string, getenv func(string) string) (Firmware, error) {
	code, vars := getenv(firmwareCode), getenv(firmwareVariables)
	if code != "" || vars != "" {
		for _, half := range []struct{ name, path string }{{firmwareCode, code}, {firmwareVariables, vars}} {
			if half.path == "" {
				return Firmware{}, fmt.Errorf("%s is not set, and the other half of the firmware is: set both", half.name)
			}
			if _, err := os.Stat(half.path); err != nil {
				return Firmware{}, fmt.Errorf("%s names no file: %w", half.name, err)
			}
		}
		return Firmware{code, vars}, nil
	}
	share := filepath.Join(filepath.Dir(filepath.Dir(program)), "share")
	var looked []string
	for _, candidate := range firmwares[system] {
		found := Firmware{place(root, share, candidate.Code), place(root, share, candidate.Variables)}
		if readable(found.Code) && readable(found.Variables) {
			return found, nil
		}
		looked = append(looked, found.Code)
	}
	return Firmware{}, fmt.Errorf("no UEFI firmware for %s was found (looked for %s); install it (Debian: %s; Fedora: %s; Homebrew's and Nix' QEMU bring it), or name its two files by %s and %s",
		system, strings.Join(looked, ", "), packages[system].debian, packages[system].fedora, firmwareCode, firmwareVariables)
}

func place(root, share, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Join(root, path)
	}
	return filepath.Join(share, path)
}

func readable(path string) bool {
	opened, err := os.Open(path)
	if err != nil {
		return false
	}
	opened.Close()
	return true
}

// packages are what to install for guests of a system.
var packages = map[string]struct{ debian, debianQEMU, fedora string }{
	"x86_64-linux":  {"ovmf", "qemu-system-x86", "edk2-ovmf"},
	"aarch64-linux": {"qemu-efi-aarch64", "qemu-system-arm", "edk2-aarch64"},
}
