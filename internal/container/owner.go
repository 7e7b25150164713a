package container

import (
	"errors"
	"fmt"

	"devhost/internal/registry"
)

// NotOwner says that something of somebody else's would be lost.
type NotOwner struct {
	Name string
	// Owner is the login of who made it, "" where that cannot be read.
	Owner string
	// Action is what was asked for, such as "destroy".
	Action string
}

func (n *NotOwner) Error() string {
	whose := "belongs to " + n.Owner
	if n.Owner == "" {
		whose = "has a record that cannot be read, so it may be somebody else's"
	}
	return fmt.Sprintf("container %s %s; ask them, or %s it all the same with devhost's option --force", n.Name, whose, n.Action)
}

// checkOwner refuses to do away with what belongs to somebody else, unless the
// person insists. Root needs not to. The error is *NotOwner.
func (m *Manager) checkOwner(record *registry.Container, action string) error {
	if m.Force || m.Caller.UID == 0 || record.Owner == m.Caller.Login {
		return nil
	}
	return &NotOwner{Name: record.Name, Owner: record.Owner, Action: action}
}

// checkOwnerOf is checkOwner and checkDeclared by the container's name. A
// container that is not there, or was left half made or half removed without a
// record, is nobody's.
func (m *Manager) checkOwnerOf(name, action string) error {
	record, err := m.Registry.Load(name)
	var missing *registry.NotRegistered
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		record = &registry.Container{Name: name}
	}
	return errors.Join(checkDeclared(record), m.checkOwner(record, action))
}
