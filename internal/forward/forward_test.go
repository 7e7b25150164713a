package forward_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"devhost/internal/execx"
	"devhost/internal/forward"
	"devhost/internal/sshlink"
	"devhost/internal/sshlink/sshlinktest"
)

func TestParsePort(t *testing.T) {
	const form = "; a port is [LOCAL:][HOST:]PORT, such as 5432, db:5432 or 15432:db:5432"
	for text, want := range map[string]string{
		"5432":         `{ 5432 5432}`,
		"db:5432":      `{db 5432 5432}`,
		"1:5432":       `{ 1 5432}`,
		"1:db:5432":    `{db 1 5432}`,
		"1:2:5432":     `{2 1 5432}`,
		"":             `"": "" is no port from 1 to 65535` + form,
		"0":            `"0": "0" is no port from 1 to 65535` + form,
		"65536":        `"65536": "65536" is no port from 1 to 65535` + form,
		"+80":          `"+80": "+80" is no port from 1 to 65535` + form,
		"http":         `"http": "http" is no port from 1 to 65535` + form,
		"db:":          `"db:": "" is no port from 1 to 65535` + form,
		":80":          `":80": the name of the host is empty` + form,
		"x:db:80":      `"x:db:80": "x" is no port from 1 to 65535` + form,
		"1::80":        `"1::80": the name of the host is empty` + form,
		"1:2:3:4":      `"1:2:3:4": there are too many colons` + form,
		"99999:80":     `"99999:80": "99999" is no port from 1 to 65535` + form,
		"1:db:5432:":   `"1:db:5432:": there are too many colons` + form,
		"localhost:80": `{localhost 80 80}`,
	} {
		t.Run(text, func(t *testing.T) {
			port, err := forward.ParsePort(text)
			got := fmt.Sprint(port)
			if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("ParsePort = %s, want %s", got, want)
			}
		})
	}
}

// echo answers each line in capitals.
func echo(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				lines := bufio.NewScanner(connection)
				for lines.Scan() {
					fmt.Fprintln(connection, strings.ToUpper(lines.Text()))
				}
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

// free is a port that nobody listens at.
func free(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// ask sends a line and reads the answer, over a connection of its own.
func ask(port int, line string) (string, error) {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, line); err != nil {
		return "", err
	}
	// The half that is closed first must not end the other one.
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(connection)
	return strings.TrimSpace(string(answer)), err
}

func TestRun(t *testing.T) {
	server := sshlinktest.Start(t)
	local, nowhere, closed := free(t), free(t), free(t)
	folder := t.TempDir()
	var mutex sync.Mutex
	var said []string
	lines := func() string {
		mutex.Lock()
		defer mutex.Unlock()
		return strings.Join(said, "\n")
	}
	options := forward.Options{Folder: folder, Say: func(line string) {
		mutex.Lock()
		defer mutex.Unlock()
		said = append(said, line)
	}}
	hosts := []forward.Host{{Host: server.Host, Ports: []forward.Port{{Local: local, Remote: echo(t)}, {Local: closed, Remote: nowhere}, {Local: free(t), Remote: nowhere}}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- forward.Run(ctx, execx.New(), hosts, options) }()
	eventually := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(lines(), text); time.Sleep(5 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatalf("it ended: %v", err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("it never said %q but:\n%s", text, lines())
			}
		}
	}
	eventually(fmt.Sprintf("localhost:%d leads to port %d of guest", closed, nowhere))
	for range 3 {
		if got, err := ask(local, "hello"); err != nil || got != "HELLO" {
			t.Fatalf("the answer is %q, %v", got, err)
		}
	}
	if got, _ := ask(closed, "hello"); got != "" {
		t.Errorf("a port where nobody listens answers %q", got)
	}
	eventually("guest refuses a connection (connect failed: Connection refused)")

	server.Cut()
	// A program that connects meanwhile waits.
	if got, err := ask(local, "again"); err != nil || got != "AGAIN" {
		// The connection may have been lost just while it was used.
		eventually("is lost")
		if got, err = ask(local, "again"); err != nil || got != "AGAIN" {
			t.Errorf("the answer is %q, %v", got, err)
		}
	}
	eventually("the connection to guest is back after ")
	server.Stop()
	eventually("cannot be reached yet")
	server.Go()
	if got, err := ask(local, "once more"); err != nil || got != "ONCE MORE" {
		t.Errorf("the answer is %q, %v", got, err)
	}
	var taken *forward.Taken
	if err := forward.Run(t.Context(), execx.New(), hosts, options); !errors.As(err, &taken) ||
		err.Error() != fmt.Sprintf("port %d of this machine is in use; take another one: %d:%d", local, other(hosts[0].Ports[0].Remote), hosts[0].Ports[0].Remote) {
		t.Errorf("Run of the same port = %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if _, err := ask(local, "x"); err == nil {
		t.Error("the port is still open")
	}
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("it has left %v", left)
	}
}

func other(port int) int {
	if port+10000 > 65535 {
		return port - 10000
	}
	return port + 10000
}

func TestUnreachable(t *testing.T) {
	server := sshlinktest.Start(t)
	server.Stop()
	hosts := []forward.Host{{Host: server.Host, Ports: []forward.Port{{Local: free(t), Remote: 1}}}}
	err := forward.Run(t.Context(), execx.New(), hosts, forward.Options{Folder: t.TempDir(), Say: func(string) {}})
	var unreachable *sshlink.Unreachable
	if !errors.As(err, &unreachable) {
		t.Errorf("Run = %v", err)
	}
}
