package container

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNestingNeedsARestart: a running container is told about, and not
// stopped; what did not change is not told about.
func TestNestingNeedsARestart(t *testing.T) {
	w := created(t)
	yes, no := true, false
	for _, test := range []struct {
		name    string
		nesting *bool
		want    bool
		told    string
	}{
		{"given", &yes, true, "container box gets nesting when it is started next; do that now with: devhost restart box"},
		{"given again", &yes, true, ""},
		{"not mentioned", nil, true, ""},
		{"taken back", &no, false, "container box loses nesting when it is started next; do that now with: devhost restart box"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.calls = nil
			result, err := w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", Nesting: test.nesting, Timeout: time.Minute})
			if err != nil || !result.Unchanged {
				t.Fatalf("%+v, %v", result, err)
			}
			if got := strings.Join(result.Warnings, "\n"); got != test.told {
				t.Errorf("it warns %q, not %q", got, test.told)
			}
			if record := load(t, w); record.Nesting != test.want {
				t.Errorf("the record says %v", record.Nesting)
			}
			if slices.ContainsFunc(w.calls, func(call string) bool { return strings.HasPrefix(call, "stop") || strings.HasPrefix(call, "start") }) {
				t.Errorf("it called %v", w.calls)
			}
		})
	}
}

// TestNestingAtTheStart: the start of a stopped container applies it, so there
// is nothing to tell.
func TestNestingAtTheStart(t *testing.T) {
	w := created(t)
	if _, err := w.manager().Stop(t.Context(), "box", time.Minute); err != nil {
		t.Fatal(err)
	}
	yes := true
	result, err := w.manager().Ensure(t.Context(), EnsureRequest{Name: "box", Nesting: &yes, Timeout: time.Minute})
	if err != nil || !result.Started || len(result.Warnings) > 0 || !load(t, w).Nesting {
		t.Errorf("%+v, %v", result, err)
	}
}
