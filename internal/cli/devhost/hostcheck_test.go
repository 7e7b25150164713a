package devhost

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/settings"
)

// TestProblemsOfFile: settings in the store are not held against this host.
func TestProblemsOfFile(t *testing.T) {
	group := settings.Problem{Key: "allowedGroups[0]", Reason: "there is no such group", Warning: true, OfHost: true}
	broken := settings.Problem{Key: "domains[0]", Reason: "it is none"}
	both, one := []settings.Problem{group, broken}, []settings.Problem{broken}
	for name, test := range map[string]struct {
		path string
		want []settings.Problem
	}{
		"the host's":           {"/etc/devhost-settings.json", both},
		"one in the store":     {"/nix/store/00000000000000000000000000000000-devhost-settings.json", one},
		"a way into the store": {"/nix/../nix/store/x", one},
		"a way out of it":      {"/nix/store/../../etc/devhost-settings.json", both},
		"beside the store":     {"/nix/storeroom/settings.json", both},
		"a relative one":       {"nix/store/x", both},
	} {
		t.Run(name, func(t *testing.T) {
			given := []settings.Problem{group, broken}
			if diff := cmp.Diff(test.want, ofFile(test.path, given)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(both, given); diff != "" {
				t.Errorf("what was given has changed (-want +got):\n%s", diff)
			}
		})
	}
}
