package provision

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"devhost/internal/execx"
	"devhost/internal/person"
)

// Source says what to read, and for whom.
type Source struct {
	// Path is a folder, a file, or "-" for a tar archive on Stdin.
	Path  string
	Stdin io.Reader
	// Caller is the person with whose rights Path is read.
	Caller person.Person
	Runner execx.Runner
	// Limits replace DefaultLimits where not zero.
	Limits Limits
}

// Snapshot is a provision on disk that only root can change.
type Snapshot struct {
	// Hash is Tree.Hash.
	Hash string
	Dir  string
	// Module is the NixOS module's path within Dir.
	Module string
	// Secrets are Tree.Secrets.
	Secrets []Finding
}

// Take reads source (a folder, a file, or "-" for a tar archive on stdin) with
// the rights of the caller and writes it to dir, which is replaced. The error
// is *Refused, *Unreadable, or one of this host.
func Take(ctx context.Context, source string, stdin io.Reader, caller person.Person, dir string) (Snapshot, error) {
	tree, err := Read(ctx, Source{Path: source, Stdin: stdin, Caller: caller, Runner: execx.New()})
	if err != nil {
		return Snapshot{}, err
	}
	if err := tree.Write(dir); err != nil {
		return Snapshot{}, err
	}
	return Snapshot{Hash: tree.Hash(), Dir: dir, Module: tree.Module(), Secrets: tree.Secrets()}, nil
}

// Module finds the NixOS module of a snapshot's folder.
func Module(dir string) (string, error) {
	for _, name := range moduleNames {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return name, nil
		}
	}
	return "", &Refused{Reason: dir + " holds neither provision.nix nor default.nix", Next: "give the provision again with --provision"}
}

// Unreadable says that a provision cannot be read with the caller's rights.
type Unreadable struct {
	Path string
	Err  error
}

func (u *Unreadable) Error() string {
	return fmt.Sprintf("cannot read the provision %s: %v; it must be a folder or a file that you yourself may read", u.Path, u.Err)
}

func (u *Unreadable) Unwrap() error { return u.Err }

// readTimeout bounds the reading of a folder on behalf of a caller.
const readTimeout = 5 * time.Minute

// Read reads a provision once. It writes nothing. Where the caller is who this
// process runs as it starts no process. The error is *Refused, *Unreadable, or
// one of this host.
func Read(ctx context.Context, source Source) (*Tree, error) {
	if source.Limits == (Limits{}) {
		source.Limits = DefaultLimits
	}
	tree := newTree(source.Limits)
	var err error
	switch {
	case source.Path == "-":
		err = tree.readStream(source.Stdin)
	case source.Path == "" || strings.ContainsRune(source.Path, 0):
		err = &Refused{Reason: "its path is empty", Next: "name a folder, a file, or - for a tar archive on standard input"}
	default:
		err = tree.readPath(ctx, source)
	}
	if err == nil {
		err = tree.finish()
	}
	if err != nil {
		return nil, err
	}
	return tree, nil
}

func (t *Tree) readPath(ctx context.Context, source Source) error {
	absolute, err := filepath.Abs(source.Path)
	if err != nil {
		return err
	}
	if !source.Caller.Self() {
		return t.readAsCaller(ctx, source, absolute)
	}
	info, err := os.Stat(absolute)
	switch {
	case err != nil:
		return &Unreadable{Path: source.Path, Err: cause(err)}
	case info.Mode().IsRegular():
		data, err := os.ReadFile(absolute)
		if err != nil {
			return &Unreadable{Path: source.Path, Err: cause(err)}
		}
		return t.addModule(data)
	case !info.IsDir():
		return &Refused{Reason: "it is neither a folder nor a file", Next: "name a folder, a file, or - for a tar archive on standard input"}
	}
	root, err := os.OpenRoot(absolute)
	if err != nil {
		return &Unreadable{Path: source.Path, Err: cause(err)}
	}
	defer func() { _ = root.Close() }() // it was only read
	return t.readFolder(root, ".", source.Path)
}

// cause drops the path that the message names already.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// addModule takes a single file as provision.nix.
func (t *Tree) addModule(data []byte) error {
	if err := t.take(int64(len(data))); err != nil {
		return err
	}
	return t.add(moduleNames[0], &entry{data: data})
}

// readFolder reads below an open root, which no link can lead out of, not even
// one that is exchanged while we read.
func (t *Tree) readFolder(root *os.Root, folder, shown string) error {
	directory, err := root.Open(folder)
	if err != nil {
		return &Unreadable{Path: path.Join(shown, folder), Err: cause(err)}
	}
	entries, err := directory.ReadDir(-1)
	if closeErr := directory.Close(); err != nil || closeErr != nil {
		return &Unreadable{Path: path.Join(shown, folder), Err: cause(errors.Join(err, closeErr))}
	}
	for _, found := range entries {
		name := path.Join(folder, found.Name())
		if isGit(name) {
			continue
		}
		if err := t.readEntry(root, name, shown, found.Type()); err != nil {
			return err
		}
		if found.IsDir() {
			if err := t.readFolder(root, name, shown); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Tree) readEntry(root *os.Root, name, shown string, kind fs.FileMode) error {
	switch kind {
	case fs.ModeDir:
		return t.add(name, &entry{mode: fs.ModeDir})
	case fs.ModeSymlink:
		target, err := root.Readlink(name)
		if err != nil {
			return &Unreadable{Path: path.Join(shown, name), Err: cause(err)}
		}
		return t.add(name, &entry{mode: fs.ModeSymlink, target: target})
	case 0:
		return t.readFile(root, name, shown)
	}
	return refuseKind(name)
}

func refuseKind(name string) error {
	return &Refused{Member: name, Reason: "is a device, socket or pipe", Next: "remove it"}
}

func (t *Tree) readFile(root *os.Root, name, shown string) error {
	unreadable := func(err error) error { return &Unreadable{Path: path.Join(shown, name), Err: cause(err)} }
	// Were it exchanged for a pipe by now, O_NONBLOCK keeps us from waiting.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return unreadable(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return refuseKind(name)
	}
	data, err := io.ReadAll(io.LimitReader(file, t.left()+1))
	if err != nil {
		return unreadable(err)
	}
	if err := t.take(int64(len(data))); err != nil {
		return err
	}
	return t.add(name, &entry{data: data, executable: info.Mode()&0o100 != 0})
}

// readAsCaller lets tar(1) and cat(1) read as the caller and takes what they
// print.
func (t *Tree) readAsCaller(ctx context.Context, source Source, absolute string) error {
	run := func(name string, arguments ...string) execx.Command {
		command := execx.Command{
			Name: name, Args: arguments, Dir: "/", Timeout: readTimeout,
			Env: []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"},
		}
		source.Caller.Apply(&command)
		return command
	}
	kind, err := source.Runner.Output(ctx, run("stat", "--dereference", "--format=%F", "--", absolute))
	if err != nil {
		return unreadable(ctx, source.Path, err)
	}
	switch strings.TrimSpace(string(kind)) {
	case "directory":
		return t.pipe(ctx, source, run("tar", "--create", "--file=-", "--exclude=.git", "--directory="+absolute, "."), t.readTar)
	case "regular file", "regular empty file":
		return t.pipe(ctx, source, run("cat", "--", absolute), func(stream io.Reader) error {
			data, err := io.ReadAll(io.LimitReader(stream, t.left()+1))
			if err != nil {
				return err
			}
			return t.addModule(data)
		})
	}
	return &Refused{Reason: "it is neither a folder nor a file", Next: "name a folder, a file, or - for a tar archive on standard input"}
}

// pipe runs a command and takes its output as it comes. The command ends when
// the taker has seen enough.
func (t *Tree) pipe(ctx context.Context, source Source, command execx.Command, take func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	taken := make(chan error, 1)
	go func() {
		err := take(reader)
		if err == nil {
			// What comes after the end of the archive is padding.
			_, err = io.Copy(io.Discard, reader)
		}
		_ = reader.CloseWithError(err)
		if err != nil {
			cancel()
		}
		taken <- err
	}()
	command.Stdout = writer
	runErr := source.Runner.Run(ctx, command)
	_ = writer.CloseWithError(runErr)
	err := <-taken
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		return refused
	case runErr != nil:
		return unreadable(ctx, source.Path, runErr)
	}
	return err
}

// unreadable shortens the failure of a helper program to what it printed.
func unreadable(ctx context.Context, shown string, err error) error {
	var failure *execx.Error
	if !errors.As(err, &failure) || failure.NotFound || failure.Cancelled && ctx.Err() != nil {
		return err
	}
	text := failure.Reason()
	if len(failure.Tail) > 0 {
		text = failure.Tail[0]
	}
	return &Unreadable{Path: shown, Err: errors.New(text)}
}

// readStream reads a tar archive, compressed with gzip or not.
func (t *Tree) readStream(stream io.Reader) error {
	buffered := bufio.NewReader(stream)
	magic, err := buffered.Peek(2)
	if errors.Is(err, io.EOF) && len(magic) == 0 {
		return &Refused{Reason: "standard input is empty", Next: "pipe an archive in: tar -C DIR -cf - . | devhost ensure NAME --provision -"}
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			return badArchive(err)
		}
		return t.readTar(unpacked)
	}
	return t.readTar(buffered)
}

func badArchive(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return &Refused{Reason: "standard input is no good tar archive: " + err.Error(), Next: "pipe one in: tar -C DIR -cf - . | devhost ensure NAME --provision -"}
}

func (t *Tree) readTar(stream io.Reader) error {
	// Headers count too: else an archive of headers alone would never end.
	const perEntry = 4 << 10
	limit := t.limits.Bytes + int64(t.limits.Entries)*perEntry
	archive := tar.NewReader(&limitedReader{stream, limit})
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return tarError(err)
		}
		if err := t.addTarMember(header, archive); err != nil {
			return err
		}
	}
}

func tarError(err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	var failed *execx.Error
	if errors.As(err, &failed) {
		// The program that makes the archive failed: that is for pipe to say.
		return err
	}
	return badArchive(err)
}

func (t *Tree) addTarMember(header *tar.Header, archive *tar.Reader) error {
	name := strings.TrimPrefix(header.Name, "./")
	name = strings.TrimSuffix(name, "/")
	if name == "" && header.Typeflag == tar.TypeDir {
		name = "."
	}
	if name != "." && isGit(name) {
		return nil
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return t.add(name, &entry{mode: fs.ModeDir})
	case tar.TypeSymlink:
		return t.add(name, &entry{mode: fs.ModeSymlink, target: header.Linkname})
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := t.take(header.Size); err != nil {
			return err
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return tarError(err)
		}
		return t.add(name, &entry{data: data, executable: header.Mode&0o100 != 0})
	case tar.TypeLink:
		return t.addHardLink(name, strings.TrimPrefix(header.Linkname, "./"))
	}
	return refuseKind(name)
}

// addHardLink copies a file that came before: the store knows no hard links.
func (t *Tree) addHardLink(name, target string) error {
	original, ok := t.entries[target]
	if !ok || original.mode != 0 {
		return &Refused{Member: name, Reason: fmt.Sprintf("is a hard link to %q, which is not in the archive", target), Next: "make the archive with: tar --hard-dereference -C DIR -cf - ."}
	}
	if err := t.take(int64(len(original.data))); err != nil {
		return err
	}
	return t.add(name, &entry{data: original.data, executable: original.executable})
}

// limitedReader refuses to read on behind a limit.
type limitedReader struct {
	stream io.Reader
	left   int64
}

func (l *limitedReader) Read(data []byte) (int, error) {
	if l.left <= 0 {
		return 0, &Refused{Reason: "the archive is too large", Next: "leave out what the configuration does not need"}
	}
	if int64(len(data)) > l.left {
		data = data[:l.left]
	}
	n, err := l.stream.Read(data)
	l.left -= int64(n)
	return n, err
}
