// Package disk knows the file system that containers lie on: it copies trees,
// sharing their blocks where it can, and bounds what a tree holds by project
// quotas where there are any (see xfs_quota(8) and ext4(5)).
package disk

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

// Way is how the content of files gets into a copy.
type Way string

const (
	// Reflink shares the blocks with the source until either changes.
	Reflink Way = "reflink"
	// Copy writes everything once more.
	Copy Way = "copy"
)

// Host is the disk of this machine.
type Host struct{ Runner execx.Runner }

// CopyTree copies a folder with all that is in it: owners as numbers, times,
// modes, access control lists and other extended attributes, hard links, holes,
// fifos, sockets and devices. What chattr(1) sets is not copied. to is a new
// folder or an empty one. Links are copied, not followed. The error is
// *CopyError.
//
// Nobody may write to from meanwhile.
func (h Host) CopyTree(ctx context.Context, from, to string) error {
	// It ends with us: the thread that starts it must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := h.Runner.Run(ctx, execx.Command{
		Name: "cp",
		Args: []string{"--archive", "--reflink=auto", "--sparse=auto", "--no-target-directory", "--", from, to},
		Env:  []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return &CopyError{From: from, To: to, Err: err}
	}
	return nil
}

// CopyError says that a tree could not be copied.
type CopyError struct {
	From, To string
	Err      error
}

func (c *CopyError) Error() string {
	return fmt.Sprintf("cannot copy %s to %s: %v", c.From, c.To, c.Err)
}

func (c *CopyError) Unwrap() error { return c.Err }

// WayIn tries how files within a folder are copied to each other. It leaves
// nothing there.
func (Host) WayIn(folder string) (Way, error) {
	source, err := nameless(folder)
	if err != nil {
		return "", err
	}
	defer source.Close()
	if _, err := source.Write(make([]byte, os.Getpagesize())); err != nil {
		return "", err
	}
	target, err := nameless(folder)
	if err != nil {
		return "", err
	}
	defer target.Close()
	if unix.IoctlFileClone(int(target.Fd()), int(source.Fd())) != nil {
		return Copy, nil
	}
	return Reflink, nil
}

// nameless makes a file in a folder that goes away when it is closed.
func nameless(folder string) (*os.File, error) {
	file, err := os.CreateTemp(folder, ".try-")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

// Exchange lets two paths of one file system swap what they name, in one step.
func (Host) Exchange(one, other string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: one, New: other, Err: err}
	}
	return nil
}
