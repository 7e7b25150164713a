package process

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connection, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	want, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Peer(connection.(*net.UnixConn)); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}
