// Package devbox is the life cycle of development VMs: it knows what is on
// disk, which hypervisor runs what, and how a flake becomes a running machine.
package devbox

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"devhost/internal/hypervisor"
	"devhost/internal/names"
)

// Layout names every file of one state folder.
type Layout struct {
	// State is the absolute path of the state folder.
	State string
}

// DefaultState is where state lives unless --state-dir says otherwise, on Linux
// and on macOS alike: devbox below the XDG data folder.
func DefaultState(getenv func(string) string) (string, error) {
	if data := getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "devbox"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("there is no home folder to keep VMs in: %w; name a folder with --state-dir", err)
	}
	return filepath.Join(home, ".local", "share", "devbox"), nil
}

// VMs holds one folder a VM.
func (l Layout) VMs() string { return filepath.Join(l.State, "vms") }

// Folder is that of one VM.
func (l Layout) Folder(name string) string { return filepath.Join(l.VMs(), name) }

// Record is the versioned JSON file of one VM.
func (l Layout) Record(name string) string { return filepath.Join(l.Folder(name), "vm.json") }

// Files are what the hypervisor needs to know.
func (l Layout) Files(name string) hypervisor.Files {
	return hypervisor.Files{Folder: l.Folder(name), Sockets: filepath.Join(l.State, "run")}
}

// incomplete is a file that is there while a VM is made or removed. Without it,
// a folder that has no record is that of a VM whose record was lost.
func (l Layout) incomplete(name string) string { return filepath.Join(l.Folder(name), "incomplete") }

// ConsoleBefore is the console log of the run before.
func (l Layout) ConsoleBefore(name string) string { return l.Files(name).Console() + ".1" }

// Identity is the private key that logs in to a VM; its public half is beside
// it, with ".pub".
func (l Layout) Identity(name string) string {
	return filepath.Join(l.Folder(name), "ssh", "id_ed25519")
}

// KnownHosts holds the VM's pinned host keys.
func (l Layout) KnownHosts(name string) string {
	return filepath.Join(l.Folder(name), "ssh", "known_hosts")
}

// Report is the copy of the installer's report.
func (l Layout) Report(name string) string { return filepath.Join(l.Folder(name), "install.jsonl") }

// Installer is the link to the installer's ISO, which keeps it from being
// garbage collected. It lies outside of the VM's folder, which init makes only
// when there is an ISO.
func (l Layout) Installer(name string) string { return filepath.Join(l.State, "installers", name) }

// System is the link to the system that update built here.
func (l Layout) System(name string) string { return filepath.Join(l.State, "systems", name) }

// EvaluationLog is what Nix said while it evaluated; BuildLog, while it built.
func (l Layout) EvaluationLog(name string) string {
	return filepath.Join(l.State, "logs", name+".evaluation.log")
}

// BuildLog is the log of the last build for a VM.
func (l Layout) BuildLog(name string) string {
	return filepath.Join(l.State, "logs", name+".build.log")
}

// Lock is the lock file of a VM's name.
func (l Layout) Lock(name string) string { return filepath.Join(l.State, "locks", name+".lock") }

// PortLock is held while a port is chosen.
func (l Layout) PortLock() string { return filepath.Join(l.State, "locks", ".ports") }

// firstPort is the port from which a VM's own is looked for; it depends on the
// state folder, so that two of them meet rarely.
func (l Layout) firstPort() int {
	const lowest, spread = 22000, 4000
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(l.State))
	return lowest + int(sum.Sum32()%spread)
}

// longestName leaves room for suffixes of files.
const longestName = 63

// CheckName says whether a VM can have a name. It becomes a folder and an
// argument, and is that of a host of a flake: letters, digits, '-', '_' and
// '.', the first a letter or digit. The error is *names.Invalid.
func CheckName(name string) error {
	refuse := func(reason string) error {
		return &names.Invalid{What: "a VM's name", Name: name, Reason: reason, Example: "my-devbox"}
	}
	switch {
	case name == "":
		return refuse("it is empty")
	case len(name) > longestName:
		return refuse("it has " + strconv.Itoa(len(name)) + " characters, and " + strconv.Itoa(longestName) + " are possible")
	}
	for i, letter := range name {
		alphanumeric := letter >= 'a' && letter <= 'z' || letter >= 'A' && letter <= 'Z' || letter >= '0' && letter <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("-_.", letter)) {
			if i == 0 {
				return refuse(fmt.Sprintf("it starts with %q; letters and digits are possible there", letter))
			}
			return refuse(fmt.Sprintf("it has the character %q; letters, digits, '-', '_' and '.' are possible", letter))
		}
	}
	return nil
}
