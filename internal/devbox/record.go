package devbox

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"devhost/internal/hypervisor"
	"devhost/internal/names"
	"devhost/internal/registry"
)

// recordVersion is the version of Record.
const recordVersion = 1

// Record is what is kept of one VM. Times are UTC.
type Record struct {
	Version    int    `json:"version"`
	Name       string `json:"name"`
	Hypervisor string `json:"hypervisor"`
	// System is the guest's system, such as "x86_64-linux".
	System string `json:"system"`
	// CPUs and MemoryMB are 0 for the hypervisor's default.
	CPUs     int `json:"cpus,omitempty"`
	MemoryMB int `json:"memoryMB,omitempty"`
	// DiskGB is in GiB.
	DiskGB int `json:"diskGB"`
	// Nested lets the guest run VMs itself at every start.
	Nested bool `json:"nested,omitempty"`
	// SSHPort is the port of 127.0.0.1 that leads to its sshd, 0 where the VM
	// has an address of its own.
	SSHPort   int       `json:"sshPort,omitempty"`
	CreatedAt time.Time `json:"createdAt"`

	// Flake and Host are what init was given, "" where vm create made it.
	Flake string `json:"flake,omitempty"`
	Host  string `json:"host,omitempty"`
	// Login is the user that ssh logs in as.
	Login string `json:"login,omitempty"`
	// Install is how far the installation is, nil where init made none.
	Install *Install `json:"install,omitempty"`
	// UpdatedAt is the time of the last update that succeeded.
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}

// The states of an installation.
const (
	Installing = "installing"
	Installed  = "installed"
	Failed     = "failed"
)

// Install is an installation.
type Install struct {
	State string `json:"state"`
	// Mode is "direct" or "bootstrap".
	Mode string    `json:"mode"`
	At   time.Time `json:"at"`
	// Message is what the installer said why it failed.
	Message string `json:"message,omitempty"`
}

// Unfinished says that the installation of a VM has not ended well.
type Unfinished struct{ Record *Record }

func (u *Unfinished) Error() string {
	how := "has not ended"
	if u.Record.Install.State == Failed {
		how = "has failed"
	}
	return fmt.Sprintf("the installation of VM %s %s; go on with it: devbox-cli init %s#%s", u.Record.Name, how, u.Record.Flake, u.Record.Host)
}

// CheckInstalled says whether there is a system to start. The error is
// *Unfinished.
func (r *Record) CheckInstalled() error {
	if r.Install != nil && r.Install.State != Installed {
		return &Unfinished{Record: r}
	}
	return nil
}

// Unknown says that there is no VM of that name.
type Unknown struct {
	Name  string
	Known []string
}

func (u *Unknown) Error() string {
	if len(u.Known) == 0 {
		return fmt.Sprintf("there is no VM %q, and no other one; make one with: devbox-cli init FLAKE#HOST, or devbox-cli vm create %s", u.Name, u.Name)
	}
	meant := ""
	if close := names.Closest(u.Name, u.Known); close != "" {
		meant = fmt.Sprintf("; did you mean %q?", close)
	}
	return fmt.Sprintf("there is no VM %q%s These exist: %s", u.Name, orDot(meant), strings.Join(u.Known, ", "))
}

func orDot(text string) string {
	if text == "" {
		return "."
	}
	return text
}

// Broken says that a VM's record cannot be used.
type Broken struct {
	Name, Path string
	Err        error
}

func (b *Broken) Error() string {
	return fmt.Sprintf("the record of VM %s cannot be used: %s: %v; restore the file from a backup, or remove the VM with: devbox-cli vm remove %s", b.Name, b.Path, b.Err, b.Name)
}

func (b *Broken) Unwrap() error { return b.Err }

// Exists says that a VM of that name is there already.
type Exists struct {
	Name string
	// What describes it.
	What string
	// Replace is the command that replaces it, "" for none.
	Replace string
}

func (e *Exists) Error() string {
	text := fmt.Sprintf("there is a VM %s already (%s); remove it with: devbox-cli vm remove %s", e.Name, e.What, e.Name)
	if e.Replace != "" {
		text += ", or replace it and all that its disk holds with: " + e.Replace
	}
	return text
}

// Load reads a record. The error is *names.Invalid, *Unknown or *Broken.
func (l Layout) Load(name string) (*Record, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if !l.exists(name) {
		return nil, &Unknown{Name: name, Known: l.Names()}
	}
	data, err := os.ReadFile(l.Record(name))
	if err == nil {
		var record Record
		if err = json.Unmarshal(data, &record); err == nil {
			err = record.check(name)
		}
		if err == nil {
			return &record, nil
		}
	}
	return nil, &Broken{Name: name, Path: l.Record(name), Err: err}
}

// exists says whether there is a VM, with a record or without.
func (l Layout) exists(name string) bool {
	if _, err := os.Stat(l.Folder(name)); err != nil {
		return false
	}
	_, err := os.Stat(l.incomplete(name))
	return err != nil
}

// markIncomplete says that a VM's folder, which is made if need be, is none yet
// or none any more.
func (l Layout) markIncomplete(name string) error {
	if err := os.MkdirAll(l.Folder(name), 0o700); err != nil {
		return err
	}
	return os.WriteFile(l.incomplete(name), nil, 0o600)
}

func (r *Record) check(name string) error {
	switch {
	case r.Version != recordVersion:
		return fmt.Errorf("it has version %d, this devbox-cli reads version %d", r.Version, recordVersion)
	case r.Name != name:
		return fmt.Errorf("it names VM %q", r.Name)
	case r.SSHPort < 0 || r.SSHPort > highestPort:
		return fmt.Errorf("its sshPort is %d", r.SSHPort)
	case r.Login != "" && !sshUser.MatchString(r.Login):
		return fmt.Errorf("its login is %q", r.Login)
	}
	return nil
}

// save writes a record: temporary file, fsync, rename.
func (l Layout) save(record *Record) error {
	record.Version = recordVersion
	return registry.WriteJSON(l.Record(record.Name), record)
}

// Names are those of all VMs, sorted.
func (l Layout) Names() []string {
	folders, err := os.ReadDir(l.VMs())
	if err != nil {
		return nil
	}
	var known []string
	for _, folder := range folders {
		if CheckName(folder.Name()) == nil && l.exists(folder.Name()) {
			known = append(known, folder.Name())
		}
	}
	slices.Sort(known)
	return known
}

// vm is what the hypervisor is told.
func (l Layout) vm(record *Record) hypervisor.VM {
	return hypervisor.VM{
		Name: record.Name, Files: l.Files(record.Name), System: record.System,
		CPUs: record.CPUs, MemoryMB: record.MemoryMB, DiskGB: record.DiskGB, SSHPort: record.SSHPort,
	}
}
