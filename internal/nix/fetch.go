package nix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"devhost/internal/execx"
	"devhost/internal/person"
)

// sourceName is the name of every fetched source in the store, so that the
// same content has the same store path however it came.
const sourceName = "source"

// fetchTimeout bounds the fetch of one source.
const fetchTimeout = 30 * time.Minute

// Tree is a source in the store.
type Tree struct {
	// StorePath is not yet kept from garbage collection: see Root.
	StorePath string
	// NarHash is in SRI form.
	NarHash string
	// Revision is the revision control system's, "" if there is none.
	Revision string
}

// FetchError says what Nix said when a source could not be fetched.
type FetchError struct {
	// Message is Nix' own text after "error: ".
	Message string
	Err     error
}

func (f *FetchError) Error() string { return f.Message }
func (f *FetchError) Unwrap() error { return f.Err }

// copyFolder is the expression behind CopyFolder. It reads the folder first,
// because builtins.path would take a file as well. Sockets and the like, which
// the store cannot hold, are left out.
const copyFolder = `{ path }:
let
  folder = /. + path;
  tree = builtins.path {
    path = folder;
    name = "source";
    filter = file: type: type != "unknown" && baseNameOf file != ".git";
  };
in builtins.seq (builtins.readDir folder) { path = "${tree}"; }`

// CopyFolder copies a folder into the store with the rights of the caller,
// without .git. path is absolute.
func (c *Client) CopyFolder(ctx context.Context, caller person.Person, path string) (Tree, error) {
	return c.fetchByEvaluation(ctx, caller, copyFolder, "path", path)
}

// fetchTree is the expression behind FetchTree.
const fetchTree = `{ input }:
let tree = builtins.fetchTree (builtins.fromJSON input);
in { path = "${tree}"; revision = tree.rev or tree.dirtyRev or ""; }`

// FetchTree fetches a flake's source by its attributes, as builtins.fetchTree
// takes them, with the rights and the network settings of the caller. Values
// are strings and booleans.
func (c *Client) FetchTree(ctx context.Context, caller person.Person, attributes map[string]any) (Tree, error) {
	input, err := json.Marshal(attributes)
	if err != nil {
		return Tree{}, err
	}
	return c.fetchByEvaluation(ctx, caller, fetchTree, "input", string(input))
}

func (c *Client) fetchByEvaluation(ctx context.Context, caller person.Person, expression, argument, value string) (Tree, error) {
	arguments := append([]string{
		"--eval", "--json", "--strict", "--read-write-mode",
		"--option", "restrict-eval", "false",
		// --update-channel means now, not an hour ago.
		"--option", "tarball-ttl", "0",
		"--argstr", argument, value, "-E", expression,
	}, features...)
	output, messages, err := c.asCaller(ctx, caller, "nix-instantiate", arguments, nil)
	if err != nil {
		return Tree{}, fetchFailure(ctx, err, messages)
	}
	var result struct{ Path, Revision string }
	if err := json.Unmarshal(output, &result); err != nil {
		return Tree{}, fmt.Errorf("cannot read what nix-instantiate printed: %w", err)
	}
	return c.tree(ctx, result.Path, result.Revision)
}

// FetchTarball downloads and unpacks a tarball with the rights and the network
// settings of the caller. An archive with a single folder at the top yields
// that folder.
func (c *Client) FetchTarball(ctx context.Context, caller person.Person, url string, progress func(Event)) (Tree, error) {
	parser := newLogParser(progress, nil)
	arguments := []string{"--unpack", "--name", sourceName, "--print-path", "--log-format", "internal-json", "-v", url}
	output, _, err := c.asCaller(ctx, caller, "nix-prefetch-url", arguments, parser.Line)
	if err != nil {
		return Tree{}, fetchFailure(ctx, err, strings.Join(parser.messages, "\n"))
	}
	fields := strings.Fields(string(output))
	if len(fields) != 2 {
		return Tree{}, fmt.Errorf("cannot read what nix-prefetch-url printed: %q", output)
	}
	return c.tree(ctx, fields[1], "")
}

func (c *Client) tree(ctx context.Context, path, revision string) (Tree, error) {
	if err := CheckStorePath(path); err != nil {
		return Tree{}, err
	}
	hash, err := c.NarHash(ctx, path)
	return Tree{StorePath: path, NarHash: hash, Revision: revision}, err
}

// asCaller runs a Nix program with the rights of the caller and their own
// caches and settings, and returns standard output and what it said.
func (c *Client) asCaller(ctx context.Context, caller person.Person, name string, arguments []string, line func(string)) (output []byte, messages string, err error) {
	command := c.command(name, arguments...)
	home, removeHome, err := homeFor(caller)
	if err != nil {
		return nil, "", err
	}
	defer removeHome()
	command.Env = c.environment(home)
	command.Timeout = fetchTimeout
	kept := &outputTail{}
	command.Stderr = kept
	if line != nil {
		command.Stderr = &execx.LineWriter{Line: line}
	}
	caller.Apply(&command)
	output, err = c.Runner.Output(ctx, command)
	return output, kept.String(), err
}

// homeFor is the caller's home folder, or a temporary one for those who have
// none: Nix keeps its caches there.
func homeFor(caller person.Person) (home string, remove func(), err error) {
	if info, err := os.Stat(caller.Home); err == nil && info.IsDir() {
		return caller.Home, func() {}, nil
	}
	folder, err := privateFolder(caller.UID, caller.GID)
	return folder, func() { _ = os.RemoveAll(folder) }, err
}

func fetchFailure(ctx context.Context, err error, messages string) error {
	var failure *execx.Error
	if !errors.As(err, &failure) || failure.NotFound || ctx.Err() != nil {
		return explain(err)
	}
	text, _ := parseEvalOutput(messages, nil)
	switch {
	case failure.TimedOut:
		text = fmt.Sprintf("it took longer than %s", fetchTimeout)
	case text == "":
		text = failure.Reason()
	}
	return &FetchError{Message: text, Err: err}
}

// HostSandboxPaths are the sandbox paths by which a builder sees this host's
// /usr, on hosts with merged and with split /usr.
func HostSandboxPaths() []string { return hostSandboxPaths("/") }

func hostSandboxPaths(root string) []string {
	paths := []string{"/usr"}
	for _, name := range []string{"bin", "lib", "lib32", "lib64", "sbin"} {
		info, err := os.Lstat(filepath.Join(root, name))
		switch {
		case err != nil:
		case info.IsDir():
			paths = append(paths, "/"+name)
		default:
			target, err := os.Readlink(filepath.Join(root, name))
			if err != nil {
				continue
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join("/", target)
			}
			paths = append(paths, "/"+name+"="+target)
		}
	}
	return paths
}
