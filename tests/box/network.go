package box

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netns"

	"devhost/internal/execx"
)

// The names of the two network namespaces, of the box and of its users' machine.
func hostNamespace(id string) string    { return "dhbox-" + id }
func outsideNamespace(id string) string { return "dhbox-" + id + "-out" }

func namespacePath(name string) string { return "/run/netns/" + name }

func ip(ctx context.Context, args ...string) error {
	return execx.New().Run(ctx, execx.Command{Name: "ip", Args: args, Timeout: time.Minute})
}

// makeNetwork makes the two namespaces and a cable between them. Inside the
// box, its networkd sets addresses.
func (b *Box) makeNetwork(ctx context.Context) error {
	host, outside := hostNamespace(b.id), outsideNamespace(b.id)
	for _, args := range [][]string{
		{"netns", "add", host},
		{"netns", "add", outside},
		{"-netns", outside, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", host},
		{"-netns", outside, "link", "set", "lo", "up"},
		{"-netns", outside, "address", "add", OutsideAddress4 + "/24", "dev", "eth0"},
		{"-netns", outside, "address", "add", OutsideAddress6 + "/64", "dev", "eth0", "nodad"},
		{"-netns", outside, "link", "set", "eth0", "up"},
	} {
		if err := ip(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func removeNetwork(ctx context.Context, id string) error {
	var problems []error
	for _, name := range []string{hostNamespace(id), outsideNamespace(id)} {
		if _, err := os.Stat(namespacePath(name)); err == nil {
			problems = append(problems, ip(ctx, "netns", "delete", name))
		}
	}
	return errors.Join(problems...)
}

// Dial connects from the machine of the box' users.
func (b *Box) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		connection net.Conn
		err        error
	}
	answers := make(chan answer, 1)
	go func() {
		// The thread ends with this goroutine, because it is not unlocked: no
		// other code ever runs in that namespace.
		runtime.LockOSThread()
		namespace, err := netns.GetFromPath(namespacePath(outsideNamespace(b.id)))
		if err == nil {
			defer namespace.Close()
			err = netns.Set(namespace)
		}
		if err != nil {
			answers <- answer{err: fmt.Errorf("cannot enter the users' network: %w", err)}
			return
		}
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, network, address)
		answers <- answer{connection, err}
	}()
	got := <-answers
	return got.connection, got.err
}
