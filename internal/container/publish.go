package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"devhost/internal/network"
	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

// usable are the records that can be read and have addresses.
func (m *Manager) usable() ([]*registry.Container, error) {
	return usableRecords(m.Registry)
}

func usableRecords(records *registry.Registry) ([]*registry.Container, error) {
	entries, err := records.List()
	if err != nil {
		return nil, err
	}
	usable := make([]*registry.Container, 0, len(entries))
	for _, entry := range entries {
		if entry.Err == nil && entry.Container.Address.IPv4 != "" {
			usable = append(usable, entry.Container)
		}
	}
	return usable, nil
}

// publish makes the names of all registered containers resolve: on the host,
// and inside those that share an environment. The ingress reads the registry
// itself.
func (m *Manager) publish(ctx context.Context) error {
	unlock, err := m.lockShared(ctx, "publish names")
	if err != nil {
		return err
	}
	defer unlock()
	records, err := m.usable()
	if err != nil {
		return err
	}
	var problems []error
	var readOnly *network.HostsReadOnly
	if err := m.Network.Publish(ctx, records); errors.As(err, &readOnly) {
		// As on NixOS: everything else works without it.
		m.Reporter.Warn(err.Error())
	} else {
		problems = append(problems, err)
	}
	for _, record := range records {
		if record.Environment != "" {
			problems = append(problems, m.writeNetworkFiles(record, records))
		}
	}
	// Last: publishOnce takes them for all of it.
	problems = append(problems, m.publishFiles(records))
	return errors.Join(problems...)
}

// published is what other programs read of a container. The keys of the VM
// file are those that batou reads.
func (m *Manager) published(record *registry.Container) map[string]any {
	described := map[string]any{
		"version": registry.Version, "name": record.Name, "owner": record.Owner, "environment": record.Environment,
		"ipv4": record.Address.IPv4, "ipv6": record.Address.IPv6, "aliases": record.Aliases,
		"forwardPorts": append([]registry.ForwardPort{}, record.ForwardPorts...),
	}
	if record.Address.OnHost() {
		described["sshPort"] = record.Address.SSHPort
	}
	if record.Dialect != "" {
		// Its system is decided inside: devhost-deploy asks for that.
		described["dialect"] = record.Dialect
	}
	return map[string]any{
		record.Name + ".json":                 described,
		"vm-configs/" + record.Name + ".json": map[string]any{"name": record.Name, "srv-ip": record.Address.IPv4},
	}
}

func publishedText(value any) (string, error) {
	text, err := json.MarshalIndent(value, "", "  ")
	return string(text) + "\n", err
}

// publishFiles writes what other programs read, and removes it for containers
// that are gone. It is no secret.
func (m *Manager) publishFiles(records []*registry.Container) error {
	folder := m.Registry.Published()
	wanted := map[string]bool{}
	var problems []error
	for _, record := range records {
		for name, value := range m.published(record) {
			text, err := publishedText(value)
			if err == nil {
				err = writeGuestFile(filepath.Join(folder, name), text)
			}
			wanted[name] = true
			problems = append(problems, err)
		}
	}
	if len(records) > 0 {
		problems = append(problems, writeGuestFile(m.Registry.PublishedState(), m.Registry.State+"\n"))
	} else {
		problems = append(problems, removeIfThere(m.Registry.PublishedState()))
	}
	for _, pattern := range []string{"*.json", "vm-configs/*.json"} {
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		problems = append(problems, err)
		for _, file := range files {
			name, err := filepath.Rel(folder, file)
			if err == nil && !wanted[name] {
				err = removeIfThere(file)
			}
			problems = append(problems, err)
		}
	}
	if len(records) == 0 {
		// Folders with something else in them stay, and so does a link to one: it
		// is part of a host whose /etc cannot be written to.
		_ = unix.Rmdir(filepath.Join(folder, "vm-configs"))
		_ = unix.Rmdir(folder)
	}
	return errors.Join(problems...)
}

// allocate gives the record addresses that no other record has, and writes
// the record while the shared lock is held.
func (m *Manager) allocate(ctx context.Context, record *registry.Container) error {
	unlock, err := m.lockShared(ctx, "allocate addresses")
	if err != nil {
		return err
	}
	defer unlock()
	others, err := m.usable()
	if err != nil {
		return err
	}
	if err := m.checkPorts(record, nil, others); err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(other *registry.Container) bool { return other.Name == record.Name })
	used := make([]registry.Address, 0, len(others))
	for _, other := range others {
		if !other.Address.OnHost() {
			used = append(used, other.Address)
		}
	}
	if wantsHostNetwork(record) {
		record.Address, err = m.Network.AllocateOnHost(ctx, record.Name, others)
	} else {
		record.Address, err = m.Network.Allocate(record.Name, used)
	}
	if err != nil {
		return err
	}
	return m.Registry.Save(record)
}

// SSHFiles names the ssh files of a container.
func (m *Manager) SSHFiles(name string) sshaccess.Files {
	return sshaccess.Files{Host: m.Registry.SSH(name), Guest: m.Registry.Guest(name)}
}

// serviceUser is the account of the application inside.
const serviceUser = "s-dev"

// writeGuestFiles brings the folder that the guest sees at /run/devhost and
// the host's ssh files up to date. Unchanged files are left alone.
func (m *Manager) writeGuestFiles(record *registry.Container) error {
	if err := os.MkdirAll(m.Registry.Root(record.Name), 0o755); err != nil {
		return err
	}
	files := m.SSHFiles(record.Name)
	if err := files.Ensure(record.Name, record.Address.IPv4, record.Address.SSHPort); err != nil {
		return err
	}
	if err := authorize(m.Registry, m.Settings, record); err != nil {
		return err
	}
	if err := m.handOverProgram(record.Name); err != nil {
		return err
	}
	others, err := m.peers(record)
	if err != nil {
		return err
	}
	return m.writeNetworkFiles(record, others)
}

// peers are the records among which those of the container's environment are;
// none are read where it has none.
func (m *Manager) peers(record *registry.Container) ([]*registry.Container, error) {
	if record.Environment == "" {
		return nil, nil
	}
	return m.usable()
}

// writeNetworkFiles writes the files about the network and the name.
func (m *Manager) writeNetworkFiles(record *registry.Container, records []*registry.Container) error {
	hosts := []Host{hostOf(record)}
	for _, other := range records {
		// Where a container has the host's network, its address leads others to
		// themselves.
		if other.Name != record.Name && registry.Peers(record, other) && (record.Address.OnHost() || !other.Address.OnHost()) {
			hosts = append(hosts, hostOf(other))
		}
	}
	contents, err := m.Network.GuestFiles(record.Name, record.Address, hosts)
	if err != nil {
		return err
	}
	contents["name"] = record.Name + "\n"
	for _, path := range []string{networkdFile, sshdFile} {
		if _, wanted := contents[path]; !wanted {
			if err := removeIfThere(filepath.Join(m.Registry.Guest(record.Name), path)); err != nil {
				return err
			}
		}
	}
	for path, content := range contents {
		if err := writeGuestFile(filepath.Join(m.Registry.Guest(record.Name), path), content); err != nil {
			return err
		}
	}
	return nil
}

func hostOf(record *registry.Container) Host {
	return Host{Name: record.Name, IPv4: record.Address.IPv4, IPv6: record.Address.IPv6}
}

func writeGuestFile(path, content string) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == content {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, []byte(content), 0o644, renameio.IgnoreUmask())
}
