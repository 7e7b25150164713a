package fcmanage

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSelfContained(t *testing.T) {
	for name, test := range map[string]struct {
		module string
		want   bool
	}{
		"plain":              {`{ services.nginx.enable = true; }`, true},
		"its own folder":     {`{ imports = [ ./more.nix /etc/local/nixos/other.nix ]; }`, true},
		"the store":          {`{ environment.etc.x.source = "/nix/store/abc"; }`, true},
		"a division":         {`{ x = 4 / 2; }`, true},
		"merging":            {`{ x = a // b; }`, true},
		"<nixpkgs>":          {`import <nixpkgs/nixos>`, true},
		"a path":             {`{ imports = [ /srv/s-dev/more.nix ]; }`, false},
		"a path in quotes":   {`{ users.users.x.openssh.authorizedKeys.keyFiles = [ "/srv/key" ]; }`, false},
		"all of the disk":    {`builtins.readDir /.`, false},
		"a made-up path":     {`/. + "etc" + "x"`, false},
		"above":              {`import ../../more.nix`, false},
		"out of its folder":  {`import /etc/local/../shadow`, false},
		"home":               {`import ~/more.nix`, false},
		"the network":        {`builtins.fetchTarball "https://x"`, false},
		"the environment":    {`builtins.getEnv "HOME"`, false},
		"the clock":          {`builtins.currentTime`, false},
		"interpolated":       {`"${"/srv"}/x"`, false},
		"behind a bracket":   {`[/srv]`, false},
		"nearly the folder":  {`/etc/locality/x.nix`, false},
		"the folder by name": {`builtins.readDir /etc/local`, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := selfContained([]byte(test.module)); got != test.want {
				t.Errorf("%s: %v", test.module, got)
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	now := func(more ...string) string {
		t.Helper()
		got, err := fingerprint([]string{folder, filepath.Join(folder, "missing")}, more...)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	write("one.nix", "{ }")
	write("data.json", `{"path": "/srv"}`)
	first := now("channel")
	if first == "" || first != now("channel") {
		t.Fatalf("the fingerprint is %q and then %q", first, now("channel"))
	}
	if first == now("other") {
		t.Error("another channel has the same")
	}
	write("data.json", `{"path": "/sru"}`)
	second := now("channel")
	if second == first {
		t.Error("a changed file has the same")
	}
	write("two.nix", "{ }")
	third := now("channel")
	if third == second {
		t.Error("a new file has the same")
	}
	if err := os.Symlink("/etc/static/local/platform", filepath.Join(folder, "platform")); err != nil {
		t.Fatal(err)
	}
	if got := now("channel"); got == "" || got == third {
		t.Errorf("with a link of the system's: %q", got)
	}
	for name, make := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"open module": func(path string) error {
			return os.WriteFile(path+".nix", []byte("import /srv/x.nix"), 0o644)
		},
		"large file": func(path string) error {
			file, err := os.Create(path)
			if err == nil {
				err = file.Truncate(mostBytes + 1)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder, "more")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			defer os.Remove(path + ".nix")
			if got := now("channel"); got != "" {
				t.Errorf("the fingerprint is %q", got)
			}
		})
	}
}
