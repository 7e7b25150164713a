package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/names"
)

// Version is the version of the container's JSON file.
const Version = 1

// Container is one registered container. Times are UTC.
type Container struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	// Owner is the login of the person who made it.
	Owner string `json:"owner"`
	// Environment is what the container belongs to: containers of one owner and
	// one environment reach each other. "" means to none.
	Environment string    `json:"environment,omitempty"`
	CreatedAt   time.Time `json:"createdAt"`

	Pin Pin `json:"pin"`
	// Inputs is the hash over all that the system was built from; equal inputs
	// give an equal system.
	Inputs string `json:"inputs"`
	// System is the store path of the NixOS toplevel that the container runs,
	// or starts with next time.
	System string `json:"system"`
	// ProvisionHash is the NAR hash of the provision snapshot, "" for none.
	ProvisionHash string `json:"provisionHash,omitempty"`

	Aliases []string `json:"aliases"`
	Limits  Limits   `json:"limits"`
	Address Address  `json:"address"`
	// AuthorizedKeys are public keys given by --authorized-key, one a line in
	// the format of sshd(8).
	AuthorizedKeys []string `json:"authorizedKeys,omitempty"`
	// AccountKeys are the keys of the host's accounts, by login, as they were
	// when that person deployed last.
	AccountKeys map[string][]string `json:"accountKeys,omitempty"`
	// Nesting lets container engines such as docker work inside, at the cost of
	// some isolation.
	Nesting bool `json:"nesting,omitempty"`
	// ForwardPorts are ports of the host that lead to the container.
	ForwardPorts []ForwardPort `json:"forwardPorts,omitempty"`
	// Dialect is the command that it was made by where that is one of batou's
	// ("fc-build-dev-container", "fc-devhost"): then batou's published key may
	// log in, and fc-manage inside decides about the system.
	Dialect string `json:"dialect,omitempty"`
	// Declared is what the host's configuration says of it, nil for a container
	// that people made.
	Declared *Declared `json:"declared,omitempty"`
	// Expiry is about stopping and deleting it.
	Expiry Expiry `json:"expiry,omitzero"`
	// Degraded says that not all units were up after the last deployment.
	Degraded bool `json:"degraded,omitempty"`
	// Enabled says that the container shall run.
	Enabled bool `json:"enabled"`
	// LastDeployment is the time of the last successful ensure.
	LastDeployment time.Time `json:"lastDeployment"`
}

// Declared is what only the host's configuration can say of a container.
type Declared struct {
	// File is where it is declared, Hash that of its declaration.
	File string `json:"file"`
	Hash string `json:"hash"`
	// AutoStart says that it is started with the host.
	AutoStart bool `json:"autoStart,omitempty"`
	// Ephemeral says that its root folder is emptied at each start.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Expires says that it may be stopped and deleted when nobody uses it.
	Expires bool `json:"expires,omitempty"`
	// HostNetwork says that it is to have the host's network in place of one of
	// its own; Address.OnHost tells which one it has.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Binds are folders of the host that it sees.
	Binds []Bind `json:"binds,omitempty"`
}

// Bind is a folder of the host that a container sees.
type Bind struct {
	// GuestPath is where, HostPath which; both are absolute.
	GuestPath string `json:"guestPath"`
	HostPath  string `json:"hostPath"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	// OwnerUID is the guest's user that what belongs to the folder's owner seems
	// to belong to, 0 for nobody.
	OwnerUID int `json:"ownerUID,omitempty"`
}

// Pin is what a channel resolved to.
type Pin struct {
	// Reference is the channel as the person gave it.
	Reference string `json:"reference"`
	// Kind is "folder", "flake" or "tarball", or PinSystem.
	Kind string `json:"kind"`
	// StorePath holds the channel's source.
	StorePath string `json:"storePath"`
	// NarHash is the SRI hash of StorePath.
	NarHash string `json:"narHash,omitempty"`
	// Revision is the git revision, with "-dirty" where there are changes.
	Revision string `json:"revision,omitempty"`
	// URL is the locked or final URL.
	URL string `json:"url,omitempty"`
	// Fingerprint tells a changed folder from an unchanged one without reading
	// its files.
	Fingerprint string    `json:"fingerprint,omitempty"`
	Time        time.Time `json:"time"`
}

// PinSystem is the Kind of a pin where the host has built the system itself:
// there is no channel, and Reference and StorePath are the system.
const PinSystem = "system"

// Limits bound a container; zero means no limit.
type Limits struct {
	// MemoryBytes bounds memory, in bytes.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// CPUs bounds processor time, in processors (1.5 is one and a half).
	CPUs float64 `json:"cpus,omitempty"`
	// Tasks bounds the number of processes and threads.
	Tasks int64 `json:"tasks,omitempty"`
	// IOWeight is its share of the disks' time, 1 to 10000.
	IOWeight int64 `json:"ioWeight,omitempty"`
	// DiskBytes bounds what its root folder holds, in bytes, where the file
	// system has project quotas.
	DiskBytes int64 `json:"diskBytes,omitempty"`
}

// ForwardPort opens a port of the host that leads to one of the container.
type ForwardPort struct {
	// Protocol is "tcp" or "udp".
	Protocol  string `json:"protocol"`
	HostPort  uint16 `json:"hostPort"`
	GuestPort uint16 `json:"guestPort"`
}

// String is the port as --forward-port takes it.
func (p ForwardPort) String() string {
	return fmt.Sprintf("%d:%d/%s", p.HostPort, p.GuestPort, p.Protocol)
}

// Host is the port of the host, as 8080/tcp.
func (p ForwardPort) Host() string { return fmt.Sprintf("%d/%s", p.HostPort, p.Protocol) }

// SameHostPort tells whether both want one port of the host.
func (p ForwardPort) SameHostPort(other ForwardPort) bool {
	return p.Protocol == other.Protocol && p.HostPort == other.HostPort
}

// Expiry is when a container is stopped and deleted, where that differs from
// the host's settings, and what was done already.
type Expiry struct {
	// Off says that it never expires.
	Off bool `json:"off,omitempty"`
	// KeepUntil puts everything off until then; the zero time does not.
	KeepUntil time.Time `json:"keepUntil,omitzero"`
	// StopAfter and DeleteAfter replace those of the host; zero does not.
	StopAfter   time.Duration `json:"stopAfter,omitempty"`
	DeleteAfter time.Duration `json:"deleteAfter,omitempty"`
	// StopWarnedAt and DeleteWarnedAt are when people were first told, the
	// zero time when they were not.
	StopWarnedAt   time.Time `json:"stopWarnedAt,omitzero"`
	DeleteWarnedAt time.Time `json:"deleteWarnedAt,omitzero"`
	// StoppedAt is when it was stopped by expiry.
	StoppedAt time.Time `json:"stoppedAt,omitzero"`
}

// Address is where a container is reached. IPv4 and IPv6 are textual
// addresses without a prefix length.
type Address struct {
	IPv4 string `json:"ipv4"`
	IPv6 string `json:"ipv6"`
	MAC  string `json:"mac"`
	// HostInterface is the host's end of the container's virtual cable.
	HostInterface string `json:"hostInterface"`
	// SSHPort is where its sshd listens in the host's network, 0 in one of its
	// own: there it is port 22.
	SSHPort uint16 `json:"sshPort,omitempty"`
}

// OnHost tells whether the container has the host's network. IPv4 is then an
// address of the host's loopback interface, and there is no cable.
func (a Address) OnHost() bool { return a.SSHPort != 0 }

// OnHostSSH is where its sshd listens in the host's network, and the zero value in
// one of its own.
func (a Address) OnHostSSH() netip.AddrPort {
	address, err := netip.ParseAddr(a.IPv4)
	if err != nil || !a.OnHost() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address, a.SSHPort)
}

// MemberKeys are all keys of members, without doubles, sorted.
func (c *Container) MemberKeys() []string {
	keys := slices.Clone(c.AuthorizedKeys)
	for _, account := range c.AccountKeys {
		keys = append(keys, account...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Peers tells whether two containers may reach each other: both belong to one
// environment of one owner.
func Peers(one, other *Container) bool {
	return one.Environment != "" && one.Environment == other.Environment && one.Owner == other.Owner
}

// Broken says that a record cannot be used. The container is listed as
// broken, the others are not affected.
type Broken struct {
	Name string
	Path string
	Err  error
}

func (b *Broken) Error() string {
	return fmt.Sprintf("the state file of container %s is unusable: %s: %v; restore the file from a backup, or remove the container with: devhost destroy %s",
		b.Name, b.Path, b.Err, b.Name)
}

func (b *Broken) Unwrap() error { return b.Err }

// NotRegistered says that there is no container of that name.
type NotRegistered struct{ Name string }

func (n *NotRegistered) Error() string {
	return fmt.Sprintf("there is no container %s; devhost list shows those that exist", n.Name)
}

// Registry reads and writes the records below one state folder.
type Registry struct{ Layout }

// New returns the registry of a state folder, which need not exist yet.
func New(layout Layout) *Registry { return &Registry{Layout: layout} }

// ForeignFolder says that a folder that was named as the state folder holds
// something else.
type ForeignFolder struct{ Path, Found string }

func (f *ForeignFolder) Error() string {
	return fmt.Sprintf("%s is no state folder of devhost: it holds %s and no %s; name a new or an empty folder with --state-dir",
		f.Path, f.Found, filepath.Base(Layout{}.Marker()))
}

// claim marks the state folder as devhost's. Only a new or an empty folder is
// claimed: what lies in others is not devhost's to change or to remove.
func (r *Registry) claim() error {
	if _, err := os.Lstat(r.Marker()); err == nil {
		return nil
	}
	if err := os.MkdirAll(r.State, 0o755); err != nil {
		return fmt.Errorf("cannot make the state folder: %w", err)
	}
	entries, err := os.ReadDir(r.State)
	if err != nil {
		return fmt.Errorf("cannot look at the state folder: %w", err)
	}
	for _, entry := range entries {
		// A new file system has a lost+found.
		if slices.Contains([]string{"lost+found", filepath.Base(r.Marker()), filepath.Base(r.Settings()), filepath.Base(r.Declarations())}, entry.Name()) {
			continue
		}
		// Another process claims it at this moment (WriteJSON's temporary file),
		// or has claimed it since and goes on.
		if strings.HasPrefix(entry.Name(), "."+filepath.Base(r.Marker())) {
			continue
		}
		if _, err := os.Lstat(r.Marker()); err == nil {
			return nil
		}
		return &ForeignFolder{Path: r.State, Found: entry.Name()}
	}
	return WriteJSON(r.Marker(), map[string]int{"version": Version})
}

// Prepare makes the state folder and its sub-folders. The error is
// *ForeignFolder where the folder is used for something else.
func (r *Registry) Prepare() error {
	if err := r.claim(); err != nil {
		return err
	}
	for _, folder := range []struct {
		path string
		mode fs.FileMode
	}{
		{r.Containers(), 0o700},
		{filepath.Dir(r.GlobalLock()), 0o700},
		{r.Temporary(), 0o700},
	} {
		if err := os.MkdirAll(folder.path, folder.mode); err != nil {
			return fmt.Errorf("cannot make the state folder: %w", err)
		}
		if info, err := os.Lstat(folder.path); err != nil || !info.IsDir() {
			return errors.Join(fmt.Errorf("%s is no folder of its own, maybe a link; devhost follows none there", folder.path), err)
		}
	}
	// MkdirAll leaves an existing folder's mode alone; this one guards setuid
	// files of guests.
	return os.Chmod(r.Containers(), 0o700)
}

// Load reads one record. The error is *NotRegistered or *Broken.
func (r *Registry) Load(name string) (*Container, error) {
	path := r.Record(name)
	if info, err := os.Lstat(r.Container(name)); err == nil && !info.IsDir() {
		return nil, &Broken{Name: name, Path: r.Container(name), Err: errors.New("it is no folder")}
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotRegistered{Name: name}
	}
	if err != nil {
		return nil, &Broken{Name: name, Path: path, Err: err}
	}
	container, err := Decode(data)
	if err == nil && container.Name != name && r.beingRenamed(container.Name, name) {
		container.Name = name
	}
	if err == nil && container.Name != name {
		err = fmt.Errorf("it names container %q", container.Name)
	}
	if err != nil {
		return nil, &Broken{Name: name, Path: path, Err: err}
	}
	return container, nil
}

// beingRenamed tells whether a container's folder has its new name already, and
// its record has not.
func (r *Registry) beingRenamed(from, to string) bool {
	entry, err := r.ReadJournal(to)
	return err == nil && entry != nil && entry.Operation == Rename && entry.From == from && entry.To == to
}

// Decode reads the JSON form of a record and checks what later code relies on.
func Decode(data []byte) (*Container, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var container Container
	if err := decoder.Decode(&container); err != nil {
		return nil, err
	}
	if container.Version != Version {
		return nil, fmt.Errorf("it has version %d, this devhost reads version %d", container.Version, Version)
	}
	if err := names.Container(container.Name); err != nil {
		return nil, err
	}
	if container.System != "" && filepath.Dir(container.System) != "/nix/store" {
		return nil, fmt.Errorf("system %q is no store path", container.System)
	}
	return &container, nil
}

// Save writes a record: temporary file, fsync, rename.
func (r *Registry) Save(container *Container) error {
	container.Version = Version
	return WriteJSON(r.Record(container.Name), container)
}

// WriteJSON writes a JSON file so that a reader sees the old or the new one.
func WriteJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

// Entry is one container in a listing: its record, or why it is broken.
type Entry struct {
	Name      string
	Container *Container
	Err       error
}

// List reads all records, sorted by name. One broken record does not hide the
// others. The error is one of the state folder itself.
func (r *Registry) List() ([]Entry, error) {
	folders, err := os.ReadDir(r.Containers())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the registered containers: %w", err)
	}
	entries := make([]Entry, 0, len(folders))
	for _, folder := range folders {
		name := folder.Name()
		if !folder.IsDir() || names.Container(name) != nil {
			continue
		}
		container, err := r.Load(name)
		var missing *NotRegistered
		if errors.As(err, &missing) {
			// A first ensure is under way, or was killed: the next command for
			// this name repairs it. Before the journal, the folder is empty.
			content, err := os.ReadDir(r.Container(name))
			if errors.Is(err, fs.ErrNotExist) || (err == nil && len(content) == 0) {
				continue
			}
			if _, err := os.Stat(r.Journal(name)); err == nil {
				continue
			}
			entries = append(entries, Entry{Name: name, Err: &Broken{Name: name, Path: r.Record(name), Err: fs.ErrNotExist}})
			continue
		}
		entries = append(entries, Entry{Name: name, Container: container, Err: err})
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return entries, nil
}
