package enter

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sealedSelf is a copy of the running program in memory that nobody can
// change. The file itself never enters a container: root inside must not get
// hold of it (CVE-2019-5736 was that).
func sealedSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	descriptor, err := unix.MemfdCreate("devhost", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		// Before Linux 6.3, every such file can be executed.
		descriptor, err = unix.MemfdCreate("devhost", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(descriptor), "devhost in memory")
	if _, err := io.Copy(file, self); err != nil {
		_ = file.Close()
		return nil, err
	}
	if err := file.Chmod(0o555); err != nil {
		_ = file.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("cannot seal a file in memory: %w", err)
	}
	return file, nil
}
