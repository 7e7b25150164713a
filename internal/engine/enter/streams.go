package enter

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// streams connect a command to the caller's streams.
type streams struct {
	options Options
	// inside are the command's standard streams.
	inside [3]*os.File
	// input is where the command's input is written, nil for none; outputs are
	// read.
	input   *os.File
	outputs []output
	// wake ends the copying of input when it is closed.
	wake, wakeEnd *os.File
	copying       sync.WaitGroup
	ended         atomic.Bool
	mutex         sync.Mutex
	failed        error
}

type output struct {
	from *os.File
	to   io.Writer
}

// openStreams makes pipes, or a terminal of the guest.
func openStreams(options Options, leader *leader) (_ *streams, err error) {
	s := &streams{options: options}
	defer func() {
		if err != nil {
			for _, file := range s.files() {
				_ = file.Close()
			}
		}
	}()
	if s.wake, s.wakeEnd, err = os.Pipe(); err != nil {
		return nil, err
	}
	if options.TTY {
		master, slave, err := openTerminal(leader)
		if err != nil {
			return nil, err
		}
		s.inside = [3]*os.File{slave, slave, slave}
		s.outputs = []output{{master, options.Stdout}}
		if options.Stdin != nil {
			s.input = master
		}
		s.resize()
		return s, nil
	}
	var inputEnd *os.File
	if s.inside[0], inputEnd, err = os.Pipe(); err != nil {
		return nil, err
	}
	if options.Stdin != nil {
		s.input = inputEnd
	} else {
		_ = inputEnd.Close()
	}
	for i, to := range []io.Writer{options.Stdout, options.Stderr} {
		from, end, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.inside[i+1] = end
		s.outputs = append(s.outputs, output{from, to})
	}
	return s, nil
}

// files are all descriptors that are to be closed at the end.
func (s *streams) files() []*os.File {
	var files []*os.File
	for _, file := range []*os.File{s.wake, s.wakeEnd, s.inside[0], s.inside[1], s.inside[2], s.input} {
		if file != nil {
			files = append(files, file)
		}
	}
	for _, output := range s.outputs {
		files = append(files, output.from)
	}
	return files
}

// defaultSize is that of a terminal which nobody looks at.
var defaultSize = unix.Winsize{Row: 24, Col: 80}

// resize gives the command's terminal the size of the person's.
func (s *streams) resize() {
	if !s.options.TTY {
		return
	}
	size := &defaultSize
	if s.options.Terminal != nil {
		if actual, err := unix.IoctlGetWinsize(int(s.options.Terminal.Fd()), unix.TIOCGWINSZ); err == nil {
			size = actual
		}
	}
	withDescriptor(s.outputs[0].from, func(descriptor int) {
		_ = unix.IoctlSetWinsize(descriptor, unix.TIOCSWINSZ, size)
	})
}

// withDescriptor lends a file's descriptor without making it blocking, as
// File.Fd would.
func withDescriptor(file *os.File, use func(descriptor int)) {
	connection, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = connection.Control(func(descriptor uintptr) { use(int(descriptor)) })
}

// raw makes the person's terminal raw; the returned function restores it, once
// or more often.
func (s *streams) raw() (restore func(), err error) {
	if !s.options.TTY || s.options.Terminal == nil {
		return func() {}, nil
	}
	descriptor := int(s.options.Terminal.Fd())
	before, err := term.MakeRaw(descriptor)
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = term.Restore(descriptor, before) }), nil
}

// start copies until drain. restore is called when copying panics.
func (s *streams) start(restore func()) {
	for _, file := range s.inside {
		_ = file.Close()
	}
	guarded := func(copy func()) {
		defer func() {
			if problem := recover(); problem != nil {
				restore()
				panic(problem)
			}
		}()
		copy()
	}
	if s.input != nil {
		go guarded(s.copyInput)
	}
	for _, output := range s.outputs {
		s.copying.Go(func() { guarded(func() { s.copyOutput(output) }) })
	}
}

// endOfInput is what a terminal takes as the end of input (VEOF, Ctrl-D).
const endOfInput = 4

func (s *streams) copyInput() {
	if !s.options.TTY {
		// The command sees the end of its input.
		defer s.input.Close()
	}
	var err error
	if file, ok := s.options.Stdin.(*os.File); ok {
		err = s.copyFile(file)
	} else {
		_, err = io.Copy(s.input, s.options.Stdin)
	}
	if err == nil && s.options.TTY && !s.ended.Load() {
		_, _ = s.input.Write([]byte{endOfInput})
	}
}

// copyFile copies a file, which may be a terminal, and ends when the command
// does: what is typed after that is not ours.
func (s *streams) copyFile(file *os.File) error {
	buffer := make([]byte, 32<<10)
	for {
		count, err := readUnlessWoken(file, s.wake, buffer)
		if err != nil || count == 0 {
			return err
		}
		if _, err := s.input.Write(buffer[:count]); err != nil {
			return err
		}
	}
}

// errWoken says that the command ended.
var errWoken = errors.New("woken")

func readUnlessWoken(file, wake *os.File, buffer []byte) (count int, err error) {
	err = errWoken
	withDescriptor(file, func(descriptor int) {
		withDescriptor(wake, func(wakeDescriptor int) {
			count, err = pollAndRead(descriptor, wakeDescriptor, buffer)
		})
	})
	return count, err
}

func pollAndRead(descriptor, wake int, buffer []byte) (int, error) {
	for {
		ready := []unix.PollFd{{Fd: int32(descriptor), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return 0, err
		}
		if ready[1].Revents != 0 {
			return 0, errWoken
		}
		count, err := unix.Read(descriptor, buffer)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		return count, err
	}
}

const (
	// drainPatience is how long an output may stay silent, after the command's
	// end, before what its children still write is given up.
	drainPatience = 50 * time.Millisecond
	// drainMost is more than a pipe holds: what comes after it was written
	// after the command's end.
	drainMost = 2 << 20
)

func (s *streams) copyOutput(out output) {
	to := out.to
	if to == nil {
		to = io.Discard
	}
	buffer := make([]byte, 32<<10)
	for left := drainMost; left > 0; {
		ended := s.ended.Load()
		var count int
		var err error
		if ended {
			count, err = readSoon(out.from, buffer, drainPatience)
		} else {
			count, err = out.from.Read(buffer)
		}
		if count > 0 {
			if _, err := to.Write(buffer[:count]); err != nil {
				s.fail(err)
				return
			}
		}
		if ended {
			left -= count
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && !ended:
			// drain woke it: look once more for what is there.
		default:
			// The end of a pipe is EOF, that of a terminal EIO.
			return
		}
	}
}

// readSoon reads what is there, and waits for that no longer than a while. A
// deadline of the file would not do: when it has passed, what is there is not
// read either, and a busy host can let it pass before the first look.
func readSoon(file *os.File, buffer []byte, while time.Duration) (count int, err error) {
	err = os.ErrClosed
	withDescriptor(file, func(descriptor int) {
		for {
			ready := []unix.PollFd{{Fd: int32(descriptor), Events: unix.POLLIN}}
			var found int
			found, err = unix.Poll(ready, int(while.Milliseconds()))
			if err == nil && found == 0 {
				err = os.ErrDeadlineExceeded
				return
			}
			if err == nil {
				count, err = unix.Read(descriptor, buffer)
			}
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && count == 0 {
				err = io.EOF
			}
			return
		}
	})
	return max(count, 0), err
}

// fail keeps the first error of writing, and closes what the command writes to.
func (s *streams) fail(err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	for _, output := range s.outputs {
		_ = output.from.Close()
	}
}

func (s *streams) failure() error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.failed
}

// drain copies what the command wrote before it ended.
func (s *streams) drain() {
	s.ended.Store(true)
	_ = s.wakeEnd.Close()
	for _, output := range s.outputs {
		_ = output.from.SetReadDeadline(time.Now())
	}
	s.copying.Wait()
}
