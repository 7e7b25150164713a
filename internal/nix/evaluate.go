package nix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"devhost/internal/execx"
)

// EvaluationUser is the user that evaluates where it exists; "nobody" does it
// elsewhere.
const EvaluationUser = "devhost-eval"

// What an evaluation may take unless the request says otherwise.
const (
	DefaultEvalTimeout = 10 * time.Minute
	DefaultEvalMemory  = int64(8) << 30
)

// evalGrace is short: Nix looks for interrupts rarely while it computes, and an
// evaluation has nothing to lose.
const evalGrace = 2 * time.Second

// SearchEntry is one -I option: <Name/...> is found below Path. With an empty
// Name every entry of the folder Path is found by its own name. In a
// restricted evaluation these paths are all that may be read.
type SearchEntry struct{ Name, Path string }

func (s SearchEntry) String() string {
	if s.Name == "" {
		return s.Path
	}
	return s.Name + "=" + s.Path
}

// PathName says how a person knows a store path, for error messages.
type PathName struct{ Path, Name string }

// EvalRequest is one expression that yields a derivation.
type EvalRequest struct {
	Expression string
	SearchPath []SearchEntry
	// AllowedURIs are URI prefixes that the evaluation may fetch from.
	AllowedURIs []string
	// Timeout and Memory (bytes of address space) bound the evaluation;
	// DefaultEvalTimeout and DefaultEvalMemory if zero.
	Timeout time.Duration
	Memory  int64
	// Log is a file that receives all that Nix says, with the full trace;
	// nothing is kept if empty.
	Log string
	// Names are used in place of store paths in error messages. Positions in
	// these paths are preferred: they are in the person's own files.
	Names []PathName
}

// Evaluation is a derivation, kept from being garbage collected until Close.
type Evaluation struct {
	// DrvPath is the store path of the derivation.
	DrvPath string
	folder  string
}

// Close lets the derivation be garbage collected.
func (e *Evaluation) Close() error { return os.RemoveAll(e.folder) }

// Evaluate evaluates an expression as an unprivileged user, through the
// daemon, in restricted mode: no file of the host outside of the search path
// can be read and nothing fetched but from AllowedURIs. The error is
// *EvalError, *NotInstalled, or one of this host.
func (c *Client) Evaluate(ctx context.Context, request EvalRequest) (*Evaluation, error) {
	uid, gid, err := evaluationUser()
	if err != nil {
		return nil, err
	}
	folder, err := privateFolder(uid, gid)
	if err != nil {
		return nil, err
	}
	evaluation := &Evaluation{folder: folder}
	if err := c.evaluate(ctx, request, uid, gid, evaluation); err != nil {
		_ = evaluation.Close()
		return nil, err
	}
	return evaluation, nil
}

func (c *Client) evaluate(ctx context.Context, request EvalRequest, uid, gid uint32, evaluation *Evaluation) error {
	output, closeLog, err := logFile(request.Log)
	if err != nil {
		return err
	}
	root := filepath.Join(evaluation.folder, "drv")
	command := execx.Command{
		Name: "prlimit", Args: evalArguments(program("nix-instantiate"), root, request),
		Env: c.environment(evaluation.folder, "XDG_CACHE_HOME="+filepath.Join(evaluation.folder, "cache"), "TMPDIR="+evaluation.folder),
		Dir: evaluation.folder, Timeout: orDefault(request.Timeout, DefaultEvalTimeout), Grace: evalGrace, Stderr: output,
	}
	if os.Geteuid() == 0 {
		command.Credential = &execx.Credential{UID: uid, GID: gid}
	}
	start := time.Now()
	err = c.Runner.Run(ctx, command)
	if closeErr := closeLog(); err == nil && closeErr != nil {
		return fmt.Errorf("cannot write %s: %w", request.Log, closeErr)
	}
	if err != nil {
		return evalFailure(ctx, err, output.String(), request)
	}
	evaluation.DrvPath, err = os.Readlink(root)
	if err != nil {
		return fmt.Errorf("nix-instantiate ended well and yet left no derivation: %w", err)
	}
	if err := CheckStorePath(evaluation.DrvPath); err != nil {
		return err
	}
	c.Logger.Debug("evaluated", "derivation", evaluation.DrvPath, "took", time.Since(start))
	return nil
}

// evalArguments are the arguments of prlimit(1), which bounds the memory.
func evalArguments(instantiate, root string, request EvalRequest) []string {
	arguments := []string{
		"--as=" + strconv.FormatInt(orDefault(request.Memory, DefaultEvalMemory), 10), "--",
		instantiate,
		"--option", "restrict-eval", "true",
		// Restricted mode is what bounds us; pure mode would also refuse the
		// search path and currentSystem, which channels use.
		"--option", "pure-eval", "false",
		"--option", "allowed-uris", strings.Join(request.AllowedURIs, " "),
		"--option", "allow-unsafe-native-code-during-evaluation", "false",
		"--option", "accept-flake-config", "false",
		"--show-trace",
		"--add-root", root,
	}
	for _, entry := range request.SearchPath {
		arguments = append(arguments, "-I", entry.String())
	}
	return append(arguments, "-E", request.Expression)
}

// evaluationUser is who evaluates: never root.
func evaluationUser() (uid, gid uint32, err error) {
	for _, name := range []string{EvaluationUser, "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return uint32(uid), uint32(gid), nil
		}
	}
	return 0, 0, fmt.Errorf("there is neither a user %s nor nobody to evaluate as; make one with: useradd --system --shell /usr/sbin/nologin %[1]s", EvaluationUser)
}

// privateFolder makes a folder that only the evaluating user can enter.
func privateFolder(uid, gid uint32) (string, error) {
	// Not TMPDIR: that of root may be closed to everybody else.
	folder, err := os.MkdirTemp("/tmp", "devhost-eval-")
	if err != nil {
		return "", fmt.Errorf("cannot make a folder for the evaluation: %w", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(folder, int(uid), int(gid)); err != nil {
			return "", errors.Join(err, os.Remove(folder))
		}
	}
	return folder, nil
}

// keptOutput is how much of a process' messages is kept for its error, bytes.
const keptOutput = 1 << 20

// outputTail keeps the last part of what is written, and copies all of it to
// a file.
type outputTail struct {
	file *os.File
	kept []byte
}

func (o *outputTail) Write(data []byte) (int, error) {
	o.kept = append(o.kept, data...)
	if excess := len(o.kept) - keptOutput; excess > 0 {
		o.kept = append(o.kept[:0], o.kept[excess:]...)
	}
	if o.file != nil {
		return o.file.Write(data)
	}
	return len(data), nil
}

func (o *outputTail) String() string { return string(o.kept) }

// logFile opens a log for writing, root's alone: evaluation texts may quote
// the provision. An empty path gives an outputTail without a file.
func logFile(path string) (*outputTail, func() error, error) {
	if path == "" {
		return &outputTail{}, func() error { return nil }, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the folder of the log: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write the log: %w", err)
	}
	return &outputTail{file: file}, file.Close, nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
