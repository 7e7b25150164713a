package nix

import (
	"os"
	"os/user"
	"strconv"
	"syscall"

	"devhost/internal/execx"
)

// Caller is the person on whose behalf something is read: files and the
// network are reached with their rights, never with root's.
type Caller struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	Home   string
}

// LookupCaller describes a host user by uid.
func LookupCaller(uid uint32) (Caller, error) {
	account, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{UID: uid, Home: account.HomeDir}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return Caller{}, err
	}
	caller.GID = uint32(gid)
	groups, err := account.GroupIds()
	if err != nil {
		return Caller{}, err
	}
	for _, text := range groups {
		if group, err := strconv.ParseUint(text, 10, 32); err == nil {
			caller.Groups = append(caller.Groups, uint32(group))
		}
	}
	return caller, nil
}

// Self says whether the caller is who this process runs as.
func (c Caller) Self() bool { return os.Geteuid() == int(c.UID) }

// Apply makes a command run with the caller's rights, supplementary groups
// included.
func (c Caller) Apply(command *execx.Command) {
	if c.Self() {
		return
	}
	groups := c.Groups
	if groups == nil {
		groups = []uint32{}
	}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: groups}}
}
