package expiry

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"devhost/internal/container"
	"devhost/internal/engine/enter"
	"devhost/internal/registry"
)

// fake is a container with which things are done, and the guest in it.
type fake struct {
	record  registry.Container
	calls   []string
	fail    map[string]error
	notice  string
	use     enter.Use
	useErr  error
	message string
	// hangs makes the guest show nothing until it is told to give up.
	hangs bool
}

func (f *fake) called(call string) error {
	f.calls = append(f.calls, call)
	return f.fail[call]
}

func (f *fake) Container() *registry.Container    { return &f.record }
func (f *fake) Save() error                       { return f.called("save") }
func (f *fake) Notice(text string) error          { f.notice = text; return f.fail["notice"] }
func (f *fake) Stop(context.Context) error        { return f.called("stop") }
func (f *fake) Destroy(ctx context.Context) error { return f.called("destroy") }
func (f *fake) Archive(context.Context, string) (*registry.Archive, error) {
	return &registry.Archive{ID: "20260101T000000Z"}, f.called("archive")
}

func (f *fake) Run(ctx context.Context, _ string, _, _ io.Writer, argv ...string) (int, error) {
	f.message = argv[len(argv)-1]
	if f.hangs {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 0, nil
}

func TestSteps(t *testing.T) {
	busy := enter.Use{Commands: 1}
	broken := errors.New("no luck")
	for _, test := range []struct {
		name    string
		after   time.Duration
		warned  registry.Expiry
		stopped bool
		prepare func(f *fake)
		actions []Action
		calls   []string
		notice  string
		failed  bool
	}{
		{"nothing", day, registry.Expiry{}, false, nil, nil, nil, "", false},
		{"a warning", 5 * day, registry.Expiry{}, false, nil, []Action{WarnStop}, []string{"save"}, "will be stopped on", false},
		{"a stop", 7 * day, registry.Expiry{StopWarnedAt: at(5 * day)}, false, nil, []Action{Stop}, []string{"stop"}, "", false},
		{"it cannot be stopped", 7 * day, registry.Expiry{StopWarnedAt: at(5 * day)}, false, func(f *fake) { f.fail["stop"] = broken }, []Action{Stop}, []string{"stop"}, "as soon as nobody", true},
		{"in use", 7 * day, registry.Expiry{StopWarnedAt: at(5 * day)}, false, func(f *fake) { f.use = busy }, []Action{Tell}, nil, "as soon as nobody", false},
		{"in use, and the guest hangs", 7 * day, registry.Expiry{StopWarnedAt: at(5 * day)}, false, func(f *fake) { f.use, f.hangs = busy, true }, []Action{Tell}, nil, "as soon as nobody", false},
		{"not known whether in use", 7 * day, registry.Expiry{StopWarnedAt: at(5 * day)}, false, func(f *fake) { f.useErr = broken }, []Action{Stop}, nil, "as soon as nobody", true},
		{"asleep", 40 * day, registry.Expiry{}, false, nil, []Action{WarnStop, WarnDelete}, []string{"save", "save"}, "will be deleted on", false},
		{"stop and warn", 29 * day, registry.Expiry{StopWarnedAt: at(27 * day)}, false, nil, []Action{WarnDelete, Stop}, []string{"save", "stop"}, "will be deleted on", false},
		{"a deletion", 30 * day, registry.Expiry{DeleteWarnedAt: at(28 * day)}, true, nil, []Action{Delete}, []string{"stop", "archive", "destroy"}, "", false},
		{"no archive, no deletion", 30 * day, registry.Expiry{DeleteWarnedAt: at(28 * day)}, true, func(f *fake) { f.fail["archive"] = broken }, []Action{Delete}, []string{"stop", "archive"}, "as soon as nobody", true},
		{"a deletion, in use", 30 * day, registry.Expiry{StopWarnedAt: at(28 * day), DeleteWarnedAt: at(28 * day)}, false, func(f *fake) { f.use = busy }, []Action{Tell}, nil, "as soon as nobody", false},
		{"the disk is full", 5 * day, registry.Expiry{}, false, func(f *fake) { f.fail["save"] = broken }, []Action{WarnStop}, []string{"save"}, "will be stopped on", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fake{record: registry.Container{Name: "demo", LastDeployment: deployed, Expiry: test.warned}, fail: map[string]error{}}
			if test.prepare != nil {
				test.prepare(f)
			}
			run := &run{Sweep: &Sweep{
				Manager:  &container.Manager{Guest: f, Logger: hclog.NewNullLogger()},
				Settings: defaults(), Now: func() time.Time { return at(test.after) },
				Use: func(string) (enter.Use, error) { return f.use, f.useErr },
			}}
			// Without waiting for a guest that hangs.
			synctest.Test(t, func(t *testing.T) { run.steps(t.Context(), f, !test.stopped) })
			var actions []Action
			for _, event := range run.events {
				actions = append(actions, event.Action)
			}
			if diff := cmp.Diff(test.actions, actions); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.calls, f.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if !strings.Contains(f.notice, test.notice) || (test.notice == "") != (f.notice == "") {
				t.Errorf("people are told %q", f.notice)
			}
			if (len(run.failed) > 0) != test.failed {
				t.Errorf("failures: %v", run.failed)
			}
			if told := f.message != ""; told != slices.Contains(test.actions, Tell) {
				t.Errorf("the terminals show %q", f.message)
			}
		})
	}
}

// TestDryRunSaysTheSame: what a dry run says is what would be done.
func TestDryRunSaysTheSame(t *testing.T) {
	for _, after := range []time.Duration{day, 5 * day, 7 * day, 28 * day, 30 * day, 40 * day} {
		var said [2][]Action
		for i, dry := range []bool{true, false} {
			f := &fake{record: registry.Container{Name: "demo", LastDeployment: deployed}, fail: map[string]error{}}
			run := &run{Sweep: &Sweep{Settings: defaults(), Now: func() time.Time { return at(after) }, Use: func(string) (enter.Use, error) { return enter.Use{}, nil }, DryRun: dry}}
			var handle handle = f
			if dry {
				handle = &trial{record: &f.record}
			}
			run.steps(t.Context(), handle, true)
			for _, event := range run.events {
				said[i] = append(said[i], event.Action)
			}
		}
		if diff := cmp.Diff(said[0], said[1]); diff != "" {
			t.Errorf("after %s (-dry +real):\n%s", after, diff)
		}
	}
}
