package nix

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"devhost/internal/execx"
	"devhost/internal/process"
)

// DefaultSocket is where a Nix daemon listens.
const DefaultSocket = "/nix/var/nix/daemon-socket/socket"

// ConfigFile is the host's own configuration of Nix.
const ConfigFile = "/etc/nix/nix.conf"

// daemonStartTimeout is how long a daemon may take to answer.
const daemonStartTimeout = time.Minute

// daemonStopTimeout is how long a daemon may take to end before it is killed;
// tests shorten it.
var daemonStopTimeout = 10 * time.Second

// DaemonDown says that no daemon answers and none could be started.
type DaemonDown struct {
	Socket string
	// Log is what the daemon that was started has printed, or "".
	Log string
	Err error
}

func (d *DaemonDown) Error() string {
	text := fmt.Sprintf("no Nix daemon answers at %s: %v", d.Socket, d.Err)
	if d.Log != "" {
		text += "; its log is " + d.Log
	}
	return text + "; start one as root with: nix-daemon, or systemctl start nix-daemon.socket"
}

func (d *DaemonDown) Unwrap() error { return d.Err }

// NoBuildUsers says that builds would run as root.
type NoBuildUsers struct {
	// Group is the group that should hold the build users, "" if it is
	// configured to be empty.
	Group string
	// Reason says what is wrong with it.
	Reason string
}

func (n *NoBuildUsers) Error() string {
	return n.Reason + ": builders would be root on this host, sandbox or not; " + n.Remedy()
}

// Remedy is what to do about it: commands, the longer ones on lines of their
// own.
func (n *NoBuildUsers) Remedy() string {
	if n.Group == "" {
		return "remove the line from " + ConfigFile + ", restart the Nix daemon, and see that the build users exist:\n" + buildUserCommands("nixbld")
	}
	return "make the build users with:\n" + buildUserCommands(n.Group)
}

func buildUserCommands(group string) string {
	return fmt.Sprintf(`  groupadd --system %[1]s
  for i in $(seq 1 8); do useradd --system --no-create-home --home-dir /var/empty --shell /usr/sbin/nologin --gid %[1]s --groups %[1]s --comment "Nix build user $i" %[1]s$i; done`, group)
}

// CheckBuildUsers refuses a host on which builders would run as root: the
// error is *NoBuildUsers.
func (c *Client) CheckBuildUsers(ctx context.Context) error {
	settings, err := ReadSettings("/")
	if err != nil {
		return err
	}
	_, err = FindBuildUsers(ctx, c.Runner, "/", settings)
	return err
}

// BuildUsers are the users of a host that builders run as.
type BuildUsers struct {
	// Allocated says that Nix takes unused ids as it needs them, from FirstUID
	// to LastUID; then there need not be a group.
	Allocated         bool
	FirstUID, LastUID uint32
	// Group is the group that builders run as, GID its number; "" for none.
	Group string
	GID   uint32
	// Members is how many users are in the group, at least one.
	Members int
}

// The ids that are allocated unless nix.conf(5) says otherwise, see start-id and
// id-count there.
const (
	allocatedFirst = 872415232
	allocatedCount = 8388608
)

// FindBuildUsers finds the build users by the host's settings, and those of
// the group by root/etc/group and getent(1). The error is *NoBuildUsers where
// there are none.
func FindBuildUsers(ctx context.Context, runner execx.Runner, root string, settings map[string]string) (BuildUsers, error) {
	users, err := findBuildGroup(ctx, runner, root, settings)
	if settings["auto-allocate-uids"] != "true" {
		return users, err
	}
	var none *NoBuildUsers
	if err != nil && !errors.As(err, &none) {
		return BuildUsers{}, err
	}
	first, last, err := allocatedUsers(settings)
	if err != nil {
		return BuildUsers{}, err
	}
	users.Allocated, users.FirstUID, users.LastUID = true, first, last
	return users, nil
}

// allocatedUsers are the ids that Nix gives to builders where it allocates them.
func allocatedUsers(settings map[string]string) (first, last uint32, err error) {
	number := func(key string, usual uint64) (uint64, error) {
		text, set := settings[key]
		if !set {
			return usual, nil
		}
		value, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s = %s in %s is no number of users", key, text, ConfigFile)
		}
		return value, nil
	}
	start, err := number("start-id", allocatedFirst)
	if err != nil {
		return 0, 0, err
	}
	count, err := number("id-count", allocatedCount)
	if err != nil {
		return 0, 0, err
	}
	end := start + max(count, 1) - 1
	if start == 0 || end >= 1<<32 {
		return 0, 0, fmt.Errorf("start-id and id-count in %s give ids from %d to %d, which cannot be those of builders", ConfigFile, start, end)
	}
	return uint32(start), uint32(end), nil
}

// findBuildGroup is FindBuildUsers for a group.
func findBuildGroup(ctx context.Context, runner execx.Runner, root string, settings map[string]string) (BuildUsers, error) {
	group, set := settings["build-users-group"]
	if !set {
		group = "nixbld"
	}
	if group == "" {
		return BuildUsers{}, &NoBuildUsers{Reason: "build-users-group is empty in " + ConfigFile}
	}
	data, err := os.ReadFile(filepath.Join(root, "/etc/group"))
	if err != nil {
		return BuildUsers{}, fmt.Errorf("cannot read the groups of this host: %w", err)
	}
	gid, members, found := groupMembers(data, group)
	if !found {
		// The group may come from a directory service.
		output, err := runner.Output(ctx, execx.Command{Name: "getent", Args: []string{"group", group}, Timeout: 10 * time.Second})
		var failure *execx.Error
		if err != nil && !errors.As(err, &failure) {
			return BuildUsers{}, err
		}
		gid, members, found = groupMembers(output, group)
	}
	switch {
	case !found:
		return BuildUsers{}, &NoBuildUsers{Group: group, Reason: "there is no group " + group}
	case members == 0:
		return BuildUsers{}, &NoBuildUsers{Group: group, Reason: "the group " + group + " has no members"}
	}
	return BuildUsers{Group: group, GID: gid, Members: members}, nil
}

// groupMembers finds a group in the format of group(5): its number and how many
// members it has.
func groupMembers(data []byte, group string) (gid uint32, members int, found bool) {
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		fields := strings.Split(scanner.Text(), ":")
		if len(fields) != 4 || fields[0] != group {
			continue
		}
		if number, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			return uint32(number), len(strings.FieldsFunc(fields[3], func(r rune) bool { return r == ',' })), true
		}
	}
	return 0, 0, false
}

// ReadSettings reads the settings of root/etc/nix/nix.conf, and of what it
// includes below root. A missing file has no settings.
func ReadSettings(root string) (map[string]string, error) {
	return readConfig(ConfigFile, func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(root, path)) })
}

// readConfig reads the settings of a nix.conf(5), following include lines. A
// missing file has no settings.
func readConfig(path string, readFile func(string) ([]byte, error)) (map[string]string, error) {
	settings := map[string]string{}
	if _, err := readFile(path); errors.Is(err, fs.ErrNotExist) {
		return settings, nil
	}
	return settings, readConfigInto(settings, path, readFile, 0)
}

func readConfigInto(settings map[string]string, path string, readFile func(string) ([]byte, error), depth int) error {
	const deepest = 10
	data, err := readFile(path)
	if err != nil || depth > deepest {
		return err
	}
	for _, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && (fields[0] == "include" || fields[0] == "!include"):
			included := fields[1]
			if !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(path), included)
			}
			err := readConfigInto(settings, included, readFile, depth+1)
			if err != nil && fields[0] == "include" {
				return fmt.Errorf("cannot read what %s includes: %w", path, err)
			}
		case len(fields) >= 2 && fields[1] == "=":
			settings[fields[0]] = strings.Join(fields[2:], " ")
		}
	}
	return nil
}

func (c *Client) socket() string { return orDefault(c.Socket, DefaultSocket) }

// Answers says whether a daemon listens at a socket.
func Answers(ctx context.Context, socket string) error {
	dialer := net.Dialer{Timeout: time.Second}
	connection, err := dialer.DialContext(ctx, "unix", socket)
	if errors.Is(err, syscall.EAGAIN) {
		// Five wait already, which is all that Nix' daemon lets wait; programs of
		// Nix queue behind them. A second daemon would take the socket from
		// under all of them.
		return nil
	}
	if err != nil {
		return err
	}
	return connection.Close()
}

// daemonRecord says which daemon we started.
type daemonRecord struct {
	Version int `json:"version"`
	process.ID
}

func daemonRecordPath(runtimeDir string) string { return filepath.Join(runtimeDir, "nix-daemon.json") }
func daemonLogPath(runtimeDir string) string    { return filepath.Join(runtimeDir, "nix-daemon.log") }

// EnsureDaemon sees to it that a Nix daemon answers, and that it builds as
// build users. Where none answers it starts one that outlives us, and records
// its pid in runtimeDir for StopDaemon. The error is *NoBuildUsers,
// *NotInstalled or *DaemonDown.
//
// The settings of /etc/nix/nix.conf hold for a daemon that is started here,
// but for sandbox = true and sandbox-fallback = false. Its substituters are
// left alone, except that there are none if DEVHOST_OFFLINE=1 is set, or if
// there is no nix.conf and cache.nixos.org does not resolve within a second:
// else each build would wait for a cache that is out of reach. Then only
// channels/offline can be built, and builders see the host's /usr: a container
// of that channel cannot ask for it when it builds its own system.
func (c *Client) EnsureDaemon(ctx context.Context, runtimeDir string) error {
	if err := c.CheckBuildUsers(ctx); err != nil {
		return err
	}
	if Answers(ctx, c.socket()) == nil {
		return nil
	}
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return fmt.Errorf("cannot make the runtime folder: %w", err)
	}
	unlock, err := lockDaemon(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if Answers(ctx, c.socket()) == nil {
		return nil
	}
	return c.startDaemon(ctx, runtimeDir)
}

func (c *Client) startDaemon(ctx context.Context, runtimeDir string) error {
	logPath := daemonLogPath(runtimeDir)
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write the log of the Nix daemon: %w", err)
	}
	defer log.Close()
	daemon, err := c.Runner.Start(execx.Command{
		Name: program("nix-daemon"), Env: daemonEnvironment(c.socket(), offline(ctx)), Dir: "/",
		Stdout: log, Stderr: log,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return explain(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	id, err := process.Of(daemon.Pid())
	if err == nil {
		err = writeDaemonRecord(runtimeDir, daemonRecord{Version: 1, ID: id})
	}
	if err == nil {
		err = c.awaitDaemon(ctx, ended)
	}
	if err != nil {
		_ = daemon.Signal(syscall.SIGKILL)
		_ = os.Remove(daemonRecordPath(runtimeDir))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &DaemonDown{Socket: c.socket(), Log: logPath, Err: err}
	}
	c.Logger.Info("started a Nix daemon", "pid", daemon.Pid())
	return nil
}

func (c *Client) awaitDaemon(ctx context.Context, ended <-chan error) error {
	const poll = 20 * time.Millisecond
	waiting, cancel := context.WithTimeout(ctx, daemonStartTimeout)
	defer cancel()
	for {
		err := Answers(waiting, c.socket())
		if err == nil {
			return nil
		}
		select {
		case endErr := <-ended:
			return errors.Join(errors.New("it ended at once"), endErr)
		case <-waiting.Done():
			return fmt.Errorf("it did not answer within %s: %w", daemonStartTimeout, err)
		case <-time.After(poll):
		}
	}
}

// daemonEnvironment is the environment of a daemon that is started here, to
// listen at a socket.
// NIX_REMOTE must not be in it: such a daemon would connect to itself, without
// end (tried with 2.26).
func daemonEnvironment(socket string, offline bool) []string {
	config := "sandbox = true\nsandbox-fallback = false\n"
	if offline {
		config += "substituters =\nsandbox-paths = " + strings.Join(HostSandboxPaths(), " ") + "\n"
	}
	result := []string{"HOME=/root", "USER=root", "LANG=C.UTF-8", "NIX_DAEMON_SOCKET_PATH=" + socket, "NIX_CONFIG=" + config}
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			result = append(result, name+"="+value)
		}
	}
	return result
}

// offline says whether a binary cache is out of reach. EnsureDaemon documents
// the rule.
func offline(ctx context.Context) bool {
	if os.Getenv("DEVHOST_OFFLINE") == "1" {
		return true
	}
	if _, err := os.Stat(ConfigFile); err == nil {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := net.DefaultResolver.LookupHost(waiting, "cache.nixos.org")
	return err != nil
}

// StopDaemon ends the daemon that EnsureDaemon started with this runtimeDir,
// if there is one, and removes its record and log. A daemon that
// somebody else started is left alone.
func (c *Client) StopDaemon(ctx context.Context, runtimeDir string) error {
	if _, err := os.Stat(runtimeDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockDaemon(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	data, err := os.ReadFile(daemonRecordPath(runtimeDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read which Nix daemon to stop: %w", err)
	}
	var record daemonRecord
	if err == nil && json.Unmarshal(data, &record) == nil {
		if err := stopDaemon(ctx, record.ID); err != nil {
			return err
		}
	}
	for _, path := range []string{daemonRecordPath(runtimeDir), daemonLogPath(runtimeDir)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove what the Nix daemon left: %w", err)
		}
	}
	return nil
}

// stopDaemon terminates, then kills, the recorded process and waits for its
// end.
func stopDaemon(ctx context.Context, daemon process.ID) error {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		err := daemon.Signal(signal)
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot stop the Nix daemon: %w", err)
		}
		waiting, cancel := context.WithTimeout(ctx, daemonStopTimeout)
		err = daemon.Wait(waiting)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("cannot stop the Nix daemon: %w", err)
		}
	}
	return fmt.Errorf("the Nix daemon (pid %d) does not end, not even when killed", daemon.PID)
}

func writeDaemonRecord(runtimeDir string, record daemonRecord) error {
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return renameio.WriteFile(daemonRecordPath(runtimeDir), append(data, '\n'), 0o600)
}

// daemonLock is one lock for all instances of devhost on this host: the daemon
// is one, too. Tests of one daemon have one of their own.
var daemonLock = "/run/devhost-nix-daemon.lock"

// lockDaemon keeps two processes from starting two daemons. Who holds the lock
// removes its file at the end, so what was locked must still be what is there.
func lockDaemon(ctx context.Context) (func(), error) {
	for {
		file, err := os.OpenFile(daemonLock, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot lock the start of the Nix daemon: %w", err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			held, heldErr := file.Stat()
			there, thereErr := os.Lstat(daemonLock)
			if heldErr == nil && thereErr == nil && os.SameFile(held, there) {
				return func() {
					_ = os.Remove(daemonLock)
					_ = file.Close()
				}, nil
			}
		} else if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", daemonLock, err), file.Close())
		}
		_ = file.Close()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
