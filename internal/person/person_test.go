package person

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

func nobody(t *testing.T) Person {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("taking another user's rights needs root")
	}
	person, err := Lookup("65534")
	if err != nil {
		t.Fatal(err)
	}
	return person
}

func TestReadFileHasThePersonsRights(t *testing.T) {
	person := nobody(t)
	folder := t.TempDir()
	if err := os.Chmod(filepath.Dir(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	secret, public, fifo := filepath.Join(folder, "secret"), filepath.Join(folder, "public"), filepath.Join(folder, "fifo")
	for path, mode := range map[string]fs.FileMode{secret: 0o600, public: 0o644} {
		if err := os.WriteFile(path, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := person.ReadFile(secret, 100); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("reading root's file: %v", err)
	}
	// The control: root itself can.
	if content, err := (Person{}).ReadFile(secret, 100); err != nil || string(content) != "content" {
		t.Errorf("root reading its file: %q, %v", content, err)
	}
	if content, err := person.ReadFile(public, 100); err != nil || string(content) != "content" {
		t.Errorf("reading a public file: %q, %v", content, err)
	}
	if _, err := person.ReadFile(public, 3); err == nil {
		t.Error("a file over the limit was read")
	}
	if _, err := person.ReadFile(fifo, 100); err == nil {
		t.Error("a FIFO was read")
	}
	if err := person.Do(func() error { return os.WriteFile(filepath.Join(folder, "new"), nil, 0o600) }); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("writing into root's folder: %v", err)
	}
}

// TestRightsDoNotLeak: after many actions, this process still has root's
// rights on every thread.
func TestRightsDoNotLeak(t *testing.T) {
	person := nobody(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() { _, _ = person.ReadFile(secret, 1) })
		wait.Go(func() {
			if _, err := os.ReadFile(secret); err != nil {
				t.Errorf("root lost its rights: %v", err)
			}
		})
	}
	wait.Wait()
}

func TestLookup(t *testing.T) {
	for _, bad := range []string{"", "root", "-1", "99999999999"} {
		if _, err := Lookup(bad); err == nil {
			t.Errorf("Lookup(%q) found somebody", bad)
		}
	}
	unknown, err := Lookup("4123456789")
	if err != nil || unknown.Home != "" || len(unknown.Groups) != 1 {
		t.Errorf("Lookup of a uid without login = %+v, %v", unknown, err)
	}
}

// TestOtherMountNamespaces: root of a process in another mount namespace can
// be reached below /proc by who may trace it, and by nobody else.
func TestOtherMountNamespaces(t *testing.T) {
	person := nobody(t)
	path := "/proc/1/root/etc/hostname"
	if _, err := os.ReadFile(path); err != nil {
		t.Skipf("root itself cannot read it: %v", err)
	}
	if _, err := person.ReadFile(path, 1<<16); err == nil {
		t.Error("a person without rights read a file by way of another process' root")
	}
}
