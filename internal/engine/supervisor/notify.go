package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// news is what nspawn said so far in this life, see sd_notify(3).
type news struct {
	// leader is the host pid of the guest's PID 1, 0 until it is known.
	leader int
}

// notifyReader reads the socket at which nspawn reports. It never waits for
// anybody: while nobody reads, nspawn blocks, and then the guest's PID 1.
type notifyReader struct {
	path string
	file *os.File
	// changed gets a value when there are news.
	changed chan struct{}
	mutex   sync.Mutex
	latest  news
}

// listen makes the socket, in place of one that a killed supervisor left.
func listen(path string) (*notifyReader, error) {
	if err := removeIfThere(path); err != nil {
		return nil, fmt.Errorf("cannot make the socket for nspawn: %w", err)
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make the socket for nspawn: %w", err)
	}
	file := os.NewFile(uintptr(socket), path)
	if err := unix.Bind(socket, &unix.SockaddrUnix{Name: path}); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("cannot make the socket for nspawn: %s: %w", path, err)
	}
	reader := &notifyReader{path: path, file: file, changed: make(chan struct{}, 1)}
	go reader.read()
	return reader, nil
}

func (n *notifyReader) read() {
	// The guest's part of a message is bounded by nspawn to a page.
	message := make([]byte, 8192)
	for {
		count, err := n.file.Read(message)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if count > 0 {
			n.take(string(message[:count]))
		}
	}
}

func (n *notifyReader) take(message string) {
	n.mutex.Lock()
	before := n.latest
	for line := range strings.Lines(message) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key != "X_NSPAWN_LEADER_PID" {
			continue
		}
		if pid, err := strconv.Atoi(value); err == nil && pid > 1 {
			n.latest.leader = pid
		}
	}
	isNews := n.latest != before
	n.mutex.Unlock()
	if !isNews {
		return
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

func (n *notifyReader) news() news {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.latest
}

// reset forgets the news of the life before.
func (n *notifyReader) reset() {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	n.latest = news{}
}

func (n *notifyReader) Close() error {
	return errors.Join(n.file.Close(), removeIfThere(n.path))
}
