package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

// hosts are the names and addresses of all containers whose records are
// usable.
func (m *Manager) hosts() ([]Host, []registry.Entry, error) {
	entries, err := m.Registry.List()
	if err != nil {
		return nil, nil, err
	}
	hosts := make([]Host, 0, len(entries))
	for _, entry := range entries {
		if entry.Err == nil && entry.Container.Address.IPv4 != "" {
			hosts = append(hosts, Host{Name: entry.Name, IPv4: entry.Container.Address.IPv4, IPv6: entry.Container.Address.IPv6})
		}
	}
	return hosts, entries, nil
}

// publish makes the names of all registered containers resolve on the host.
// The ingress reads the registry itself.
func (m *Manager) publish(ctx context.Context) error {
	unlock, err := m.Registry.LockShared(ctx, "publish names", LockTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	hosts, _, err := m.hosts()
	if err != nil {
		return err
	}
	return m.Network.Publish(ctx, hosts)
}

// allocate gives the record addresses that no other record has, and writes
// the record while the shared lock is held.
func (m *Manager) allocate(ctx context.Context, record *registry.Container) error {
	unlock, err := m.Registry.LockShared(ctx, "allocate addresses", LockTimeout)
	if err != nil {
		return err
	}
	defer unlock()
	_, entries, err := m.hosts()
	if err != nil {
		return err
	}
	used := make([]registry.Address, 0, len(entries))
	for _, entry := range entries {
		if entry.Err == nil && entry.Name != record.Name {
			used = append(used, entry.Container.Address)
		}
	}
	record.Address, err = m.Network.Allocate(record.Name, used)
	if err != nil {
		return err
	}
	return m.Registry.Save(record)
}

// sshFiles names the ssh files of a container.
func (m *Manager) sshFiles(name string) sshaccess.Files {
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
	files := m.sshFiles(record.Name)
	if err := files.Ensure(record.Name, record.Address.IPv4); err != nil {
		return err
	}
	if err := files.Authorize([]string{serviceUser}, record.AuthorizedKeys); err != nil {
		return err
	}
	own := Host{Name: record.Name, IPv4: record.Address.IPv4, IPv6: record.Address.IPv6}
	contents, err := m.Network.GuestFiles(record.Name, record.Address, []Host{own})
	if err != nil {
		return err
	}
	contents["name"] = record.Name + "\n"
	for path, content := range contents {
		if err := writeGuestFile(filepath.Join(files.Guest, path), content); err != nil {
			return err
		}
	}
	return nil
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
