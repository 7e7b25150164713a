// Package archive packs a folder into one file and takes it out again, with all
// that a guest's files can have: numeric owners, extended attributes, ACLs,
// hard links, holes and devices. tar(1) of GNU does that; the file is compressed
// with zstd (RFC 8878).
package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"devhost/internal/execx"
)

// Tar packs and unpacks with tar(1).
type Tar struct{ Runner execx.Runner }

// NoTar says that there is no tar(1).
type NoTar struct{}

func (NoTar) Error() string {
	return "there is no tar, which writes and reads archives; install GNU tar (Debian: apt install tar)"
}

// Damaged says that an archive is not what was written.
type Damaged struct {
	Path string
	Err  error
}

func (d *Damaged) Error() string {
	return fmt.Sprintf("%s is damaged: %v", d.Path, d.Err)
}

func (d *Damaged) Unwrap() error { return d.Err }

// Packed is what Pack wrote: its size in bytes and its SHA-256.
type Packed struct {
	Bytes  int64
	SHA256 string
}

// Pack writes the content of a folder to a new file, all or nothing, and has it
// on disk when it returns. exclude are paths relative to the folder. Nothing in
// the folder may change meanwhile. What is not read back as it was written is
// an error.
func (t Tar) Pack(ctx context.Context, folder, path string, exclude ...string) (Packed, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Packed{}, fmt.Errorf("cannot write the archive: %w", err)
	}
	packed, err := t.pack(ctx, folder, file, exclude)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return Packed{}, errors.Join(err, os.Remove(path))
	}
	if err := t.Verify(ctx, path, packed.SHA256); err != nil {
		return Packed{}, errors.Join(fmt.Errorf("the archive cannot be read back: %w", err), os.Remove(path))
	}
	return packed, nil
}

// firstExtraFile is the number of the first of execx.Command's ExtraFiles.
const firstExtraFile = 3

func (t Tar) pack(ctx context.Context, folder string, file io.Writer, exclude []string) (Packed, error) {
	sum, count := sha256.New(), &counter{next: file}
	encoder, err := zstd.NewWriter(io.MultiWriter(count, sum), zstd.WithEncoderCRC(true))
	if err != nil {
		return Packed{}, err
	}
	reading, writing, err := os.Pipe()
	if err != nil {
		return Packed{}, err
	}
	defer reading.Close()
	running, end := context.WithCancel(ctx)
	defer end()
	compressed := make(chan error, 1)
	go func() {
		_, err := io.Copy(encoder, reading)
		if err = errors.Join(err, encoder.Close()); err != nil {
			// The disk is full: tar need not go on.
			end()
		}
		compressed <- err
	}()
	arguments := []string{
		"--create", fmt.Sprintf("--file=/proc/self/fd/%d", firstExtraFile), "--format=posix", "--numeric-owner",
		"--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--anchored",
		// Sockets of ended servers are no content.
		"--warning=no-file-ignored",
	}
	for _, path := range exclude {
		arguments = append(arguments, "--no-wildcards", "--exclude=./"+path)
	}
	arguments = append(arguments, "--directory="+folder, ".")
	err = t.Runner.Run(running, execx.Command{Name: "tar", Args: arguments, Env: environment(), Dir: "/", ExtraFiles: []*os.File{writing}})
	_ = writing.Close()
	if problem := <-compressed; problem != nil {
		return Packed{}, fmt.Errorf("cannot write the archive: %w", problem)
	}
	if err != nil {
		return Packed{}, explain(ctx, "pack", err)
	}
	return Packed{Bytes: count.bytes, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// counter counts what is written.
type counter struct {
	next  io.Writer
	bytes int64
}

func (c *counter) Write(data []byte) (int, error) {
	n, err := c.next.Write(data)
	c.bytes += int64(n)
	return n, err
}

// environment is what tar sees: nothing that changes what it does, such as
// TAR_OPTIONS.
func environment() []string { return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} }

func explain(ctx context.Context, what string, err error) error {
	var failed *execx.Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &failed) && failed.NotFound:
		return NoTar{}
	}
	return fmt.Errorf("cannot %s the files: %w", what, err)
}

// Verify reads a whole archive. The error is *Damaged where it is not the one
// with the sum.
func (t Tar) Verify(ctx context.Context, path, sum string) error {
	return t.read(ctx, path, sum, []string{"--list", "--quoting-style=escape"})
}

// Unpack puts what is in an archive into a folder that exists, but for the
// paths that are excluded. The error is *Damaged where the archive is not the
// one with the sum; the folder is then to be thrown away, as with every error.
func (t Tar) Unpack(ctx context.Context, path, sum, folder string, exclude ...string) error {
	arguments := []string{
		"--extract", "--directory=" + folder, "--numeric-owner", "--same-owner", "--preserve-permissions",
		"--xattrs", "--xattrs-include=*", "--acls", "--anchored",
	}
	for _, path := range exclude {
		arguments = append(arguments, "--no-wildcards", "--exclude=./"+path)
	}
	return t.read(ctx, path, sum, arguments)
}

func (t Tar) read(ctx context.Context, path, sum string, arguments []string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return &Damaged{Path: path, Err: errors.New("the file is gone")}
	}
	if err != nil {
		return fmt.Errorf("cannot read the archive: %w", err)
	}
	defer file.Close()
	hashed := &hashed{next: file, sum: sha256.New()}
	decoder, err := zstd.NewReader(hashed)
	if err != nil {
		return err
	}
	defer decoder.Close()
	content := &remembering{next: decoder}
	err = t.Runner.Run(ctx, execx.Command{Name: "tar", Args: append(arguments, "--file=-"), Env: environment(), Dir: "/", Stdin: content})
	// tar may leave the end unread.
	_, _ = io.Copy(io.Discard, content)
	_, _ = io.Copy(io.Discard, hashed)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case hashed.err != nil:
		return fmt.Errorf("cannot read the archive: %w", hashed.err)
	case content.err != nil:
		return &Damaged{Path: path, Err: content.err}
	case hex.EncodeToString(hashed.sum.Sum(nil)) != sum:
		return &Damaged{Path: path, Err: errors.New("its checksum is another one than when it was written")}
	case err != nil:
		return explain(ctx, "take out", err)
	}
	return nil
}

// hashed hashes what is read, and keeps the error of reading.
type hashed struct {
	next io.Reader
	sum  hash.Hash
	err  error
}

func (h *hashed) Read(data []byte) (int, error) {
	n, err := h.next.Read(data)
	h.sum.Write(data[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		h.err = err
	}
	return n, err
}

// remembering keeps the error of reading.
type remembering struct {
	next io.Reader
	err  error
}

func (r *remembering) Read(data []byte) (int, error) {
	n, err := r.next.Read(data)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// TooDeep says that folders lie in each other so deeply that no program can name
// what is in them. An archive writes out each name: it would never end.
type TooDeep struct {
	// Inside is the folder below which that is so.
	Inside string
}

func (d *TooDeep) Error() string {
	return fmt.Sprintf("folders lie too deeply in each other below %q to be archived; remove them there", d.Inside)
}

// Size is how much of the disk the files below a folder take, in bytes. What
// cannot be looked at does not count: it is an estimate.
func Size(folder string) int64 {
	total, _ := Measure(folder)
	return total
}

// Measure is Size without the paths that are excluded, relative to the folder. It
// also tells whether the folder can be archived: the error is *TooDeep.
func Measure(folder string, exclude ...string) (int64, error) {
	type inode struct{ device, number uint64 }
	seen := map[inode]bool{}
	var total int64
	var tooDeep error
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if relative, err := filepath.Rel(folder, path); err == nil && slices.Contains(exclude, relative) && entry != nil && entry.IsDir() {
			return fs.SkipDir
		}
		var info fs.FileInfo
		if err == nil {
			info, err = entry.Info()
		}
		if errors.Is(err, syscall.ENAMETOOLONG) && tooDeep == nil {
			tooDeep = &TooDeep{Inside: shallow(folder, path)}
		}
		if err != nil {
			return nil
		}
		status, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if status.Nlink > 1 && !info.IsDir() {
			file := inode{status.Dev, status.Ino}
			if seen[file] {
				return nil
			}
			seen[file] = true
		}
		const block = 512
		total += status.Blocks * block
		return nil
	})
	return total, tooDeep
}

// shallow is a folder above path that people can be told, as seen from folder.
func shallow(folder, path string) string {
	const levels, most = 6, 200
	relative, err := filepath.Rel(folder, path)
	if err != nil {
		return folder
	}
	parts := strings.Split(relative, string(filepath.Separator))
	shown := filepath.Join(parts[:min(levels, len(parts))]...)
	return shown[:min(most, len(shown))]
}
