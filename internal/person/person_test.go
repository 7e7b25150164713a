package person

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
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

// TestDoBounded: who waits for a file system that does not answer can leave.
func TestDoBounded(t *testing.T) {
	for name, person := range map[string]Person{"self": {UID: uint32(os.Geteuid())}, "another": {UID: 65534, GID: 65534}} {
		t.Run(name, func(t *testing.T) {
			if name == "another" {
				_ = nobody(t)
			}
			// Opening a FIFO waits for a writer.
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o666); err != nil {
				t.Fatal(err)
			}
			for folder := filepath.Dir(fifo); folder != os.TempDir() && folder != "/"; folder = filepath.Dir(folder) {
				if err := os.Chmod(folder, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			opening, opened := make(chan struct{}), make(chan error, 1)
			go func() {
				<-opening
				cancel()
			}()
			err := person.DoBounded(ctx, func() error {
				close(opening)
				descriptor, err := syscall.Open(fifo, syscall.O_RDONLY, 0)
				if err == nil {
					err = syscall.Close(descriptor)
				}
				opened <- err
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if err := <-opened; err != nil {
				t.Errorf("what was left behind: %v", err)
			}
			failure := errors.New("the action's own")
			if err := person.DoBounded(t.Context(), func() error { return failure }); !errors.Is(err, failure) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCurrentUID(t *testing.T) {
	for name, test := range map[string]struct {
		effective, real int
		env             map[string]string
		want, wantError string
	}{
		"nobody else":             {0, 0, nil, "0", ""},
		"without root":            {1000, 1000, nil, "1000", ""},
		"set-user-ID":             {0, 1000, nil, "1000", ""},
		"sudo":                    {0, 0, map[string]string{"SUDO_UID": "1001"}, "1001", ""},
		"pkexec":                  {0, 0, map[string]string{"PKEXEC_UID": "1002"}, "1002", ""},
		"doas":                    {0, 0, map[string]string{"DOAS_USER": "nobody"}, "65534", ""},
		"all":                     {0, 0, map[string]string{"SUDO_UID": "1001", "PKEXEC_UID": "1002", "DOAS_USER": "nobody"}, "1001", ""},
		"pkexec and doas":         {0, 0, map[string]string{"PKEXEC_UID": "1002", "DOAS_USER": "nobody"}, "1002", ""},
		"a lie of who is no root": {1000, 1000, map[string]string{"SUDO_UID": "0", "PKEXEC_UID": "0", "DOAS_USER": "root"}, "1000", ""},
		"no number":               {0, 0, map[string]string{"SUDO_UID": "alice"}, "", "SUDO_UID is"},
		"no number of pkexec":     {0, 0, map[string]string{"PKEXEC_UID": "-1"}, "", "PKEXEC_UID is"},
		"nobody known":            {0, 0, map[string]string{"DOAS_USER": "no such login"}, "", "DOAS_USER is"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := currentUID(test.effective, test.real, func(variable string) string { return test.env[variable] })
			if got != test.want || (err == nil) != (test.wantError == "") || (err != nil && !strings.Contains(err.Error(), test.wantError)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestApply(t *testing.T) {
	var command execx.Command
	(Person{UID: uint32(os.Geteuid())}).Apply(&command)
	if command.SysProcAttr != nil {
		t.Errorf("for oneself: %+v", command.SysProcAttr)
	}
	(Person{UID: uint32(os.Geteuid()) + 1, GID: 7, Groups: []uint32{7, 8}}).Apply(&command)
	want := &syscall.Credential{Uid: uint32(os.Geteuid()) + 1, Gid: 7, Groups: []uint32{7, 8}}
	if command.SysProcAttr == nil || !cmp.Equal(command.SysProcAttr.Credential, want) {
		t.Errorf("for another: %+v", command.SysProcAttr)
	}
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

func TestInGroup(t *testing.T) {
	root, err := Lookup("0")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		groups []string
		want   bool
	}{
		"own":       {[]string{"no such group", "root"}, true},
		"another's": {[]string{"nogroup", "daemon"}, false},
		"none":      {nil, false},
		"by number": {[]string{"0"}, false},
		"empty":     {[]string{""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := root.InGroup(test.groups...); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestVia(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root speaks for somebody else")
	}
	for _, variable := range []string{"SUDO_UID", "PKEXEC_UID", "DOAS_USER"} {
		t.Setenv(variable, "")
	}
	if got := Via(); got != "" {
		t.Errorf("root itself: %q", got)
	}
	for _, step := range []struct{ variable, want string }{{"DOAS_USER", "doas"}, {"PKEXEC_UID", "pkexec"}, {"SUDO_UID", "sudo"}} {
		t.Setenv(step.variable, "1")
		if got := Via(); got != step.want {
			t.Errorf("%s: %q", step.variable, got)
		}
	}
}
