// Package nix runs Nix: restricted evaluation, builds by the daemon, store
// paths, closures and profiles. It works with Nix 2.8 and later and uses the
// stable commands (nix-instantiate, nix-store, nix-env), never the state of
// the person who calls.
package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/nix-community/go-nix/pkg/storepath"

	"devhost/internal/execx"
)

// StoreDir is the only store folder that devhost works with: binaries of a
// cache fit no other.
const StoreDir = storepath.StoreDir

// Client runs Nix commands against the daemon.
type Client struct {
	Runner execx.Runner
	Logger hclog.Logger
	// Socket is where the daemon listens that is used, and started where it
	// does not run; DefaultSocket if empty.
	Socket string
}

// New returns a Client. A nil logger logs nothing.
func New(runner execx.Runner, logger hclog.Logger) *Client {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Client{Runner: runner, Logger: logger.Named("nix")}
}

// features turns on what the `nix` command and fetchTree need. The stable
// commands accept and mostly ignore it.
var features = []string{"--option", "extra-experimental-features", "nix-command flakes"}

// programDirs are where Nix is found when it is not on PATH: sudo often drops
// the folder of a multi-user installation.
var programDirs = []string{"/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin"}

// program is the name to start a Nix program by.
func program(name string) string {
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	for _, folder := range programDirs {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return name
}

// StoreFolder is the folder of this host's Nix programs where that lies in the
// store, and "" elsewhere.
func StoreFolder() string {
	path, err := exec.LookPath(program("nix-build"))
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil || !strings.HasPrefix(path, StoreDir+"/") {
		return ""
	}
	return filepath.Dir(path)
}

// passedOn are the variables that Nix needs to reach the network as this
// process does.
var passedOn = []string{
	"PATH", "NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "CURL_CA_BUNDLE",
	"http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
}

// environment is the whole environment of a Nix process. NIX_PATH, NIX_CONFIG
// and the like are left out on purpose: what is built must depend on the
// request alone, and NIX_CONFIG could turn the sandbox off.
func (c *Client) environment(home string, more ...string) []string {
	result := []string{"HOME=" + home, "LANG=C.UTF-8", "NIX_REMOTE=" + c.Remote()}
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			result = append(result, name+"="+value)
		}
	}
	return append(result, more...)
}

// Remote is the value of NIX_REMOTE by which programs of Nix use the same
// daemon.
func (c *Client) Remote() string {
	if c.Socket == "" {
		return "daemon"
	}
	return "unix://" + c.Socket
}

// ClientEnvironment is the environment of a Nix program that is not started
// here, as a client of the daemon: all but PATH.
func ClientEnvironment(home string) []string {
	return slices.DeleteFunc(new(Client).environment(home), func(variable string) bool { return strings.HasPrefix(variable, "PATH=") })
}

// command is a Nix program run as ourselves, against the daemon.
func (c *Client) command(name string, args ...string) execx.Command {
	return execx.Command{Name: program(name), Args: args, Env: c.environment("/root"), Dir: "/"}
}

// NotInstalled says that there is no Nix on this host.
type NotInstalled struct{ Err error }

func (n *NotInstalled) Error() string {
	return "Nix is not installed (" + n.Err.Error() + "); install it with: apt-get install nix-bin, or see https://nixos.org/download"
}

func (n *NotInstalled) Unwrap() error { return n.Err }

// explain turns a missing program into an error that says what to install.
func explain(err error) error {
	var failure *execx.Error
	if errors.As(err, &failure) && failure.NotFound {
		return &NotInstalled{Err: err}
	}
	return err
}

// Version is a version of Nix.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// AtLeast says whether v is the given version or newer.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || (v.Major == major && v.Minor >= minor)
}

// Version asks the installed Nix for its version. It needs no daemon.
func (c *Client) Version(ctx context.Context) (Version, error) {
	output, err := c.Runner.Output(ctx, c.command("nix-store", "--version"))
	if err != nil {
		return Version{}, explain(err)
	}
	return parseVersion(string(output))
}

// parseVersion reads "nix-store (Nix) 2.8.0", "nix (Nix) 2.34.0pre20260101_abc"
// and the like.
func parseVersion(output string) (Version, error) {
	fields := strings.Fields(output)
	if len(fields) > 0 {
		parts := strings.SplitN(fields[len(fields)-1], ".", 3)
		if len(parts) > 1 {
			digits := len(parts[1])
			if i := strings.IndexFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
				digits = i
			}
			major, majorErr := strconv.Atoi(parts[0])
			minor, minorErr := strconv.Atoi(parts[1][:digits])
			if majorErr == nil && minorErr == nil {
				return Version{major, minor}, nil
			}
		}
	}
	return Version{}, fmt.Errorf("cannot read a version from %q, which nix-store --version printed", strings.TrimSpace(output))
}

// BadStorePath says that something is not the path of a store object.
type BadStorePath struct {
	Path string
	Err  error
}

func (b *BadStorePath) Error() string {
	return fmt.Sprintf("%q is not the path of an object in %s: %v", b.Path, StoreDir, b.Err)
}

func (b *BadStorePath) Unwrap() error { return b.Err }

// CheckStorePath refuses anything but the absolute path of a store object
// itself (nothing below it). It does not look at the disk.
func CheckStorePath(path string) error {
	if _, err := storepath.FromAbsolutePath(path); err != nil {
		return &BadStorePath{Path: path, Err: err}
	}
	return nil
}

// Root registers a garbage collector root: path is a symbolic link, made or
// replaced here, that keeps target. A target that has just been collected is an
// error. No process is started for a target that is there, unless a garbage
// collector runs.
func (c *Client) Root(ctx context.Context, path, target string) error {
	if err := CheckStorePath(target); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for garbage collector roots: %w", err)
	}
	if rootWhileNobodyCollects(path, target) {
		return nil
	}
	err := c.Runner.Run(ctx, c.command("nix-store", "--option", "substitute", "false", "--realise", target, "--add-root", path))
	if err != nil {
		return fmt.Errorf("cannot keep %s from being garbage collected: %w", target, explain(err))
	}
	return nil
}

// AddPath copies a file or folder into the store and returns its store path.
// What is a symbolic link stays one. An unchanged path costs one hash of its
// content and no copy.
func (c *Client) AddPath(ctx context.Context, path, name string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	arguments := []string{"--add", path}
	run := "nix-store"
	if filepath.Base(path) != name {
		run, arguments = "nix", append([]string{"store", "add-path", "--name", name, path}, features...)
	}
	output, err := c.Runner.Output(ctx, c.command(run, arguments...))
	if err != nil {
		return "", fmt.Errorf("cannot copy %s to the store: %w", path, explain(err))
	}
	result := strings.TrimSpace(string(output))
	return result, CheckStorePath(result)
}

// NarHash is the SRI hash of a valid path's NAR.
func (c *Client) NarHash(ctx context.Context, path string) (string, error) {
	output, err := c.Runner.Output(ctx, c.command("nix-store", "--query", "--hash", path))
	if err != nil {
		return "", fmt.Errorf("cannot read the hash of %s: %w", path, explain(err))
	}
	return SRI(strings.TrimSpace(string(output)))
}
