package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devhost/internal/execx"
	"devhost/internal/execx/execxtest"
	"devhost/internal/network"
	"devhost/internal/registry"
)

func TestFindBuilders(t *testing.T) {
	for name, test := range map[string]struct {
		conf, groups string
		getent       func(*execxtest.Fake)
		want         network.Builders
		wrong        string
	}{
		"a group":             {"", "nixbld:x:30000:nixbld1\n", nil, network.Builders{GID: 30000}, ""},
		"allocated":           {"auto-allocate-uids = true\n", "nixbld:x:30000:nixbld1\n", nil, network.Builders{GID: 30000, FirstUID: 872415232, LastUID: 880803839}, ""},
		"no build users":      {"build-users-group =\n", "", nil, network.Builders{}, ""},
		"no good settings":    {"auto-allocate-uids = true\nstart-id = x\n", "nixbld:x:30000:nixbld1\n", nil, network.Builders{}, "start-id = x in /etc/nix/nix.conf"},
		"a directory service": {"", "", func(fake *execxtest.Fake) { fake.Expect("^getent group nixbld$", "nixbld:*:70000:a\n", nil) }, network.Builders{GID: 70000}, ""},
		"no group":            {"", "", func(fake *execxtest.Fake) { fake.Expect("^getent ", "", &execx.Error{ExitCode: 2}) }, network.Builders{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.MkdirAll(filepath.Join(root, "etc/nix"), 0o755); err != nil {
				t.Fatal(err)
			}
			for path, content := range map[string]string{"etc/nix/nix.conf": test.conf, "etc/group": test.groups} {
				if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			fake := execxtest.New(t)
			if test.getent != nil {
				test.getent(fake)
			}
			got, err := findBuilders(t.Context(), fake, root)
			if got != test.want || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// Only who says so in so many words turns it off.
func TestRestrictsBuilders(t *testing.T) {
	hosts := &HostNetwork{Layout: registry.Layout{State: t.TempDir()}}
	for text, want := range map[string]bool{
		"": true, `{"version": 1}`: true, `no JSON`: true,
		`{"version": 1, "network": {"restrictBuilders": "no"}}`:  true,
		`{"version": 1, "network": {"restrictBuilders": true}}`:  true,
		`{"version": 1, "network": {"restrictBuilders": false}}`: false,
	} {
		if text != "" {
			if err := os.WriteFile(hosts.Layout.Settings(), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := hosts.restrictsBuilders(); got != want {
			t.Errorf("with %q it is %v", text, got)
		}
		_ = os.Remove(hosts.Layout.Settings())
	}
}

// Nothing is built where builders cannot be restricted.
func TestNothingIsBuiltWithoutItsNetwork(t *testing.T) {
	w := newWorld(t)
	w.fail["prepare network"] = errors.New("no packet filter")
	_, err := w.manager().Ensure(t.Context(), request("one"))
	if err == nil || !strings.Contains(err.Error(), "no packet filter") || slices.Contains(w.calls, "build") {
		t.Errorf("got %v; it calls %v", err, w.calls)
	}
	delete(w.fail, "prepare network")
	w.calls = nil
	if _, err := w.manager().Ensure(t.Context(), request("one")); err != nil || !slices.Contains(w.calls, "build") {
		t.Errorf("control: %v; it calls %v", err, w.calls)
	}
}
