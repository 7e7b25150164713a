package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The projects of devhost. Whatever else is on the file system has others, so
// that a container's limit never becomes somebody else's.
const (
	firstProject  = 0x4448_0000
	lastProject   = 0x4448_ffff
	projectsCount = lastProject - firstProject + 1
)

// IsProject says whether a project is one of devhost's.
func IsProject(project uint32) bool { return project >= firstProject && project <= lastProject }

// Usage is what the files of a project take, and may take at most, in bytes; a
// limit of zero is none.
type Usage struct{ Bytes, Limit int64 }

// Numbers of linux/quota.h and linux/dqblk_xfs.h. The commands of the first
// work on every file system with quotas, as does the last one.
const (
	projectQuota = 2 // PRJQUOTA

	getQuota = 0x800007 // Q_GETQUOTA
	setQuota = 0x800008 // Q_SETQUOTA
	getState = 0x5808   // Q_XGETQSTATV

	stateVersion    = 1      // FS_QSTATV_VERSION1
	projectEnforced = 1 << 5 // FS_QUOTA_PDQ_ENFD
	blockLimits     = 1      // QIF_BLIMITS
	quotaBlock      = 1024   // QIF_DQBLKSIZE
)

// quotaState is struct fs_quota_statv.
type quotaState struct {
	version int8
	_       uint8
	flags   uint16
	_       [19]uint64
}

// quotaBlocks is struct if_dqblk.
type quotaBlocks struct {
	hardBlocks, softBlocks, space uint64
	hardInodes, softInodes        uint64
	inodes                        uint64
	blockTime, inodeTime          uint64
	valid                         uint32
	_                             uint32
}

// quotactl calls quotactl_fd(2), which is Linux 5.14's, for a project of the
// file system that a folder lies on.
func quotactl(folder string, command int, project uint32, argument unsafe.Pointer) error {
	file, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer file.Close()
	_, _, number := unix.Syscall6(unix.SYS_QUOTACTL_FD, file.Fd(), uintptr(command<<8|projectQuota), uintptr(project), uintptr(argument), 0, 0)
	if number != 0 {
		return number
	}
	return nil
}

// Enforces says whether the file system of a folder bounds what projects hold:
// ext4 made with -O project,quota, or xfs, both mounted with prjquota.
func (Host) Enforces(folder string) bool {
	state := quotaState{version: stateVersion}
	err := quotactl(folder, getState, 0, unsafe.Pointer(&state))
	return err == nil && state.flags&projectEnforced != 0
}

// Usage asks for a project of the file system that a folder lies on.
func (Host) Usage(folder string, project uint32) (Usage, error) {
	var blocks quotaBlocks
	err := quotactl(folder, getQuota, project, unsafe.Pointer(&blocks))
	if errors.Is(err, unix.ENOENT) {
		// As xfs says of one that has no files and no limit.
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("cannot ask for the disk usage of project %d at %s: %w", project, folder, err)
	}
	return Usage{Bytes: int64(blocks.space), Limit: int64(blocks.hardBlocks) * quotaBlock}, nil
}

// SetLimit bounds a project, in bytes; zero takes the limit away.
func (Host) SetLimit(folder string, project uint32, bytes int64) error {
	blocks := quotaBlocks{hardBlocks: uint64(RoundLimit(bytes)) / quotaBlock, valid: blockLimits}
	err := quotactl(folder, setQuota, project, unsafe.Pointer(&blocks))
	if err != nil {
		return fmt.Errorf("cannot set the disk limit of project %d at %s: %w", project, folder, err)
	}
	return nil
}

// NewProject is a project that no file has. start spreads what several state
// folders on one file system choose. The caller sees to it that nobody else
// chooses at the same time, until Assign.
func (h Host) NewProject(folder string, start uint32) (uint32, error) {
	for i := range uint32(projectsCount) {
		project := uint32(firstProject) + (start+i)%projectsCount
		var blocks quotaBlocks
		err := quotactl(folder, getQuota, project, unsafe.Pointer(&blocks))
		switch {
		case errors.Is(err, unix.ENOENT), err == nil && blocks.inodes == 0 && blocks.space == 0 && blocks.hardBlocks == 0:
			return project, nil
		case err != nil:
			return 0, fmt.Errorf("cannot look for a free project at %s: %w", folder, err)
		}
	}
	return 0, fmt.Errorf("all %d projects of devhost at %s are in use", projectsCount, folder)
}

// attributes is struct fsxattr of linux/fs.h.
type attributes struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

// Numbers of linux/fs.h.
const (
	getAttributes  = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes  = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x200      // FS_XFLAG_PROJINHERIT
)

func ioctl(file *os.File, request uintptr, argument *attributes) error {
	if _, _, number := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(unsafe.Pointer(argument))); number != 0 {
		return number
	}
	return nil
}

// ProjectOf is the project of a folder itself, zero for none and where the file
// system has no projects.
func (Host) ProjectOf(folder string) (uint32, error) {
	file, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var now attributes
	err = ioctl(file, getAttributes, &now)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot ask for the project of %s: %w", folder, err)
	}
	return now.project, nil
}

// Assign gives a folder and all files and folders below it to a project; what
// is made in them later belongs to it too. Guests may write there meanwhile.
// Links, fifos and sockets, which take no room, keep what they have, as do
// files that are immutable.
func (Host) Assign(folder string, project uint32) error {
	file, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil {
		err = assign(file, project)
	}
	if err != nil {
		return fmt.Errorf("cannot give %s to project %d: %w", folder, project, err)
	}
	return nil
}

// assign closes the file.
func assign(file *os.File, project uint32) error {
	defer file.Close()
	info, err := file.Stat()
	if err != nil || (!info.IsDir() && !info.Mode().IsRegular()) {
		return err
	}
	var now attributes
	if err := ioctl(file, getAttributes, &now); err != nil {
		return err
	}
	wanted := now
	wanted.project = project
	if info.IsDir() {
		// First: what is made in it from now on needs no visit.
		wanted.flags |= projectInherit
	}
	if wanted != now {
		if err := ioctl(file, setAttributes, &wanted); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if !info.IsDir() {
		return nil
	}
	const atOnce = 256
	for {
		entries, err := file.ReadDir(atOnce)
		for _, entry := range entries {
			if !entry.IsDir() && !entry.Type().IsRegular() {
				continue
			}
			if err := assignEntry(file, entry, project); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

// assignEntry opens an entry without following links, and without waiting for
// what a guest may have put in its place.
func assignEntry(folder *os.File, entry fs.DirEntry, project uint32) error {
	descriptor, err := unix.Openat(int(folder.Fd()), entry.Name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	// It is gone, or a link or a socket by now.
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: folder.Name() + "/" + entry.Name(), Err: err}
	}
	return assign(os.NewFile(uintptr(descriptor), folder.Name()+"/"+entry.Name()), project)
}

// RoundLimit is the limit that holds when bytes are asked for.
func RoundLimit(bytes int64) int64 { return (bytes + quotaBlock - 1) / quotaBlock * quotaBlock }
