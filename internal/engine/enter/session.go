package enter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SessionArgument is the first argument of this program when it is the part of
// Exec that runs inside of a container. main calls Session then, before
// anything else.
const SessionArgument = "internal-session"

// settings are what the host's side tells the session.
type settings struct {
	Argv []string `json:"argv"`
	User string   `json:"user"`
	Dir  string   `json:"dir"`
	Env  []string `json:"env"`
	TTY  bool     `json:"tty"`
	Term string   `json:"term"`
	// Bounding is the guest's capability bounding set.
	Bounding uint64 `json:"bounding"`
}

// message is what the session says: an empty one when it is there, another one
// when it is about to become the command, and one with an error when it cannot.
type message struct {
	Error  string `json:"error,omitempty"`
	Status int    `json:"status,omitempty"`
}

// refusal is why a session cannot become its command.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// Session runs inside of a container as its root: it sets up everything and
// becomes the command. It returns an exit status when it cannot.
func Session() int {
	// What belongs to a thread (capabilities, signal mask) must be that of the
	// thread that becomes the command.
	runtime.LockOSThread()
	status := os.NewFile(statusFD, "status")
	err := session(status)
	var refused *refusal
	if !errors.As(err, &refused) {
		refused = &refusal{status: statusCannotEnter, text: err.Error()}
	}
	_ = json.NewEncoder(status).Encode(message{Error: refused.text, Status: refused.status})
	return refused.status
}

func session(status *os.File) error {
	// Nothing but the three streams goes on to the command.
	if err := unix.CloseRange(firstInherited, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("cannot close descriptors: %w", err)
	}
	if err := json.NewEncoder(status).Encode(message{}); err != nil {
		return err
	}
	config := os.NewFile(configFD, "config")
	var wanted settings
	if err := json.NewDecoder(config).Decode(&wanted); err != nil {
		return fmt.Errorf("cannot read the settings: %w", err)
	}
	if err := ownSession(wanted.TTY); err != nil {
		return err
	}
	account, err := lookupUser(os.DirFS("/"), wanted.User)
	if err != nil {
		return err
	}
	if wanted.TTY {
		const ownerOnly = 0o620
		if err := errors.Join(unix.Fchown(0, account.uid, -1), unix.Fchmod(0, ownerOnly)); err != nil {
			return fmt.Errorf("cannot hand the terminal over: %w", err)
		}
	}
	if err := become(account, wanted.Bounding); err != nil {
		return err
	}
	if err := changeFolder(wanted.Dir, account.home); err != nil {
		return err
	}
	environment, err := sessionEnvironment(account, wanted)
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", valueOf(environment, "PATH")); err != nil {
		return err
	}
	program, argv, err := commandOf(account, wanted.Argv)
	if err != nil {
		return err
	}
	if err := keepLimits(); err != nil {
		return err
	}
	if err := resetSignals(); err != nil {
		return fmt.Errorf("cannot reset signals: %w", err)
	}
	// That it did become it cannot be seen: nsenter keeps this pipe open.
	if err := json.NewEncoder(status).Encode(message{}); err != nil {
		return err
	}
	err = syscall.Exec(program, argv, environment)
	return &refusal{status: statusNotExecutable, text: fmt.Sprintf("%s: %v", program, err)}
}

// ownSession leaves what the host's side was part of.
func ownSession(tty bool) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("cannot start a session: %w", err)
	}
	if tty {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return fmt.Errorf("cannot control the terminal: %w", err)
		}
	}
	// The host's keys stay outside. Some kernels and filters have no keyrings.
	// No name: an empty one is refused, which KeyctlJoinSessionKeyring has instead.
	_, _ = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	const usual = 0o022
	unix.Umask(usual)
	return nil
}

// become takes on an account, with no more capabilities than the guest has.
func become(account account, bounding uint64) error {
	for capability := uintptr(0); ; capability++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break
		}
		if err != nil {
			return fmt.Errorf("cannot read capabilities: %w", err)
		}
		if has == 1 && bounding&(1<<capability) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				return fmt.Errorf("cannot drop capability %d: %w", capability, err)
			}
		}
	}
	if err := syscall.Setgroups(account.groups); err != nil {
		return fmt.Errorf("cannot set groups: %w", err)
	}
	if err := syscall.Setresgid(account.gid, account.gid, account.gid); err != nil {
		return fmt.Errorf("cannot become group %d: %w", account.gid, err)
	}
	if err := syscall.Setresuid(account.uid, account.uid, account.uid); err != nil {
		return fmt.Errorf("cannot become user %d: %w", account.uid, err)
	}
	return nil
}

func changeFolder(wanted, home string) error {
	if wanted != "" {
		if err := os.Chdir(wanted); err != nil {
			return &refusal{status: statusNotExecutable, text: "no such working folder: " + err.Error()}
		}
		return nil
	}
	if os.Chdir(home) == nil {
		return nil
	}
	return os.Chdir("/")
}

// sessionEnvironment is all that the command sees, in the order of names.
func sessionEnvironment(account account, wanted settings) ([]string, error) {
	values := map[string]string{
		"HOME":    account.home,
		"USER":    account.name,
		"LOGNAME": account.name,
		"SHELL":   account.shell,
		"LANG":    "C.UTF-8",
		"PATH": strings.Join([]string{
			"/run/wrappers/bin",
			filepath.Join(account.home, ".nix-profile/bin"),
			filepath.Join("/etc/profiles/per-user", account.name, "bin"),
			"/nix/var/nix/profiles/default/bin",
			"/run/current-system/sw/bin",
			"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
		}, ":"),
	}
	if wanted.TTY {
		values["TERM"] = wanted.Term
		if wanted.Term == "" {
			values["TERM"] = "xterm"
		}
	}
	for _, setting := range wanted.Env {
		name, value, found := strings.Cut(setting, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("%q is not KEY=VALUE", setting)
		}
		values[name] = value
	}
	environment := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		environment = append(environment, name+"="+values[name])
	}
	return environment, nil
}

func valueOf(environment []string, name string) string {
	for _, setting := range environment {
		if value, found := strings.CutPrefix(setting, name+"="); found {
			return value
		}
	}
	return ""
}

// commandOf finds the program of a command as a shell does.
func commandOf(account account, argv []string) (program string, arguments []string, err error) {
	if len(argv) == 0 {
		// login(1): the dash makes it a login shell.
		return account.shell, []string{"-" + filepath.Base(account.shell)}, nil
	}
	program, err = exec.LookPath(argv[0])
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return program, argv, nil
	case errors.Is(err, fs.ErrPermission):
		return "", nil, &refusal{status: statusNotExecutable, text: argv[0] + ": permission denied"}
	default:
		return "", nil, &refusal{status: statusNotFound, text: argv[0] + ": command not found"}
	}
}

// keepLimits makes the Go runtime forget the limit of open files that it found
// at its start, and would restore: the host's side has set the guest's since.
func keepLimits() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// resetSignals gives every signal its default, and blocks none: what the host's
// shell ignored is not ignored inside.
func resetSignals() error {
	// struct sigaction of the kernel, all zero: SIG_DFL.
	var action struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	const signals = 64
	for signal := uintptr(1); signal <= signals; signal++ {
		if signal == uintptr(unix.SIGKILL) || signal == uintptr(unix.SIGSTOP) {
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
		if errno != 0 {
			return errno
		}
	}
	return unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil)
}
