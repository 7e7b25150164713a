package container

import (
	"context"
	"time"

	"devhost/internal/registry"
	"devhost/internal/sshaccess"
)

// WaitForLogin waits until the container's sshd lets its human user in, by the
// container's own key. A greeting is not enough for who tries only once: while
// a guest starts, sshd answers and refuses logins.
func (m *Manager) WaitForLogin(ctx context.Context, record *registry.Container, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	const poll = 100 * time.Millisecond
	address := m.sshAddress(record)
	for {
		err := m.SSHFiles(record.Name).Login(limited, address, sshaccess.HumanUser)
		if err == nil {
			return nil
		}
		select {
		case <-limited.Done():
			return m.timedOut(ctx, limited, record.Name, "people can log in", timeout, err)
		case <-time.After(poll):
		}
	}
}
