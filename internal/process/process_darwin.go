package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// zombie is SZOMB of <sys/proc.h>.
const zombie = 5

// waitSlice is how long Wait sleeps before it looks again.
const waitSlice = 20 * time.Millisecond

// Of returns the ID of a living process.
func Of(pid int) (ID, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return ID{}, fmt.Errorf("cannot look at process %d: %w", pid, err)
	}
	if info.Proc.P_stat == zombie {
		return ID{}, os.ErrProcessDone
	}
	const microseconds = 1_000_000
	started := info.Proc.P_starttime
	return ID{PID: pid, Start: uint64(started.Sec)*microseconds + uint64(started.Usec)}, nil
}

// Alive says whether the process runs. A zombie does not.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	found, err := Of(id.PID)
	return err == nil && found == id
}

// Signal sends a signal to the process. The error is os.ErrProcessDone when it
// does not live.
func (id ID) Signal(signal syscall.Signal) error {
	if !id.Alive() {
		return os.ErrProcessDone
	}
	err := syscall.Kill(id.PID, signal)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("cannot send signal %d to process %d: %w", int(signal), id.PID, err)
	}
	return nil
}

// Wait returns when the process has ended, or with the context's error.
func (id ID) Wait(ctx context.Context) error {
	for id.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitSlice):
		}
	}
	return nil
}

// BootID is the kernel's id of this boot.
var BootID = sync.OnceValue(func() string {
	text, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return text
})
