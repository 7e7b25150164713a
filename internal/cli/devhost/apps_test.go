package devhost

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestApps: `nix run .#VERB` is there for each command that a person gives.
func TestApps(t *testing.T) {
	text, err := os.ReadFile("../../../pkgs/apps.nix")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)verbs = \[(.*?)\];`).FindSubmatch(text)
	if list == nil {
		t.Fatal("pkgs/apps.nix has no list of verbs")
	}
	var apps []string
	for _, word := range strings.Fields(string(list[1])) {
		apps = append(apps, strings.Trim(word, `"`))
	}
	var commands []string
	for _, command := range (&app{now: time.Now}).command().Commands {
		// These are for packages and shells.
		if !command.Hidden && !slices.Contains([]string{"completion", "man"}, command.Name) {
			commands = append(commands, command.Name)
		}
	}
	slices.Sort(commands)
	if diff := cmp.Diff(commands, apps); diff != "" {
		t.Errorf("-commands +apps:\n%s", diff)
	}
}
