//go:build linux

package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what devhost reads of /proc/PID/stat.
type Stat struct {
	ID
	// State is the letter of the process' state, Z for a zombie.
	State byte
	// Parent is the pid of the parent.
	Parent int
	// Threads is the number of threads that have not ended.
	Threads int
	// ExitCode is how a zombie ended, in the form of wait(2).
	ExitCode int
}

// ParseStat reads the text of /proc/PID/stat.
func ParseStat(text []byte) (Stat, error) {
	// The name of the program is in brackets and may hold anything, brackets
	// and spaces included; nothing after it does.
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return Stat{}, fmt.Errorf("no process status: %.80q", text)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil {
		return Stat{}, fmt.Errorf("no process status: %.80q", text)
	}
	// Fields 3 (state), 4 (parent), 20 (threads), 22 (start) and 52 (exit code).
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 50 || len(fields[0]) != 1 {
		return Stat{}, fmt.Errorf("short process status: %.80q", text)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return Stat{}, fmt.Errorf("process status with parent %q", fields[1])
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return Stat{}, fmt.Errorf("process status with threads %q", fields[17])
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("process status with start %q", fields[19])
	}
	exitCode, err := strconv.Atoi(fields[49])
	if err != nil {
		return Stat{}, fmt.Errorf("process status with exit code %q", fields[49])
	}
	return Stat{ID: ID{PID: pid, Start: start}, State: fields[0][0], Parent: parent, Threads: threads, ExitCode: exitCode}, nil
}

// Dead says that the process has ended: a zombie. The first thread of a killed
// process may be one while others still hold its files and locks.
func (s Stat) Dead() bool {
	return (s.State == 'Z' || s.State == 'X') && s.Threads <= 1
}

// Read reads the status of a living or dead (zombie) process.
func Read(pid int) (Stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

// Of returns the ID of a living process.
func Of(pid int) (ID, error) {
	stat, err := Read(pid)
	if err != nil {
		return ID{}, err
	}
	return stat.ID, nil
}

// Alive says whether the process runs. A zombie does not.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	stat, err := Read(id.PID)
	return err == nil && stat.Start == id.Start && !stat.Dead()
}

// Open returns a pidfd of the process, which stays that of this process also
// when it has ended. The error is os.ErrProcessDone when it does not live.
func (id ID) Open() (int, error) {
	if id.PID <= 0 {
		return -1, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, os.ErrProcessDone
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open process %d: %w", id.PID, err)
	}
	// The descriptor may be that of a successor with the same pid; from here
	// on the pid cannot change hands unnoticed.
	if !id.Alive() {
		_ = unix.Close(fd)
		return -1, os.ErrProcessDone
	}
	return fd, nil
}

// Signal sends a signal to this process and to no other. The error is
// os.ErrProcessDone when it does not live.
func (id ID) Signal(signal syscall.Signal) error {
	fd, err := id.Open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.PidfdSendSignal(fd, signal, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("cannot send signal %d to process %d: %w", int(signal), id.PID, err)
	}
	return nil
}

// Listens says whether a process has a use for a signal: it handles it, or holds
// it back to read it later, as systemd does (SigCgt and SigBlk, see
// proc_pid_status(5)). PID 1 of a pid namespace ignores what it has no use for.
func (id ID) Listens(signal syscall.Signal) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(id.PID) + "/status")
	if err != nil || !id.Alive() {
		return false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "SigCgt" && key != "SigBlk" {
			continue
		}
		const hexadecimal, bits = 16, 64
		mask, err := strconv.ParseUint(strings.TrimSpace(value), hexadecimal, bits)
		if err == nil && mask&(1<<(uint(signal)-1)) != 0 {
			return true
		}
	}
	return false
}

// waitSlice is how long Wait sleeps before it looks at its context again.
const waitSlice = 20 * time.Millisecond

// Wait returns when the process has ended, or with the context's error.
func (id ID) Wait(ctx context.Context) error {
	fd, err := id.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		count, err := unix.Poll(poll, int(waitSlice.Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("cannot wait for process %d: %w", id.PID, err)
		case count > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// BootID is the kernel's id of this boot; start times of another boot mean
// nothing.
var BootID = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
})
