package filesync

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"devhost/internal/execx"
	"devhost/internal/sshlink"
	"devhost/internal/terminal"
)

// most bounds what is read of a container, which may say what it likes.
const (
	mostEntries = 4 << 20
	mostField   = 64 << 10
	mostListing = 512 << 20
)

// listScript makes the folder $1 and prints its path without links, six fields
// for each entry below it, and the status of find, each with a zero byte at its
// end. The home of the user is refused, unless $2 is home. What the other
// arguments of find name is not descended into.
const listScript = `h=$(cd 2>/dev/null && pwd -P)
mkdir -p -- "$1" && cd -- "$1" || exit 74
d=$(pwd -P)
[ "$2" = home ] || [ "$h" != "$d" ] || exit 73
shift 2
command -v rsync >/dev/null || exit 75
printf '%s\0' "$d"
find . -mindepth 1 -printf '%y\0%m\0%s\0%T@\0%l\0%P\0' -type d \( "$@" \) -prune
printf '%s\0' "$?"`

// The statuses by which the scripts say what went wrong.
const (
	isHome   = 73
	noFolder = 74
	noRsync  = 75
)

// as is the argument vector in the container that runs a script as the user,
// quoted for the login's shell.
func as(user, script string, args ...string) string {
	argv := append([]string{"sh", "-c", script, "sh"}, args...)
	if user != "" {
		argv = append([]string{"sudo", "-n", "-H", "-u", user, "--"}, argv...)
	}
	return execx.Quote(argv)
}

// pruned are the arguments of find(1) for folders that it need not look into:
// whatever is in them is excluded.
func (f *filter) pruned() []string {
	arguments := []string{"-name", gitFolder}
	if len(f.tracked) > 0 || f.rules.Negated() {
		return arguments
	}
	for _, name := range f.rules.Names() {
		arguments = append(arguments, "-o", "-name", name)
	}
	return arguments
}

var errHome = errors.New("it is the home of the user there")

// list reads what the container has; its folder is made where it is missing.
func list(ctx context.Context, runner execx.Runner, connection *sshlink.Connection, user, folder, home string, prune []string) (at string, found *listing, err error) {
	found = newListing()
	argv := connection.Argv()
	reader, writer := io.Pipe()
	parsed := make(chan error, 1)
	go func() {
		err := parseListing(reader, &at, found)
		parsed <- err
		// The rest is read, or ssh would wait for a reader.
		_, _ = io.Copy(io.Discard, reader)
	}()
	err = runner.Run(ctx, execx.Command{
		Name: argv[0], Args: append(argv[1:], as(user, listScript, append([]string{folder, home}, prune...)...)), Stdout: writer,
	})
	_ = writer.CloseWithError(io.EOF)
	parseErr := <-parsed
	var failure *execx.Error
	switch {
	case errors.As(err, &failure) && failure.ExitCode == isHome:
		return at, nil, errHome
	case errors.As(err, &failure) && failure.ExitCode == noRsync:
		return at, nil, &NoProgram{Name: "rsync", Where: "in the container", Remedy: "add pkgs.rsync to environment.systemPackages in provision.nix"}
	case errors.As(err, &failure) && failure.ExitCode == noFolder:
		return at, nil, errors.New(said(failure))
	case err != nil:
		return at, nil, readable(err)
	case parseErr != nil:
		return at, nil, fmt.Errorf("the container's list of files cannot be read: %w", parseErr)
	}
	return at, found, nil
}

// parseListing reads what listScript prints.
func parseListing(reader io.Reader, at *string, found *listing) error {
	fields := bufio.NewReaderSize(reader, mostField)
	next := func() (string, error) {
		field, err := fields.ReadSlice(0)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		return string(field[:len(field)-1]), nil
	}
	folder, err := next()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(folder, "/") {
		return fmt.Errorf("%q is no absolute path", terminal.Line(folder))
	}
	*at = folder
	size := 0
	for {
		var values [6]string
		first, err := next()
		if err != nil {
			return err
		}
		if _, err := fields.Peek(1); errors.Is(err, io.EOF) {
			if _, err := strconv.Atoi(first); err != nil {
				return io.ErrUnexpectedEOF
			}
			// Folders that find could not look into are left as they are.
			return nil
		}
		values[0] = first
		for i := 1; i < len(values); i++ {
			if values[i], err = next(); err != nil {
				return err
			}
			size += len(values[i])
		}
		if size > mostListing {
			return fmt.Errorf("the names in it have more than %d MiB", mostListing>>20)
		}
		name, e, err := parseEntry(values)
		if err != nil {
			return err
		}
		if len(found.entries) >= mostEntries {
			return fmt.Errorf("it has more than %d entries", mostEntries)
		}
		found.add(name, e)
	}
}

func parseEntry(values [6]string) (name string, e entry, err error) {
	name = values[5]
	// The names go back to the container's own commands; ours never climb.
	if name == "" || strings.HasPrefix(name, "/") || slices.Contains(strings.Split(name, "/"), "..") {
		return "", e, fmt.Errorf("%q is no path below the folder", terminal.Line(name))
	}
	e.kind = others
	if letter := values[0]; letter == "f" || letter == "d" || letter == "l" {
		e.kind = kind(letter[0])
	}
	mode, err := strconv.ParseUint(values[1], 8, 16)
	if err != nil {
		return "", e, err
	}
	e.mode = uint32(mode)
	if e.size, err = strconv.ParseInt(values[2], 10, 64); err != nil {
		return "", e, err
	}
	if e.changed, err = parseTime(values[3]); err != nil {
		return "", e, err
	}
	e.target = values[4]
	return name, e, nil
}

// parseTime reads seconds with a fraction, as find writes them.
func parseTime(text string) (int64, error) {
	seconds, fraction, _ := strings.Cut(text, ".")
	whole, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return 0, err
	}
	const digits = 9
	fraction = (fraction + strings.Repeat("0", digits))[:digits]
	nanoseconds, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(seconds, "-") {
		nanoseconds = -nanoseconds
	}
	return whole*1e9 + nanoseconds, nil
}

// removeScript removes what is on its input, below the folder $1. rm -d takes
// away empty folders only.
const removeScript = `cd -- "$1" && exec xargs -0 -r rm -fd --`

func remove(ctx context.Context, runner execx.Runner, connection *sshlink.Connection, user, folder string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	argv := connection.Argv()
	return readable(runner.Run(ctx, execx.Command{
		Name: argv[0], Args: append(argv[1:], as(user, removeScript, folder)), Stdin: nameList(names),
	}))
}

// nameList is names with a zero byte behind each. They start with a dot, so that
// none is taken for an option.
func nameList(names []string) io.Reader {
	var text bytes.Buffer
	for _, name := range names {
		text.WriteString("./")
		text.WriteString(name)
		text.WriteByte(0)
	}
	return &text
}

// rsyncScript is what rsync runs in the container instead of rsync; it goes on
// with rsync's own arguments. The folder is $0.
const rsyncScript = `cd -- "$0" && exec rsync "$@"`

// rsyncPath is the command line in the container for rsync, whose own arguments
// follow.
func rsyncPath(user, folder string) string {
	argv := []string{"sh", "-c", rsyncScript, folder}
	if user != "" {
		argv = append([]string{"sudo", "-n", "-H", "-u", user, "--"}, argv...)
	}
	return execx.Quote(argv)
}

// send has rsync send paths below the root. All options are those of rsync 2.6.9,
// too, which old versions of macOS have. Without -r, a folder is only made.
func send(ctx context.Context, runner execx.Runner, connection *sshlink.Connection, user, root, folder string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := runner.Run(ctx, execx.Command{
		Name: "rsync",
		Args: []string{
			// Times of folders change with each file in them. That all these files
			// differ is known; rsync's own look takes no note of fractions of seconds.
			"-lptOI", "--files-from=-", "--from0",
			"--rsync-path=" + rsyncPath(user, folder), "-e", sshlink.RsyncShell(connection.Shell()),
			"--", strings.TrimSuffix(root, "/") + "/", connection.Host().Name + ":./",
		},
		Stdin: nameList(names),
	})
	return rsyncError(err)
}

// vanished is rsync's status when files went away before they were sent: who
// watches sees that, and who does not has asked for what there is now.
const vanished = 24

func rsyncError(err error) error {
	var failure *execx.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failure) && failure.NotFound:
		return &NoProgram{Name: "rsync", Where: "on this machine", Remedy: "install it (apt install rsync, brew install rsync, nix profile install nixpkgs#rsync)"}
	case errors.As(err, &failure) && failure.ExitCode == vanished:
		return nil
	}
	return readable(err)
}

// readable leaves out the argument vector, which is long and says nothing to
// whom ran sync.
func readable(err error) error {
	var failure *execx.Error
	if err == nil || !errors.As(err, &failure) || failure.Cancelled || failure.NotFound {
		return err
	}
	return &failed{failure}
}

// failed is a command that failed in the container.
type failed struct{ failure *execx.Error }

func (f *failed) Error() string { return said(f.failure) }
func (f *failed) Unwrap() error { return f.failure }

// said are the last lines of a command, without what could drive a terminal.
func said(failure *execx.Error) string {
	const most = 8
	var lines []string
	for _, line := range failure.Tail[max(0, len(failure.Tail)-most):] {
		if line = strings.TrimSpace(terminal.Line(line)); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return failure.Argv[0] + " " + failure.Reason()
	}
	return strings.Join(lines, "\n  ")
}
