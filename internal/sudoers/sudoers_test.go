package sudoers

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"devhost/internal/execx"
	"devhost/internal/settings"
)

func text(t *testing.T, groups ...string) string {
	t.Helper()
	text, err := Text(settings.Settings{AllowedGroups: groups}, []string{"/usr/local/bin/devhost", "/usr/local/bin/fc-devhost"})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestText(t *testing.T) {
	want, err := os.ReadFile("testdata/devhost")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text(t, "devhost", "web team")); diff != "" {
		t.Errorf("testdata/devhost (-want +got):\n%s", diff)
	}
}

// TestVisudo: sudo itself takes every name that the settings take.
func TestVisudo(t *testing.T) {
	check := func(rules string) error {
		_, err := execx.New().Output(t.Context(), execx.Command{Name: "visudo", Args: []string{"-cf", "-"}, Stdin: strings.NewReader(rules)})
		return err
	}
	var failed *execx.Error
	if err := check("root ALL=(ALL) ALL\n"); errors.As(err, &failed) && failed.NotFound {
		t.Skip("there is no visudo here (package sudo)")
	} else if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"devhost", "web team", "a#b", `a\b`, `"quoted"`, "a=b", "a!b", "(a)", "a@b.example", "Straße", "ALL", "a*?[x]", "a%b", "a+b", "a'b", "a;b|c&d", "a$", "<a>", "{a}", "~a^`"} {
		if err := check(text(t, group)); err != nil {
			t.Errorf("group %q: %v", group, err)
		}
	}
	if err := check(text(t)); err != nil {
		t.Errorf("no group: %v", err)
	}
	// Control: what is not escaped is refused.
	if err := check(strings.Replace(text(t, "web team"), `web\ team`, "web team", 1)); err == nil {
		t.Error("visudo takes anything")
	}
}

func TestBadPaths(t *testing.T) {
	for _, path := range []string{"", "devhost", "./devhost", "/usr/bin/../bin/devhost", "/opt/my tools/devhost", "/usr/bin/dev*", "/usr/bin/devhost,/bin/sh", "/usr/bin/devhost\nmallory ALL=(ALL) ALL", "/usr/bin/\\devhost"} {
		_, err := Text(settings.Default(), []string{"/usr/bin/devhost", path})
		var bad *BadPath
		if !errors.As(err, &bad) || bad.Path != path {
			t.Errorf("%q: %v", path, err)
		}
	}
	if _, err := Text(settings.Default(), nil); err == nil {
		t.Error("rules without a program")
	}
}
