package enter

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"devhost/internal/execx"
	"devhost/internal/process"
)

func TestLookupUser(t *testing.T) {
	const passwd = `root:x:0:0:System administrator:/root:/run/current-system/sw/bin/bash
# a line that is none
developer:x:1000:100::/home/developer:/bin/bash
bare:x:1001:1001:::
broken:x:one:100::/home:/bin/sh
negative:x:-5:100::/home:/bin/sh
short:x:1002:100
`
	const groups = `root:x:0:
users:x:100:
service:x:900:developer,bare
admin:x:901:developer
twice:x:100:developer
broken:x:many:developer
negative:x:-1:developer
`
	guest := fstest.MapFS{"etc/passwd": {Data: []byte(passwd)}, "etc/group": {Data: []byte(groups)}}
	tests := []struct {
		name, user string
		root       fstest.MapFS
		want       account
		wantError  string
	}{
		{"default", "", guest, account{"root", 0, 0, []int{0}, "/root", "/run/current-system/sw/bin/bash"}, ""},
		{"by name", "developer", guest, account{"developer", 1000, 100, []int{100, 900, 901}, "/home/developer", "/bin/bash"}, ""},
		{"by number", "1000", guest, account{"developer", 1000, 100, []int{100, 900, 901}, "/home/developer", "/bin/bash"}, ""},
		{"no home and no shell", "bare", guest, account{"bare", 1001, 1001, []int{1001, 900}, "/", "/bin/sh"}, ""},
		{"number without a name", "4711", guest, account{"4711", 4711, 4711, []int{4711}, "/", "/bin/sh"}, ""},
		{"unknown", "somebody", guest, account{}, `no user "somebody"`},
		{"unusable line", "broken", guest, account{}, `no user "broken"`},
		{"negative number in the file", "negative", guest, account{}, `no user "negative"`},
		{"negative number", "-5", guest, account{}, `no user "-5"`},
		{"short line", "short", guest, account{}, `no user "short"`},
		{"root without files", "", fstest.MapFS{}, account{"root", 0, 0, []int{0}, "/root", "/bin/sh"}, ""},
		{"name without files", "developer", fstest.MapFS{}, account{}, `no user "developer"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := lookupUser(test.root, test.user)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(account{})); diff != "" {
				t.Errorf("account (-want +got):\n%s", diff)
			}
			if (err == nil) != (test.wantError == "") || err != nil && !strings.Contains(err.Error(), test.wantError) {
				t.Errorf("error %v, want %q", err, test.wantError)
			}
		})
	}
}

func FuzzLookupUser(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\n", "users:x:100:root\n", "root")
	f.Fuzz(func(t *testing.T, passwd, groups, user string) {
		found, err := lookupUser(fstest.MapFS{"etc/passwd": {Data: []byte(passwd)}, "etc/group": {Data: []byte(groups)}}, user)
		if err == nil && (found.uid < 0 || found.gid < 0 || found.home == "" || found.shell == "" || len(found.groups) == 0) {
			t.Errorf("account %+v", found)
		}
	})
}

func TestSessionEnvironment(t *testing.T) {
	developer := account{name: "dev", home: "/home/dev", shell: "/bin/bash"}
	const path = "PATH=/run/wrappers/bin:/home/dev/.nix-profile/bin:/etc/profiles/per-user/dev/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	tests := []struct {
		name   string
		wanted settings
		want   []string
	}{
		{"plain", settings{Term: "ignored"}, []string{"HOME=/home/dev", "LANG=C.UTF-8", "LOGNAME=dev", path, "SHELL=/bin/bash", "USER=dev"}},
		{"terminal", settings{TTY: true, Term: "screen"}, []string{"HOME=/home/dev", "LANG=C.UTF-8", "LOGNAME=dev", path, "SHELL=/bin/bash", "TERM=screen", "USER=dev"}},
		{"unnamed terminal", settings{TTY: true}, []string{"HOME=/home/dev", "LANG=C.UTF-8", "LOGNAME=dev", path, "SHELL=/bin/bash", "TERM=xterm", "USER=dev"}},
		{"own", settings{Env: []string{"A=", "PATH=/x", "A=b=c"}}, []string{"A=b=c", "HOME=/home/dev", "LANG=C.UTF-8", "LOGNAME=dev", "PATH=/x", "SHELL=/bin/bash", "USER=dev"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := sessionEnvironment(developer, test.wanted)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"", "A", "=b"} {
		if _, err := sessionEnvironment(developer, settings{Env: []string{bad}}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCommandOf(t *testing.T) {
	folder := t.TempDir()
	for name, mode := range map[string]os.FileMode{"program": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", folder)
	tests := []struct {
		name       string
		argv       []string
		want       string
		wantArgv   []string
		wantStatus int
	}{
		{"on PATH", []string{"program", "a"}, folder + "/program", []string{"program", "a"}, 0},
		{"by path", []string{folder + "/program"}, folder + "/program", []string{folder + "/program"}, 0},
		{"login shell", nil, "/bin/zsh", []string{"-zsh"}, 0},
		{"missing", []string{"nothing"}, "", nil, 127},
		{"missing by path", []string{folder + "/nothing"}, "", nil, 127},
		{"empty", []string{""}, "", nil, 127},
		{"not executable", []string{folder + "/text"}, "", nil, 126},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program, argv, err := commandOf(account{shell: "/bin/zsh"}, test.argv)
			var refused *refusal
			status := 0
			if errors.As(err, &refused) {
				status = refused.status
			}
			if program != test.want || status != test.wantStatus {
				t.Errorf("program %q, status %d, error %v", program, status, err)
			}
			if diff := cmp.Diff(test.wantArgv, argv); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExitStatus(t *testing.T) {
	other := errors.New("other")
	tests := []struct {
		name      string
		err       error
		want      int
		wantError error
	}{
		{"success", nil, 0, nil},
		{"failure", &execx.Error{ExitCode: 3}, 3, nil},
		{"signal", &execx.Error{ExitCode: -1, Signal: unix.SIGKILL}, 137, nil},
		{"anything else", other, 125, other},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := exitStatus(test.err)
			if got != test.want || !errors.Is(err, test.wantError) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

// What a guest says ends up on a person's terminal.
func TestRefusalIsHarmless(t *testing.T) {
	v := &visit{guest: Guest{Name: "demo"}}
	err := v.refusal(message{Error: "no\x1b[2J such\nthing", Status: 127})
	if want := "cannot run a command in container demo: no such thing"; err.Error() != want || err.Status != 127 {
		t.Errorf("%q, status %d", err, err.Status)
	}
}

func TestSealedSelf(t *testing.T) {
	sealed, err := sealedSelf()
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	info, err := sealed.Stat()
	if err != nil || info.Size() != self.Size() || info.Mode().Perm() != 0o555 {
		t.Errorf("the copy is %+v, %v", info, err)
	}
	if _, err := sealed.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing to the copy: %v", err)
	}
	if err := sealed.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("cutting the copy: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	own, err := process.Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, leader := range map[string]process.ID{
		"none":    {},
		"no pid":  {PID: 1 << 30, Start: 1},
		"another": {PID: own.PID, Start: own.Start + 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Exec(t.Context(), Guest{Name: "demo", Leader: leader}, Options{Argv: []string{"true"}})
			var stopped *NotRunning
			if !errors.As(err, &stopped) || !strings.Contains(err.Error(), "devhost start demo") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestMultiplexer(t *testing.T) {
	for path, wantError := range map[string]bool{"/dev/null": true, "/proc/self/exe": true, "/dev/pts/ptmx": false} {
		t.Run(path, func(t *testing.T) {
			descriptor, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Skip(err)
			}
			defer unix.Close(descriptor)
			if err := checkMultiplexer(descriptor); (err != nil) != wantError {
				t.Errorf("error %v", err)
			}
		})
	}
}
