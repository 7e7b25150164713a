package doctor

import "syscall"

type syscallIDMap = syscall.SysProcIDMap

// userNamespace are the attributes of a process in a user namespace of its
// own.
func userNamespace(mapped []syscallIDMap) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mapped, GidMappings: mapped}
}
