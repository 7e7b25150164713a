package enter

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// account is a user of the guest.
type account struct {
	name        string
	uid, gid    int
	groups      []int
	home, shell string
}

const (
	passwdFile   = "etc/passwd"
	groupFile    = "etc/group"
	defaultShell = "/bin/sh"
)

// lookupUser finds a user by name or number in the guest's passwd(5) and
// group(5); "" is root. Root and numbers work without these files.
func lookupUser(root fs.FS, user string) (account, error) {
	if user == "" {
		user = "root"
	}
	lines, err := readLines(root, passwdFile)
	if err != nil {
		return account{}, err
	}
	number, numberErr := strconv.Atoi(user)
	for _, line := range lines {
		fields := strings.Split(line, ":")
		const passwdFields = 7
		if len(fields) != passwdFields {
			continue
		}
		uid, uidErr := strconv.Atoi(fields[2])
		gid, gidErr := strconv.Atoi(fields[3])
		if uidErr != nil || gidErr != nil || uid < 0 || gid < 0 || (fields[0] != user && (numberErr != nil || uid != number)) {
			continue
		}
		found := account{name: fields[0], uid: uid, gid: gid, home: fields[5], shell: fields[6]}
		if found.home == "" {
			found.home = "/"
		}
		if found.shell == "" {
			found.shell = defaultShell
		}
		found.groups, err = groupsOf(root, found)
		return found, err
	}
	switch {
	case user == "root":
		return account{name: "root", home: "/root", shell: defaultShell, groups: []int{0}}, nil
	case numberErr == nil && number >= 0:
		return account{name: user, uid: number, gid: number, home: "/", shell: defaultShell, groups: []int{number}}, nil
	}
	return account{}, fmt.Errorf("the container has no user %q; its users are in its /etc/passwd", user)
}

func groupsOf(root fs.FS, member account) ([]int, error) {
	groups := []int{member.gid}
	lines, err := readLines(root, groupFile)
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		fields := strings.Split(line, ":")
		const groupFields = 4
		if len(fields) != groupFields || !slices.Contains(strings.Split(fields[3], ","), member.name) {
			continue
		}
		if gid, err := strconv.Atoi(fields[2]); err == nil && gid >= 0 && !slices.Contains(groups, gid) {
			groups = append(groups, gid)
		}
	}
	return groups, nil
}

// readLines reads a file of the guest; one that is missing has no lines.
func readLines(root fs.FS, path string) ([]string, error) {
	text, err := fs.ReadFile(root, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the container's users: %w", err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}
