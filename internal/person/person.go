// Package person is the person on whose behalf a command runs: who called
// sudo, or who runs devhost. Files that a person names are read and written
// with that person's rights, never with root's.
package person

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"devhost/internal/execx"
)

// Person is a login of this host.
type Person struct {
	UID, GID uint32
	// Groups are all groups, GID included.
	Groups []uint32
	Login  string
	// Home is the home folder, "" where the login has none.
	Home string
}

// Current is who called sudo, pkexec or doas, or else who runs this process.
// Only root may speak for somebody else: for others, the variables of these
// programs mean nothing. Where several are set, sudo's counts before pkexec's,
// and that before doas'. See sudo(8), pkexec(1) and doas(1).
func Current() (Person, error) {
	uid, err := currentUID(os.Geteuid(), os.Getuid(), os.Getenv)
	if err != nil {
		return Person{}, err
	}
	return Lookup(uid)
}

func currentUID(effective, real int, getenv func(string) string) (string, error) {
	if effective != 0 {
		return strconv.Itoa(real), nil
	}
	for _, variable := range []string{"SUDO_UID", "PKEXEC_UID"} {
		uid := getenv(variable)
		if uid == "" {
			continue
		}
		if _, err := strconv.ParseUint(uid, 10, 32); err != nil {
			return "", fmt.Errorf("%s is %q, which is no user id; unset it, or set it to that of the person", variable, uid)
		}
		return uid, nil
	}
	// doas hands on the name only.
	if login := getenv("DOAS_USER"); login != "" {
		known, err := user.Lookup(login)
		if err != nil {
			return "", fmt.Errorf("DOAS_USER is %q, who is nobody here: %w; unset it, or set it to the person's login", login, err)
		}
		return known.Uid, nil
	}
	return strconv.Itoa(real), nil
}

// Lookup finds a person by a numeric user id. A uid without a login is a
// person too, with no group but its own.
func Lookup(uid string) (Person, error) {
	number, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return Person{}, fmt.Errorf("%q is no user id", uid)
	}
	person := Person{UID: uint32(number), GID: uint32(number), Login: uid}
	known, err := user.LookupId(uid)
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		person.Groups = []uint32{person.GID}
		return person, nil
	}
	if err != nil {
		return Person{}, fmt.Errorf("cannot look up user %s: %w", uid, err)
	}
	person.Login, person.Home = known.Username, known.HomeDir
	groups, err := known.GroupIds()
	if err != nil {
		return Person{}, fmt.Errorf("cannot look up the groups of %s: %w", known.Username, err)
	}
	for _, group := range append([]string{known.Gid}, groups...) {
		number, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return Person{}, fmt.Errorf("group %q of %s is no number", group, known.Username)
		}
		person.Groups = append(person.Groups, uint32(number))
	}
	person.GID = person.Groups[0]
	return person, nil
}

// Self says whether the person is who this process runs as.
func (p Person) Self() bool { return uint32(os.Geteuid()) == p.UID }

// Apply makes a command run as the person, with all their groups.
func (p Person) Apply(command *execx.Command) {
	if p.Self() {
		return
	}
	groups := p.Groups
	if groups == nil {
		groups = []uint32{}
	}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.UID, Gid: p.GID, Groups: groups}}
}

// Do runs an action whose file accesses have the rights of the person. The
// action must not start goroutines or processes that access files: the rights
// are those of one thread.
func (p Person) Do(action func() error) error {
	if p.Self() {
		return action()
	}
	return <-p.start(action)
}

// DoBounded is Do for paths that may be on a file system that never answers,
// as one of the person's own making can. When the context ends, it returns the
// context's error and leaves the action behind: what the action writes may only
// be read after a return without that error.
func (p Person) DoBounded(ctx context.Context, action func() error) error {
	select {
	case err := <-p.start(action):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs an action on a thread of its own.
func (p Person) start(action func() error) <-chan error {
	result := make(chan error, 1)
	go func() {
		if p.Self() {
			result <- action()
			return
		}
		// The thread is never unlocked, so it ends with the goroutine and its
		// rights are not handed to another one.
		runtime.LockOSThread()
		if err := p.become(); err != nil {
			result <- fmt.Errorf("cannot take the rights of %s: %w", p.Login, err)
			return
		}
		result <- action()
	}()
	return result
}

// ReadFile reads a regular file of at most limit bytes.
func (p Person) ReadFile(path string, limit int64) ([]byte, error) {
	var content []byte
	err := p.Do(func() error {
		// Opening a FIFO would wait for a writer.
		file, err := os.OpenFile(filepath.Clean(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
		}
		content, err = io.ReadAll(io.LimitReader(file, limit+1))
		if err == nil && int64(len(content)) > limit {
			return &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it is larger than %d bytes", limit)}
		}
		return err
	})
	return content, err
}

// InGroup tells whether the person is a member of one of the host's groups.
// Groups that the host does not have have no members.
func (p Person) InGroup(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		group, err := user.LookupGroup(name)
		if err != nil {
			return false
		}
		gid, err := strconv.ParseUint(group.Gid, 10, 32)
		return err == nil && slices.Contains(p.Groups, uint32(gid))
	})
}

// Via is the program that made Current root: sudo, pkexec or doas; "" for none.
func Via() string {
	if os.Geteuid() != 0 {
		return ""
	}
	for _, way := range []struct{ variable, program string }{{"SUDO_UID", "sudo"}, {"PKEXEC_UID", "pkexec"}, {"DOAS_USER", "doas"}} {
		if os.Getenv(way.variable) != "" {
			return way.program
		}
	}
	return ""
}
