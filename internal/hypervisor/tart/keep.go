package tart

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// keepConsole is the hidden word by which a program becomes the keeper of a
// console.
const keepConsole = "keep-console"

// KeepConsole is the life of the process that writes a console's log: tart
// gives its guest's console to a terminal, and somebody must read that when
// devbox-cli has ended. Standard input is the terminal, standard output the log.
// The result is false where args ask for something else.
func KeepConsole(args []string) (status int, ok bool) {
	if len(args) != 2 || args[1] != keepConsole {
		return 0, false
	}
	// EIO is how a terminal says that nobody has it open any more.
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil && !errors.Is(err, syscall.EIO) {
		return 1, true
	}
	return 0, true
}
