package channel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"devhost/internal/execx"
	"devhost/internal/nix"
	"devhost/internal/person"
	"devhost/internal/registry"
)

// Error says why a channel cannot be used, and what to do.
type Error struct {
	// Reference is the channel as the person named it.
	Reference string
	Reason    string
	// Next is what to do about it.
	Next string
	Err  error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("channel %s: %s", e.Reference, e.Reason)
	if e.Next != "" {
		text += "; " + e.Next
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Resolver turns references into pins.
type Resolver struct {
	Nix *nix.Client
	// HTTP follows the redirects of a tarball's URL; http.DefaultClient if nil.
	HTTP   *http.Client
	Logger hclog.Logger
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// ResolveOptions say on whose behalf and how to resolve.
type ResolveOptions struct {
	// Caller is the person who named the channel: it is read with their rights.
	Caller person.Person
	// Old is the pin that the channel had, or nil. An unchanged folder keeps
	// it, and then no process is started.
	Old *registry.Pin
	// GCRoot is a symbolic link that is made to the source in the store, so
	// that it is not garbage collected. Required.
	GCRoot string
	// Progress receives the progress of a download; may be nil.
	Progress func(nix.Event)
}

// Resolve looks at a channel and copies its source to the store. The error is
// *Error, *nix.NotInstalled, or one of this host; the old pin stays good then.
func (r *Resolver) Resolve(ctx context.Context, reference Reference, options ResolveOptions) (registry.Pin, error) {
	pin := registry.Pin{Reference: reference.Text, Kind: string(reference.Kind)}
	var fetch func(context.Context) (nix.Tree, error)
	switch reference.Kind {
	case Folder:
		fingerprint, err := FingerprintFor(ctx, options.Caller, reference.Folder)
		if ctx.Err() != nil {
			return pin, ctx.Err()
		}
		if err != nil {
			return pin, folderError(reference, err)
		}
		if old := options.Old; old != nil && old.Kind == string(Folder) && old.Reference == reference.Text && old.Fingerprint == fingerprint && rooted(options.GCRoot, old.StorePath) {
			return *old, nil
		}
		pin.Fingerprint = fingerprint
		pin.Revision = r.gitRevision(ctx, options.Caller, reference.Folder)
		fetch = func(ctx context.Context) (nix.Tree, error) {
			return r.Nix.CopyFolder(ctx, options.Caller, reference.Folder)
		}
	case Tarball:
		final, err := r.finalURL(ctx, reference)
		if err != nil {
			return pin, err
		}
		pin.URL = recordedURL(reference.URL, final)
		fetch = func(ctx context.Context) (nix.Tree, error) {
			return r.Nix.FetchTarball(ctx, options.Caller, final, options.Progress)
		}
	default:
		if err := ambiguous(ctx, options.Caller, reference); err != nil {
			return pin, err
		}
		fetch = func(ctx context.Context) (nix.Tree, error) {
			return r.Nix.FetchTree(ctx, options.Caller, reference.Flake)
		}
	}
	tree, err := r.fetchAndKeep(ctx, options.GCRoot, fetch)
	if err != nil {
		return pin, fetchError(reference, err)
	}
	if _, err := ShapeOf(tree.StorePath); err != nil {
		return pin, &Error{Reference: reference.Text, Reason: err.Error(), Next: "name a folder, archive or repository of NixOS", Err: err}
	}
	pin.StorePath, pin.NarHash = tree.StorePath, tree.NarHash
	if tree.Revision != "" {
		pin.Revision = tree.Revision
	}
	if reference.Kind == Flake {
		pin.URL = reference.locked(tree.Revision)
	}
	pin.Time = r.now().UTC()
	return pin, nil
}

func (r *Resolver) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// fetchAndKeep fetches a source and makes its garbage collector root. The
// collector can come between the two; then the source is fetched once more.
func (r *Resolver) fetchAndKeep(ctx context.Context, root string, fetch func(context.Context) (nix.Tree, error)) (nix.Tree, error) {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		tree, err := fetch(ctx)
		if err != nil {
			return tree, err
		}
		err = r.Nix.Root(ctx, root, tree.StorePath)
		if err == nil || attempt == attempts || ctx.Err() != nil {
			return tree, err
		}
	}
}

// rooted says whether a garbage collector root keeps a store path that is
// there. It starts no process.
func rooted(root, storePath string) bool {
	target, err := os.Readlink(root)
	if err != nil || target != storePath {
		return false
	}
	_, err = os.Lstat(storePath)
	return err == nil
}

// ownRights is what to do about a source that the caller may not read.
const ownRights = "it is read with your own rights, not with root's: give yourself the right to read all of it"

func folderError(reference Reference, err error) error {
	result := &Error{Reference: reference.Text, Err: err}
	switch {
	case errors.Is(err, os.ErrNotExist) && goneFrom(reference.Folder, err):
		result.Reason, result.Next = "it changes while it is read ("+err.Error()+")", "try again when nothing writes into it"
	case errors.Is(err, os.ErrNotExist):
		result.Reason, result.Next = "there is no such folder", "check the path; a flake or an archive needs its scheme (github:..., https://...)"
	case errors.Is(err, syscall.ENOTDIR):
		result.Reason, result.Next = "it is a file, not a folder", "name the folder that holds nixos/default.nix"
		for _, suffix := range archiveSuffixes {
			if strings.HasSuffix(reference.Folder, suffix) {
				result.Next = "name an archive by its URL: file://" + (&url.URL{Path: reference.Folder}).EscapedPath()
			}
		}
	case errors.Is(err, os.ErrPermission):
		result.Reason, result.Next = "it cannot be read", ownRights
	default:
		result.Reason, result.Next = err.Error(), "name a folder that holds only the channel"
	}
	return result
}

// goneFrom says whether an error is about a file of a folder, not about the
// folder.
func goneFrom(folder string, err error) bool {
	var failure *os.PathError
	return errors.As(err, &failure) && failure.Path != folder
}

// folderCause is what Nix said about the folder itself as an error of the
// system, or nil: Nix also misses its own files, such as the daemon's socket.
func folderCause(message, folder string) error {
	if !strings.Contains(message, "'"+folder+"'") {
		return nil
	}
	message = strings.ToLower(message)
	switch {
	case strings.Contains(message, "no such file or directory"), strings.Contains(message, "does not exist"):
		return os.ErrNotExist
	case strings.Contains(message, "not a directory"):
		return syscall.ENOTDIR
	}
	return nil
}

// statTimeout is how long a file system may take to say what a path is.
const statTimeout = 10 * time.Second

// statFor looks at a path with the rights of the caller.
func statFor(ctx context.Context, caller person.Person, path string) (fs.FileInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, statTimeout)
	defer cancel()
	var info fs.FileInfo
	err := caller.DoBounded(ctx, func() (err error) {
		info, err = os.Stat(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

// ambiguous refuses a registry name that could be meant as a folder.
func ambiguous(ctx context.Context, caller person.Person, reference Reference) error {
	if !reference.bare {
		return nil
	}
	if info, err := statFor(ctx, caller, reference.Text); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil || !info.IsDir() {
		return nil
	}
	return &Error{
		Reference: reference.Text, Reason: "it can be a folder here or a name in the flake registry",
		Next: fmt.Sprintf("write ./%s for the folder, or flake:%[1]s for the registry's", reference.Text),
	}
}

// fetchError says in our words what Nix said about a source.
func fetchError(reference Reference, err error) error {
	var failure *nix.FetchError
	if !errors.As(err, &failure) {
		return err
	}
	if reference.Kind == Folder {
		if cause := folderCause(failure.Message, reference.Folder); cause != nil {
			return folderError(reference, cause)
		}
	}
	result := &Error{Reference: reference.Text, Reason: failure.Message, Next: "check the reference and try again", Err: err}
	message := strings.ToLower(failure.Message)
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(message, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("permission denied"):
		result.Next = ownRights
	case has("couldn't open file", "read a file:// file"):
		result.Reason, result.Next = "there is no such file, or you may not read it", "check the path and your rights"
	case has("http error 404", "error: 404", "returned error: 404"):
		result.Reason, result.Next = "there is nothing at this address (HTTP 404)", "check the spelling, and whether the branch or release still exists"
	case has("http error 401", "http error 403"):
		result.Next = "if it is private, put access-tokens or netrc-file into nix.conf"
	case has("cannot find flake"):
		result.Next = "nix registry list shows the names that exist; or write the reference with its scheme, as github:OWNER/REPOSITORY"
	case has("archive", "lzma", "truncated", "unexpected end", "compress"):
		result.Reason, result.Next = "the archive is truncated or broken ("+failure.Message+")", "download it again, or check it with: tar -tf FILE"
	case has("resolve host", "connect to server", "timed out", "could not connect", "connection"):
		result.Next = "check the network; a container that exists keeps its pin and needs no network without --update-channel"
	}
	return result
}

// finalURL follows the redirects of a tarball's URL, as those of NixOS'
// channels, which lead to one release.
//
// The requests are this process' own: they go out as root where devhost runs as
// root, by the proxies of this process' environment (HTTPS_PROXY and the like,
// which sudo keeps only if it is told to) and without the caller's ~/.netrc.
// Nothing of an answer but its status and where it leads is used; the archive
// itself is fetched with the rights and the settings of the caller.
func (r *Resolver) finalURL(ctx context.Context, reference Reference) (string, error) {
	if strings.HasPrefix(reference.URL, "file:") {
		return reference.URL, nil
	}
	const answerTimeout = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	client := r.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	// Some servers answer GET only.
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		request, err := http.NewRequestWithContext(ctx, method, reference.URL, nil)
		if err != nil {
			return "", &Error{Reference: reference.Text, Reason: err.Error(), Next: "check the URL", Err: err}
		}
		request.Header.Set("User-Agent", "devhost")
		response, err := client.Do(request)
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
				return "", cause
			}
			var wrapped *url.Error
			reason := err
			if errors.As(err, &wrapped) {
				reason = wrapped.Err
			}
			return "", &Error{
				Reference: reference.Text, Reason: "the server cannot be reached: " + reason.Error(),
				Next: "check the network; a container that exists keeps its pin and needs no network without --update-channel", Err: err,
			}
		}
		_ = response.Body.Close()
		switch {
		case response.StatusCode < http.StatusBadRequest:
			final := response.Request.URL
			if final.Scheme != "http" && final.Scheme != "https" {
				return "", &Error{Reference: reference.Text, Reason: "it redirects to a " + final.Scheme + " URL", Next: "name the final URL"}
			}
			return final.String(), nil
		case method == http.MethodHead && response.StatusCode != http.StatusNotFound:
			continue
		case response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusGone:
			return "", &Error{Reference: reference.Text, Reason: "there is nothing at this address (HTTP " + response.Status + ")", Next: "check the spelling, and whether the release still exists"}
		default:
			return "", &Error{Reference: reference.Text, Reason: "the server answers HTTP " + response.Status, Next: "check the URL, or try again later"}
		}
	}
	return "", errors.New("no request was made") // not reached: the loop returns with GET
}

// recordedURL is what of the final URL may be written down: redirects to
// object stores carry signatures in their parameters.
func recordedURL(given, final string) string {
	if parsed, err := url.Parse(final); err != nil || parsed.RawQuery != "" || parsed.User != nil {
		return given
	}
	return final
}

// gitRevision is the revision of a git work tree, with "-dirty" where files
// below the folder differ from it; "" where git cannot tell.
//
// git obeys settings of the repository that run programs. So it runs as the
// caller, and for root as the owner of the folder, who could run them anyway.
func (r *Resolver) gitRevision(ctx context.Context, caller person.Person, folder string) string {
	if caller.UID == 0 {
		info, err := statFor(ctx, caller, folder)
		if err != nil {
			return ""
		}
		if status, ok := info.Sys().(*syscall.Stat_t); ok && status.Uid != 0 {
			owner, err := person.Lookup(strconv.FormatUint(uint64(status.Uid), 10))
			if err != nil {
				return ""
			}
			caller = owner
		}
	}
	git := func(arguments ...string) (string, error) {
		command := execx.Command{
			Name: "git", Dir: "/", Timeout: time.Minute,
			Args: append([]string{"-C", folder, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"}, arguments...),
			Env:  []string{"PATH=" + os.Getenv("PATH"), "HOME=" + homeOf(caller), "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0"},
		}
		caller.Apply(&command)
		output, err := r.Nix.Runner.Output(ctx, command)
		return strings.TrimSpace(string(output)), err
	}
	revision, err := git("rev-parse", "--verify", "HEAD")
	if err != nil || !revPattern.MatchString(revision) {
		return ""
	}
	changes, err := git("status", "--porcelain", "--", ".")
	if err != nil || changes != "" {
		return revision + "-dirty"
	}
	return revision
}

func homeOf(caller person.Person) string {
	if caller.Home != "" {
		return caller.Home
	}
	return "/nonexistent"
}

// Shape says how a channel's source is laid out.
type Shape string

// The shapes of a channel; the design's guest contract describes them.
const (
	// ShapeNixpkgs has nixos/default.nix.
	ShapeNixpkgs Shape = "nixpkgs"
	// ShapeFlyingCircus has nixpkgs/nixos/default.nix beside fc/.
	ShapeFlyingCircus Shape = "flyingcircus"
)

// NotAChannel says that a source has neither shape.
type NotAChannel struct {
	// Found are some of the names at its top.
	Found []string
}

func (n *NotAChannel) Error() string {
	found := "nothing"
	if len(n.Found) > 0 {
		found = strings.Join(n.Found, ", ")
	}
	return "it is not a channel: expected nixos/default.nix, or nixpkgs/nixos/default.nix beside fc/, at its top; found: " + found
}

// ShapeOf tells the shape of a channel's source. The error is *NotAChannel.
func ShapeOf(source string) (Shape, error) {
	isFile := func(path string) bool {
		info, err := os.Stat(filepath.Join(source, path))
		return err == nil && info.Mode().IsRegular()
	}
	fc, err := os.Stat(filepath.Join(source, "fc"))
	if err == nil && fc.IsDir() && isFile("nixpkgs/nixos/default.nix") {
		return ShapeFlyingCircus, nil
	}
	if isFile("nixos/default.nix") {
		return ShapeNixpkgs, nil
	}
	entries, err := os.ReadDir(source)
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return "", fmt.Errorf("cannot look into %s: %w", source, err)
	}
	failure := &NotAChannel{}
	const shown = 8
	for i, entry := range entries {
		if i == shown {
			failure.Found = append(failure.Found, "...")
			break
		}
		failure.Found = append(failure.Found, entry.Name())
	}
	if err != nil {
		failure.Found = []string{"a single file"}
	}
	return "", failure
}
