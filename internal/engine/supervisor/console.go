package supervisor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// consoleCapacity is how much a guest can write to its console, in bytes, while
// it has no supervisor, before it has to wait for one.
const consoleCapacity = 1 << 20

// makeConsole makes the pipe for a guest's console. The end for nspawn reads
// too, and the pipe has a name: with a killed supervisor a plain pipe would lose
// its only reader, and nspawn ends when it cannot write. Like this the next
// supervisor reads on.
func makeConsole(path string) (console, end *os.File, err error) {
	if err := removeIfThere(path); err != nil {
		return nil, nil, fmt.Errorf("cannot make the console's pipe: %w", err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, nil, fmt.Errorf("cannot make the console's pipe: %s: %w", path, err)
	}
	if console, err = openConsole(path); err != nil {
		return nil, nil, err
	}
	if end, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		_ = console.Close()
		return nil, nil, fmt.Errorf("cannot open the console's pipe: %w", err)
	}
	// What the kernel refuses stays at its default.
	_, _ = unix.FcntlInt(end.Fd(), unix.F_SETPIPE_SZ, consoleCapacity)
	return console, end, nil
}

// openConsole opens the reading end of a pipe that makeConsole made.
func openConsole(path string) (*os.File, error) {
	console, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the console's pipe: %w", err)
	}
	return console, nil
}
