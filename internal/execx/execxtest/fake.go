// Package execxtest holds a fake Runner for tests. It fails the test on a
// command that was not expected and on an expectation that was not used.
package execxtest

import (
	"context"
	"errors"
	"os"
	"regexp"
	"sync"
	"testing"

	"devhost/internal/execx"
)

// Fake answers commands by expectations, in any order, each once.
type Fake struct {
	t     testing.TB
	mutex sync.Mutex
	stubs []*stub
	calls []execx.Command
}

type stub struct {
	pattern *regexp.Regexp
	answer  func(command execx.Command) (stdout string, err error)
	used    bool
}

// New returns a Fake that checks at the end of the test that every
// expectation was used.
func New(t testing.TB) *Fake {
	t.Helper()
	fake := &Fake{t: t}
	t.Cleanup(func() {
		fake.mutex.Lock()
		defer fake.mutex.Unlock()
		for _, stub := range fake.stubs {
			if !stub.used {
				t.Errorf("command %q was expected and not run", stub.pattern)
			}
		}
	})
	return fake
}

// Expect lets one command whose quoted argument vector matches the regular
// expression print stdout and end with err.
func (f *Fake) Expect(pattern, stdout string, err error) {
	f.ExpectFunc(pattern, func(execx.Command) (string, error) { return stdout, err })
}

// ExpectFunc is Expect with an answer that is computed.
func (f *Fake) ExpectFunc(pattern string, answer func(execx.Command) (string, error)) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.stubs = append(f.stubs, &stub{pattern: regexp.MustCompile(pattern), answer: answer})
}

// Calls are the commands run so far.
func (f *Fake) Calls() []execx.Command {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return append([]execx.Command(nil), f.calls...)
}

func (f *Fake) find(command execx.Command) (*stub, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.calls = append(f.calls, command)
	quoted := execx.Quote(command.Argv())
	for _, stub := range f.stubs {
		if !stub.used && stub.pattern.MatchString(quoted) {
			stub.used = true
			return stub, nil
		}
	}
	f.t.Errorf("unexpected command: %s", quoted)
	return nil, errors.New("unexpected command")
}

// Output implements execx.Runner.
func (f *Fake) Output(_ context.Context, command execx.Command) ([]byte, error) {
	stub, err := f.find(command)
	if err != nil {
		return nil, err
	}
	stdout, err := stub.answer(command)
	return []byte(stdout), err
}

// Run implements execx.Runner.
func (f *Fake) Run(ctx context.Context, command execx.Command) error {
	output, err := f.Output(ctx, command)
	if command.Stdout != nil {
		if _, writeErr := command.Stdout.Write(output); writeErr != nil {
			return writeErr
		}
	}
	return err
}

// Start implements execx.Runner: the process has ended already.
func (f *Fake) Start(command execx.Command) (execx.Process, error) {
	_, err := f.Output(context.Background(), command)
	return ended{err}, nil
}

type ended struct{ err error }

func (ended) Pid() int               { return 0 }
func (ended) Signal(os.Signal) error { return os.ErrProcessDone }
func (e ended) Wait() error          { return e.err }
