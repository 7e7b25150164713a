package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"devhost/internal/archive"
	"devhost/internal/disk"
	"devhost/internal/progress"
	"devhost/internal/registry"
)

// Further steps of changes. StepArchive is no journalled one: until it is done,
// nothing has changed.
const (
	StepArchive = "archive"
	StepUnpack  = "unpack"
)

// Archiver packs folders into files.
type Archiver interface {
	// Pack writes the content of a folder to a new file, all or nothing.
	Pack(ctx context.Context, folder, path string, exclude ...string) (archive.Packed, error)
	// Unpack puts the content of such a file with that checksum into a folder.
	Unpack(ctx context.Context, path, sum, folder string, exclude ...string) error
}

// NoSpace says that an archive may not fit on the disk.
type NoSpace struct {
	Name string
	// Folder is where it would be, Needed and Free are in bytes.
	Folder       string
	Needed, Free int64
}

func (n *NoSpace) Error() string {
	return fmt.Sprintf("container %s is not archived: its files take %s, and %s are free below %s; free space there, see: devhost prune; or delete the container without an archive: devhost destroy %s",
		n.Name, units.BytesSize(float64(n.Needed)), units.BytesSize(float64(n.Free)), n.Folder, n.Name)
}

// Archive writes down what the container is, so that Undelete brings it back.
// The container must be stopped. When there is an error there is no archive.
func (v *Visit) Archive(ctx context.Context, reason string) (*registry.Archive, error) {
	return v.manager.archive(ctx, v.Record, reason)
}

// Destroy removes the container with all that belongs to it, but not its
// archives.
func (v *Visit) Destroy(ctx context.Context) error { return v.manager.destroy(ctx, v.Record.Name) }

// DestroyArchived archives a container and then removes it. Without an archive
// nothing is removed.
func (m *Manager) DestroyArchived(ctx context.Context, name, reason string) (written *registry.Archive, err error) {
	err = m.Visit(ctx, name, "archive", m.lockTimeout(), func(visit *Visit) error {
		if err := errors.Join(checkDeclared(visit.Record), m.checkOwner(visit.Record, "destroy")); err != nil {
			return err
		}
		if err := visit.Stop(ctx); err != nil {
			return err
		}
		if written, err = visit.Archive(ctx, reason); err != nil {
			return &Failure{Name: name, Err: err, Now: fmt.Sprintf("container %s is stopped and keeps its files", name)}
		}
		return visit.Destroy(ctx)
	})
	return written, err
}

// leftOut are the parts of a container's folder that are not archived: the
// journal of what is under way, snapshots, each of which may be as big as the
// container, and devhost itself.
func (m *Manager) leftOut(name string) []string {
	return []string{
		filepath.Base(m.Registry.Journal(name)), filepath.Base(m.Registry.Snapshots(name)),
		filepath.Join(filepath.Base(m.Registry.Guest(name)), filepath.Dir(handedProgram)),
	}
}

// privateFolder makes a folder for root alone: a setuid file that a guest made
// must be out of reach.
func privateFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, 0o700)
}

func (m *Manager) archive(ctx context.Context, record *registry.Container, reason string) (*registry.Archive, error) {
	name := record.Name
	if err := m.removeUnfinished(name); err != nil {
		return nil, err
	}
	if err := errors.Join(privateFolder(m.Registry.Archives()), privateFolder(m.Registry.ArchivesOf(name))); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the archives: %w", err)
	}
	size, err := m.checkSpace(name)
	if err != nil {
		return nil, errors.Join(err, m.dropEmpty(name))
	}
	if m.OnStep != nil {
		m.OnStep(StepArchive)
	}
	m.Reporter.Phase(progress.Archive)
	written := &registry.Archive{
		Version: registry.Version, Name: name, ID: m.Registry.NewArchiveID(name, m.Now()), ArchivedAt: m.Now().UTC(),
		Reason: reason, FilesBytes: size, Record: record,
	}
	if err := m.writeArchive(ctx, written); err != nil {
		// What cannot be removed now is removed with the next archive or prune.
		return nil, errors.Join(err, m.removeUnfinished(name), disk.RemoveFolder(m.Registry.ArchiveRoots(name, written.ID)), m.dropEmpty(name))
	}
	m.Logger.Info("archived", "container", name, "id", written.ID, "bytes", written.Bytes)
	return written, m.dropSuperseded(written)
}

// checkSpace finds out how big a container is, and refuses to fill the disk.
func (m *Manager) checkSpace(name string) (int64, error) {
	size, err := archive.Measure(m.Registry.Container(name), m.leftOut(name)...)
	if err != nil {
		return 0, fmt.Errorf("container %s is not archived: %w; or delete the container without an archive: devhost destroy %s", name, err, name)
	}
	var status unix.Statfs_t
	if err := unix.Statfs(m.Registry.Archives(), &status); err != nil {
		return 0, fmt.Errorf("cannot find out how much space is free for the archive: %w", err)
	}
	free := int64(status.Bavail) * status.Bsize
	if free < size {
		return 0, &NoSpace{Name: name, Folder: m.Registry.Archives(), Needed: size, Free: free}
	}
	m.Reporter.Detail(fmt.Sprintf("%s of files; %s are free", units.BytesSize(float64(size)), units.BytesSize(float64(free))))
	return size, nil
}

func (m *Manager) writeArchive(ctx context.Context, written *registry.Archive) error {
	folder := m.Registry.UnfinishedArchive(written.Name, written.ID)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of the archive: %w", err)
	}
	// What the container is made of must still be there when it comes back.
	if err := m.keepRoots(ctx, m.Registry.ArchiveRoots(written.Name, written.ID), written.Record); err != nil {
		return err
	}
	packed, err := m.Archiver.Pack(ctx, m.Registry.Container(written.Name), registry.ArchiveState(folder), m.leftOut(written.Name)...)
	if err != nil {
		return err
	}
	written.Bytes, written.SHA256 = packed.Bytes, packed.SHA256
	if err := registry.WriteJSON(registry.ArchiveRecord(folder), written); err != nil {
		return err
	}
	if err := syncFolder(folder); err != nil {
		return err
	}
	if err := os.Rename(folder, m.Registry.Archive(written.Name, written.ID)); err != nil {
		return fmt.Errorf("cannot finish the archive: %w", err)
	}
	return errors.Join(syncFolder(m.Registry.ArchivesOf(written.Name)), syncFolder(m.Registry.Archives()))
}

// keepRoots keeps the system and the channel of a record from the collector.
func (m *Manager) keepRoots(ctx context.Context, folder string, record *registry.Container) error {
	paths := map[string]string{"system": record.System, "channel": record.Pin.StorePath}
	if record.Dialect != "" {
		// The one that fc-manage installed.
		paths["guest-system"] = m.System(record)
	}
	for name, path := range paths {
		if path == "" {
			continue
		}
		if err := m.Systems.Keep(ctx, filepath.Join(folder, name), path); err != nil {
			return err
		}
	}
	return nil
}

// syncFolder writes a folder's entries to the disk.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// removeUnfinished removes archives that a killed process left. The caller
// holds the container's lock.
func (m *Manager) removeUnfinished(name string) error {
	var problems []error
	for _, folder := range m.Registry.UnfinishedArchives(name) {
		problems = append(problems, disk.RemoveFolder(folder))
	}
	return errors.Join(problems...)
}

// dropSuperseded removes the archives of the same container that were written
// when a removal was interrupted behind its archive.
func (m *Manager) dropSuperseded(newest *registry.Archive) error {
	entries, err := m.Registry.ListArchives(newest.Name)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Err == nil && entry.ID != newest.ID && entry.Archive.Record.CreatedAt.Equal(newest.Record.CreatedAt) {
			if err := m.removeArchive(entry.Name, entry.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeArchive removes an archive. The caller holds the lock of its name.
func (m *Manager) removeArchive(name, id string) error {
	// In one step it is none any more; the rest is removed as unfinished.
	if err := os.Rename(m.Registry.Archive(name, id), m.Registry.UnfinishedArchive(name, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove archive %s of %s: %w", id, name, err)
	}
	return errors.Join(m.removeUnfinished(name), disk.RemoveFolder(m.Registry.ArchiveRoots(name, id)), m.dropEmpty(name))
}

// dropEmpty removes the folders of archives that hold none any more.
func (m *Manager) dropEmpty(name string) error {
	folders := []string{m.Registry.ArchivesOf(name), m.Registry.Archives()}
	if left, err := os.ReadDir(m.Registry.Containers()); err == nil && len(left) == 0 {
		folders = append(folders, m.Registry.GCRoots())
	}
	for _, folder := range folders {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}
